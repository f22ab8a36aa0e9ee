"""The bridge and the workers as processes: they start from settings, end on SIGTERM, and refuse wrong settings."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
import redis as redis_client

from demo.servers.kafka import KafkaServer
from demo.servers.process import DidNotStart, wait_until
from demo.servers.product import clear_settings
from demo.servers.redis import RedisServer
from tasks.app import make_app
from tasks.queues import INGEST_TASK, ingest_queue
from tasks.settings import load_settings
from tests.conftest import Programs
from tests.integration.leaks import living_processes

pytestmark = pytest.mark.integration


def children(parent: int) -> set[int]:
    return {process.pid for process in living_processes().values() if process.parent == parent}


class TestWorker:
    def test_runs_tasks_of_every_queue_and_survives_a_bad_one(
        self, programs: Programs, settings: dict[str, str], redis: RedisServer
    ) -> None:
        worker = programs.worker(concurrency=2, INGEST_QUEUES="3")
        worker.start()
        app = make_app(load_settings(None, redis_url=settings["REDIS_URL"], ingest_queues=3))
        with app.producer_pool.acquire(block=True) as producer:
            for lane in range(3):
                app.send_task(INGEST_TASK, (b"not a batch",), queue=ingest_queue(lane, 3), producer=producer)
        app.close()
        wait_until(
            lambda: worker.output().count("not a packed batch (11 bytes)") >= 3, "three bad tasks failed", seconds=30
        )
        with redis_client.Redis.from_url(redis.url) as client:
            wait_until(lambda: client.hlen("unacked") == 0, "the tasks are acknowledged", seconds=30)
        assert worker.is_alive()

    def test_ends_on_sigterm(self, programs: Programs) -> None:
        worker = programs.worker(concurrency=2)
        worker.start()
        pids = children(worker.pid)
        assert len(pids) == 2
        worker.signal(signal.SIGTERM)
        assert worker.wait(30) == 0
        wait_until(lambda: not pids & set(living_processes()), "the children are gone", seconds=10)

    def test_kill_takes_its_children(self, programs: Programs) -> None:
        worker = programs.worker(concurrency=2)
        worker.start()
        pids = children(worker.pid)
        assert len(pids) == 2
        worker.kill()
        wait_until(lambda: not pids & set(living_processes()), "the children are gone", seconds=10)

    def test_a_wrong_setting_is_named(self, programs: Programs) -> None:
        worker = programs.worker(INGEST_QUEUES="many")
        with pytest.raises(DidNotStart, match=r"INGEST_QUEUES='many'"):
            worker.start()


class TestBridge:
    def test_a_wrong_setting_is_named(self, programs: Programs) -> None:
        bridge = programs.bridge(STORAGE_URL="nowhere")
        bridge.launch()
        assert bridge.wait(30) == 2
        assert "STORAGE_URL='nowhere'" in bridge.output()

    def test_waits_for_a_topic_and_says_so(self, programs: Programs, kafka: KafkaServer) -> None:
        bridge = programs.bridge(KAFKA_DATA_INGESTION_TOPIC="no-such-topic")
        bridge.start()
        bridge.wait_output("waiting for the topic: it does not exist", 30)
        assert "no-such-topic" in bridge.output()
        bridge.signal(signal.SIGTERM)
        assert bridge.wait(30) == 0
        assert not kafka.has_topic("no-such-topic")

    def test_takes_its_partitions_and_leaves_on_sigterm(self, programs: Programs) -> None:
        bridge = programs.bridge()
        bridge.start()
        bridge.wait_output('"partitions": [0, 1, 2, 3]', 60)
        bridge.signal(signal.SIGTERM)
        assert bridge.wait(60) == 0
        assert "left the group" in bridge.output()

    def test_where_one_route_needs_a_person_both_end(
        self, programs: Programs, settings: dict[str, str], control_topic: str
    ) -> None:
        first = programs.bridge("first")
        first.start()
        first.wait_output(f'"topic": "{control_topic}", "partition": 0', 60)
        first.signal(signal.SIGTERM)
        assert first.wait(60) == 0
        second = programs.bridge("second", CONTROL_GROUP=settings["CONTROL_GROUP"] + "-other")
        second.launch()
        assert second.wait(60) == 1
        assert "belongs to the consumer group" in second.output()
        assert f'"topic": "{settings["KAFKA_DATA_INGESTION_TOPIC"]}"' in second.output()
        assert "Traceback" not in second.output()


class TestSettings:
    def test_only_what_is_given_counts(
        self, programs: Programs, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setenv("BATCH_RECORDS", "nonsense")
        assert clear_settings({"LOG_LEVEL": "DEBUG"})["BATCH_RECORDS"] is None
        bridge = programs.bridge(STORAGE_URL="nowhere")
        bridge.launch()
        assert bridge.wait(30) == 2
        assert "BATCH_RECORDS" not in bridge.output()

    def test_a_misspelt_name_is_told(self, programs: Programs) -> None:
        with pytest.raises(ValueError, match="no such settings: INGEST_LANE"):
            programs.bridge(INGEST_LANE="3")
