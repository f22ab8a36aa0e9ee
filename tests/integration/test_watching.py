"""Metrics and health of real processes: the bridge and a prefork worker, with children killed and servers away."""

from __future__ import annotations

import os
import signal
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from demo.servers.kafka import KafkaServer
from demo.servers.process import DidNotStart, free_port, wait_until
from demo.servers.product import WorkerProcess
from demo.servers.redis import RedisServer
from storage.batch import Record
from storage.recorded import Recorded
from tests.conftest import Programs
from tests.integration.leaks import living_processes
from tests.integration.traffic import log_records, produce, wait_applied

pytestmark = pytest.mark.integration


@dataclass(frozen=True)
class Watched:
    """What a process says at its port."""

    port: int

    def probe(self, path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError as error:
            return 0, str(error)

    def is_ready(self) -> bool:
        return self.probe("/readyz")[0] == 200

    def sum(self, name: str, **labels: str) -> float:
        """The sum of a metric's samples that have these labels; -1 without any."""
        found = [
            sample.value
            for family in text_string_to_metric_families(self.probe("/metrics")[1])
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        ]
        return sum(found) if found else -1.0


def children(parent: int) -> set[int]:
    return {process.pid for process in living_processes().values() if process.parent == parent}


def test_metrics_of_bridge_and_worker_are_right_also_after_a_child_is_killed(
    programs: Programs, settings: dict[str, str], kafka: KafkaServer, topic: str, group: str
) -> None:
    at_bridge, at_worker = Watched(free_port()), Watched(free_port())
    bridge = programs.bridge(METRICS_PORT=str(at_bridge.port))
    worker = programs.worker(concurrency=2, METRICS_PORT=str(at_worker.port))
    bridge.start()
    worker.start()
    wait_until(at_bridge.is_ready, "the bridge is ready", seconds=60)
    wait_until(at_worker.is_ready, "the worker is ready", seconds=60)
    assert at_worker.sum("matyan_up", role="worker") == at_bridge.sum("matyan_up", role="bridge") == 1
    bad = Recorded("", 1, Record(0, 1, b"r", b"no JSON"))
    produce(kafka.bootstrap_servers, topic, [*log_records(10, range(50)), bad])
    wait_applied(kafka.bootstrap_servers, group, topic, seconds=60)

    def processed() -> float:
        return at_worker.sum("matyan_ingestion_messages_processed_total", message_type="log_record")

    wait_until(lambda: processed() == 500, "all is counted", seconds=10)
    assert at_bridge.sum("matyan_ingestion_messages_consumed_total") == 501
    assert at_worker.sum("matyan_ingestion_messages_consumed_total") == -1  # the bridge's alone
    assert at_worker.sum("matyan_ingestion_processing_errors_total", error_type="validation") == 1
    assert at_worker.sum("matyan_dead_letters_total", reason="invalid", topic=topic) == 1
    batches = at_worker.sum("matyan_tasks_batches_total", state="applied")
    assert at_worker.sum("matyan_ingestion_batch_size_count") == batches > 0
    assert at_worker.sum("matyan_ingestion_batch_size_sum") == 501
    assert at_worker.sum("matyan_ingestion_txn_estimated_bytes_count") >= batches
    wait_until(lambda: at_bridge.sum("matyan_bridge_lag_records", topic=topic) == 0, "no lag", seconds=20)
    assert at_bridge.sum("matyan_bridge_partitions", topic=topic, state="reading") == 4
    assert at_bridge.sum("matyan_bridge_oldest_unapplied_seconds", topic=topic) == 0

    victims = children(worker.pid)
    assert len(victims) == 2
    for pid in victims:
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: len(children(worker.pid) - victims) == 2, "new children", seconds=30)
    assert processed() == 500
    produce(kafka.bootstrap_servers, topic, log_records(10, range(50, 60)))
    wait_applied(kafka.bootstrap_servers, group, topic, seconds=60)
    wait_until(lambda: processed() == 600, "all is counted again", seconds=10)

    worker.stop()
    bridge.stop()
    assert at_worker.probe("/livez")[0] == at_bridge.probe("/livez")[0] == 0


