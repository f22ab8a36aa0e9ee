"""A real Prometheus scrapes real processes: what dashboard and alerts ask for is there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from demo.servers.process import free_port, wait_until
from demo.servers.product import BridgeProcess
from demo.servers.redis import RedisServer
from demo.servers.s3 import VersityServer
from storage.cleanup import CleanupState
from tests.conftest import Programs
from tests.deploy.prometheus import PrometheusServer, QueryError
from tests.deploy.test_observability import STOCK, read_alerts, read_panels
from tests.integration.control_traffic import Control, new_run
from tests.integration.redis_trouble import TROUBLES
from tests.integration.traffic import wait_applied

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

_SELECTOR = re.compile(r"matyan_\w+(?:\{[^}]*\})?")
# Without a series while all is well, which is what these are for. The first is seen by test_log_states.
_IN_TROUBLE = re.compile("matyan_bridge_standing_seconds|matyan_redis_waiting")


class Watched:
    """The processes of one test, and who watches them."""

    def __init__(
        self, prometheus: PrometheusServer, bridge: BridgeProcess, control: Control, ports: dict[str, int]
    ) -> None:
        self.prometheus = prometheus
        self.bridge = bridge
        self.control = control
        self.ports = ports

    def work(self) -> None:
        """Records of several kinds, one of them bad, and a run that is deleted, blobs and all."""
        deleted, kept = new_run(), new_run()
        self.control.put(deleted)
        for run in (deleted, kept):
            self.control.ingest("create_run", run, client_datetime=None, force_resume=False)
            self.control.ingest("log_record", run, message="hello", level=20, timestamp=1.0)
        self.control.ingest("unheard_of", kept)
        self.control.event("run_archived", run_id=kept, archived=True)
        self.control.event("unheard_of", run_id=kept)
        self.control.ingest("delete_run", deleted)
        given = self.control.settings
        for topic, group in (("DATA_INGESTION", "INGEST"), ("CONTROL_EVENTS", "CONTROL")):
            wait_applied(
                given["KAFKA_BOOTSTRAP_SERVERS"], given[f"{group}_GROUP"], given[f"KAFKA_{topic}_TOPIC"], seconds=90
            )
        self.control.wait(deleted, CleanupState.DONE)

    def has(self, expression: str) -> bool:
        return self.prometheus.query(expression) != []


@pytest.fixture
def watched(programs: Programs, settings: dict[str, str], s3: VersityServer, tmp_path: Path) -> Iterator[Watched]:
    """A bridge, workers of three kinds and beat, which have worked, and a Prometheus that has seen them at it."""
    ports = {role: free_port() for role in ("bridge", "worker", "cleaner", "jobs", "beat")}
    control = Control(settings, s3, tmp_path)
    lanes = [f"ingest.{number:02}" for number in range(8)] + [f"control.{number:02}" for number in range(4)]
    bridge = programs.bridge(METRICS_PORT=str(ports["bridge"]))
    started = [
        bridge,
        programs.worker(concurrency=2, queues=lanes, METRICS_PORT=str(ports["worker"])),
        programs.worker("cleaner", queues=["cleanup"], METRICS_PORT=str(ports["cleaner"])),
        programs.worker("jobs", queues=["jobs"], METRICS_PORT=str(ports["jobs"])),
        programs.beat(METRICS_PORT=str(ports["beat"])),
    ]
    with PrometheusServer(tmp_path / "prometheus", ports) as prometheus:
        for process in started:
            process.start()
        found = Watched(prometheus, bridge, control, ports)
        found.work()
        yield found
        for process in started:
            process.stop()


def test_everything_that_is_asked_for_is_there_and_alerts_see_what_is_wrong(
    watched: Watched, redis: RedisServer
) -> None:
    check_queries(watched)
    check_alerts(watched)
    with TROUBLES["READONLY"](redis):
        wait_until(lambda: watched.has('matyan_redis_waiting{code="READONLY"}'), "they say that they wait", seconds=90)
    wait_until(lambda: not watched.has("matyan_redis_waiting"), "they wait no more", seconds=90)


def check_queries(watched: Watched) -> None:
    prometheus = watched.prometheus
    wait_until(lambda: prometheus.targets() == dict.fromkeys(watched.ports.values(), ""), "all are scraped", seconds=60)
    expressions = [target["expr"] for panel in read_panels() for target in panel["targets"]]
    selectors = {found for alert in read_alerts() for found in _SELECTOR.findall(alert["expr"])}
    in_trouble = {found for found in set(expressions) | selectors if _IN_TROUBLE.search(found)}
    assert len(in_trouble) >= 2
    assert not any(watched.has(expression) for expression in in_trouble)
    missing = (set(expressions) | selectors) - in_trouble

    def is_all_there() -> bool:
        nonlocal missing
        missing = {expression for expression in missing if not watched.has(expression)}
        return not missing

    try:  # beat reads the ledger every few seconds, and rates need two samples
        wait_until(is_all_there, "every query gives series", seconds=90, pause=1)
    except TimeoutError:
        pytest.fail(f"these give nothing: {sorted(missing)}")

    for metric in STOCK:
        assert watched.has(f"{{__name__=~'{metric}(_count)?'}}"), metric
    up = {row["metric"]["role"]: row["value"][1] for row in prometheus.query("matyan_up")}
    assert up == {"bridge": "1", "worker": "1", "cleaner": "1", "jobs": "1", "beat": "1"}
    applied = prometheus.query("sum by (message_type) (matyan_ingestion_messages_processed_total)")
    counted = {row["metric"]["message_type"]: row["value"][1] for row in applied}
    assert counted == {"create_run": "2", "log_record": "2", "delete_run": "1", "unknown": "1"}


def check_alerts(watched: Watched) -> None:
    prometheus = watched.prometheus

    def state(name: str) -> str:
        return str(prometheus.rules()[name]["state"])

    wait_until(lambda: state("MatyanDeadLetters") != "inactive", "the dead letters are seen", seconds=60)
    rules = prometheus.rules()
    assert set(rules) == {alert["alert"] for alert in read_alerts()}
    assert {rule["health"] for rule in rules.values()} == {"ok"}
    active = {name for name, rule in rules.items() if rule["state"] != "inactive"}
    assert active == {"MatyanDeadLetters"}

    watched.bridge.stop()
    wait_until(lambda: state("MatyanBridgeDown") != "inactive", "the missing bridge is seen", seconds=60)
    assert state("MatyanWorkerDown") == "inactive"
    with pytest.raises(QueryError, match="parse error"):
        prometheus.query("sum by (")
