"""Redis with sentinels, TLS and passwords of their own: every program over it, and a failover under load."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from demo.servers.certificates import Authority
from demo.servers.kafka import KafkaServer
from demo.servers.process import wait_until
from demo.servers.redis_group import MASTER, RedisGroup, missing_for_redis_group
from matyan_celery.checks.redis import look_at_redis
from tasks.settings import load_settings
from tests.conftest import MakeTopic, Programs
from tests.integration.flower_answers import get_page, queue_lengths, worker_names
from tests.integration.traffic import all_numbers, log_records, produce, read_numbers, wait_applied

missing = missing_for_redis_group()
pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(400),
    pytest.mark.skipif(missing is not None, reason=str(missing)),
]

RUNS = 8


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture
def sentinels(tmp_path: Path, authority: Authority) -> Iterator[RedisGroup]:
    with RedisGroup(tmp_path / "redis", password="server", sentinel_password="own", authority=authority) as group:
        yield group


@pytest.fixture
def settings(
    kafka: KafkaServer, make_topic: MakeTopic, sentinels: RedisGroup, group: str, tmp_path: Path
) -> dict[str, str]:
    return {
        "STORAGE_URL": f"sqlite:///{tmp_path / 'store.db'}",
        "KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
        "KAFKA_DATA_INGESTION_TOPIC": make_topic(),
        "INGEST_GROUP": group,
        "KAFKA_CONTROL_EVENTS_TOPIC": make_topic(1),
        "CONTROL_GROUP": f"{group}-control",
        "LOG_LEVEL": "INFO",
        "STALL_SECONDS": "2",
        "CRON_OUTBOX": "* * * * *",
        **sentinels.settings(),
    }


def test_a_failover_under_load_loses_and_doubles_nothing(
    kafka: KafkaServer, sentinels: RedisGroup, group: str, programs: Programs, settings: dict[str, str], tmp_path: Path
) -> None:
    """Its seconds without progress are printed: docs/explanation/reliability.md has them from an idle machine."""
    topic, servers = settings["KAFKA_DATA_INGESTION_TOPIC"], kafka.bootstrap_servers
    bridge, worker, beat = programs.bridge(), programs.worker(concurrency=2), programs.beat()
    flower = programs.flower()
    started = (bridge, worker, beat, flower)
    for program in started:
        program.launch()
    wait_until(lambda: all(program.is_ready() for program in started), "all are up", seconds=120)
    load = Load(servers, topic, settings["STORAGE_URL"])
    load.run(lambda: load.applied >= 10 * RUNS)

    load.begin()
    killed = sentinels.master()
    sentinels.sentinels[0].kill()
    killed.kill()
    load.run(lambda: sentinels.master() is not killed)
    load.run_well()
    print(f"the master and a sentinel were killed: {load.longest:.1f} s without progress")

    killed.start()
    sentinels.sentinels[0].start()
    sentinels.wait_whole()
    load.begin()
    replaced = sentinels.master()
    with sentinels.sentinels[0].client() as client:
        client.execute_command("SENTINEL FAILOVER", MASTER)
    load.run(lambda: sentinels.master() is not replaced)
    load.run_well()
    print(f"the master was replaced in peace: {load.longest:.1f} s without progress")

    wait_applied(servers, group, topic, seconds=180)
    assert read_numbers(settings["STORAGE_URL"]) == all_numbers(RUNS, load.sent)
    assert all(program.is_alive() for program in started)

    wait_until(lambda: is_well(programs, f"worker@{tmp_path.name}"), "status says that all is well", seconds=90)
    wait_until(lambda: bool(worker_names(flower)), "Flower is back", seconds=60)
    assert set(queue_lengths(flower).values()) == {0}
    assert "ingest.00" in get_page(flower, "/broker")
    for program in started:
        assert "Traceback" not in program.output(), program.name


class Load:
    """Some records five times a second, and how long nothing came of it.

    Attributes:
        sent: records of each run.
        applied: records in all.
        longest: seconds without progress.
    """

    def __init__(self, servers: str, topic: str, store: str) -> None:
        self._place = (servers, topic)
        self._store = store
        self.sent, self.applied = 0, 0
        self.begin()

    def begin(self) -> None:
        """Measure anew."""
        self._last, self.longest = time.monotonic(), 0.0

    def run(self, enough: Callable[[], bool]) -> None:
        """Go on until it is enough."""

        def turn() -> bool:
            produce(*self._place, log_records(RUNS, range(self.sent, self.sent + 1)))
            self.sent += 1
            found, now = sum(len(numbers) for numbers in read_numbers(self._store).values()), time.monotonic()
            if found > self.applied:
                self.longest = max(self.longest, now - self._last)
                self.applied, self._last = found, now
            return enough()

        wait_until(turn, "the load has been carried", seconds=120, pause=0.2)

    def run_well(self) -> None:
        """Go on until there has been progress for some seconds."""
        before = self.applied
        self.run(lambda: self.applied > before + 20 * RUNS)


def is_well(programs: Programs, worker: str) -> bool:
    code, output = programs.run("status", "--json")
    found = json.loads(output.splitlines()[-1])["redis"]
    return code == 0 and list(found["workers"]) == [worker] and set(found["queues"].values()) == {0}


def test_what_is_wrong_is_said_by_name(sentinels: RedisGroup) -> None:
    right = {name.lower(): value for name, value in sentinels.settings().items()}
    assert next(look_at_redis(load_settings(None, **right))).well
    for changed, said in (
        ({"redis_sentinel_master": "other"}, "it knows no such master, but matyan: look at REDIS_SENTINEL_MASTER"),
        ({"redis_sentinel_password": "wrong"}, "REDIS_SENTINEL_PASSWORD"),
        ({"redis_url": right["redis_url"].partition("?")[0]}, "certificate verify failed"),
        ({"redis_url": right["redis_url"].replace("server", "wrong")}, "invalid username-password pair"),
    ):
        finding = next(look_at_redis(load_settings(None, **{**right, **changed})))
        assert not finding.well
        assert said in finding.sentence
        assert len(finding.sentence) < 900