def test_lag_grows_while_no_worker_runs(programs: Programs, kafka: KafkaServer, topic: str, group: str) -> None:
    watched = Watched(free_port())
    bridge = programs.bridge(METRICS_PORT=str(watched.port), BATCH_RECORDS="10", HELD_BYTES="2000")
    bridge.start()
    wait_until(watched.is_ready, "the bridge is ready", seconds=60)
    now = int(time.time() * 1_000)
    records = [
        item._replace(record=item.record._replace(timestamp_ms=now - 100_000)) for item in log_records(8, range(50))
    ]
    produce(kafka.bootstrap_servers, topic, records)
    # Far more than is read: reading pauses at so few bytes, and the log's end is known all the same.
    wait_until(lambda: watched.sum("matyan_bridge_lag_records", topic=topic) == 400, "the lag is known", seconds=30)
    assert watched.sum("matyan_bridge_oldest_unapplied_seconds", topic=topic) >= 100
    assert watched.sum("matyan_bridge_batches_in_flight", topic=topic) > 0
    worker = programs.worker()
    worker.start()
    wait_applied(kafka.bootstrap_servers, group, topic, seconds=60)
    wait_until(lambda: watched.sum("matyan_bridge_lag_records", topic=topic) == 0, "no lag", seconds=20)
    assert watched.sum("matyan_bridge_oldest_unapplied_seconds", topic=topic) == 0


def test_redis_away_leaves_the_worker_alive_and_not_ready(programs: Programs, redis: RedisServer) -> None:
    watched = Watched(free_port())
    worker = programs.worker(METRICS_PORT=str(watched.port), HEARTBEAT_STALE_SECONDS="10")
    worker.start()
    wait_until(watched.is_ready, "the worker is ready", seconds=60)
    redis.stop()
    wait_until(lambda: watched.probe("/readyz") == (503, "redis: no connection\n"), "not ready", seconds=60)
    away = time.monotonic()
    while time.monotonic() < away + 20:  # longer than a loop that has stopped would be given
        assert watched.probe("/livez")[0] == 200
        time.sleep(0.5)
    redis.start()
    wait_until(watched.is_ready, "the worker is ready again", seconds=60)


def test_a_port_in_use_stops_the_start(programs: Programs) -> None:
    first, second = free_port(), free_port()
    bridge = programs.bridge(METRICS_PORT=str(first))
    bridge.start()
    wait_until(lambda: Watched(first).probe("/startupz")[0] == 200, "the bridge has started", seconds=60)
    twin = programs.bridge(name="twin", METRICS_PORT=str(first))
    twin.launch()
    assert twin.wait(30) == 2
    assert f"METRICS_PORT={first}: cannot listen there" in twin.output()
    worker = programs.worker(METRICS_PORT=str(second))
    worker.start()
    with pytest.raises(DidNotStart, match=f"METRICS_PORT={second}: cannot listen there"):
        programs.worker(name="second", METRICS_PORT=str(second)).start()


def test_a_workers_children_do_not_hold_its_port(programs: Programs) -> None:
    watched = Watched(free_port())
    worker = programs.worker(concurrency=2, METRICS_PORT=str(watched.port))
    worker.start()
    assert watched.port in listening(worker.pid)
    pids = children(worker.pid)
    assert len(pids) == 2
    for pid in pids:
        assert watched.port not in listening(pid)


def listening(pid: int) -> set[int]:
    """The ports that a process listens at."""
    connections = psutil.Process(pid).net_connections("tcp")
    return {connection.laddr.port for connection in connections if connection.status == psutil.CONN_LISTEN}


@pytest.mark.parametrize("pool", ["solo", "threads"])
def test_pools_that_fork_nothing_are_watched_too(
    programs: Programs, settings: dict[str, str], tmp_path: Path, pool: str
) -> None:
    watched = Watched(free_port())
    own = {**settings, "METRICS_PORT": str(watched.port)}
    worker = programs.add(WorkerProcess(tmp_path, own, name=pool, pool=pool, concurrency=2))
    worker.start()
    wait_until(watched.is_ready, "the worker is ready", seconds=60)
    assert watched.sum("matyan_up", role="worker") == 1
    assert watched.sum("matyan_ingestion_processing_errors_total", error_type="fdb") == 0
    assert watched.probe("/livez")[0] == 200
    worker.signal(signal.SIGTERM)
    assert worker.wait(30) == 0
    assert list((tmp_path / "heartbeats").rglob("*.json")) == []
