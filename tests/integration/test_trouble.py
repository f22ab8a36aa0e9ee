"""Trouble on real servers: it goes on by itself, says what it waits for, and nothing is lost, twice or out of order."""

from __future__ import annotations

import json
import signal
import sqlite3
import time
from pathlib import Path

import psutil
import pytest
from confluent_kafka import Consumer, TopicPartition

from demo.servers.kafka import KafkaServer
from demo.servers.process import wait_until
from demo.servers.redis import RedisServer
from storage.batch import Record
from storage.recorded import Recorded
from storage.store import open_store
from tests.conftest import MakeTopic, Programs
from tests.integration.commands import run_command
from tests.integration.traffic import all_numbers, is_applied, log_records, produce, read_numbers, wait_applied
from tests.unit.test_bad_input import BAD

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]

RUNS = 12
A_MINUTE = 60.0
QUICK = {"STALL_SECONDS": "1", "STORAGE_TIMEOUT_SECONDS": "2", "CHECK_SECONDS": "2"}


def store_path(settings: dict[str, str]) -> Path:
    return Path(settings["STORAGE_URL"].removeprefix("sqlite:///"))


@pytest.mark.timeout(400)
def test_store_away(kafka: KafkaServer, topic: str, group: str, programs: Programs, settings: dict[str, str]) -> None:
    bridge, worker = programs.bridge(**QUICK), programs.worker(concurrency=2, **QUICK)
    bridge.start()
    worker.start()
    produce(kafka.bootstrap_servers, topic, log_records(RUNS, range(50)))
    wait_applied(kafka.bootstrap_servers, group, topic, seconds=60)

    path = store_path(settings)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")  # another process that does not let go of the store
    produce(kafka.bootstrap_servers, topic, log_records(RUNS, range(50, 100)))
    worker.wait_output("waiting for the store", 30)
    other.execute("ROLLBACK")
    other.close()
    wait_applied(kafka.bootstrap_servers, group, topic, seconds=60)

    away = path.with_suffix(".away")
    path.rename(away)  # the disk is gone
    produce(kafka.bootstrap_servers, topic, log_records(RUNS, range(100, 150)))
    bridge.wait_output("waiting for the store", 30)
    time.sleep(A_MINUTE)  # longer than every backoff, as long as the visibility timeout
    away.rename(path)
    wait_applied(kafka.bootstrap_servers, group, topic, seconds=90)
    assert bridge.is_alive()
    assert worker.is_alive()
    assert read_numbers(settings["STORAGE_URL"]) == all_numbers(RUNS, 150)
    with open_store(settings["STORAGE_URL"]) as store:
        assert list(store.dead_letters.each(store.engine)) == []


def test_a_bridge_ends_within_its_grace_while_the_store_is_away(
    kafka: KafkaServer, group: str, programs: Programs, settings: dict[str, str], make_topic: MakeTopic
) -> None:
    """Each partition has a floor to raise, and each of those would take the whole timeout."""
    topic = make_topic(partitions=8)
    slow = {"DRAIN_SECONDS": "2", "STORAGE_TIMEOUT_SECONDS": "5", "COMMIT_SECONDS": "600"}
    bridge = programs.bridge(KAFKA_DATA_INGESTION_TOPIC=topic, **slow)
    worker = programs.worker(concurrency=1, KAFKA_DATA_INGESTION_TOPIC=topic)
    bridge.start()
    worker.start()
    records = [item._replace(partition=number % 8) for number, item in enumerate(log_records(40, range(3)))]
    produce(kafka.bootstrap_servers, topic, records)
    wait_until(lambda: read_numbers(settings["STORAGE_URL"]) == all_numbers(40, 3), "all is applied", seconds=90)
    other = sqlite3.connect(store_path(settings), isolation_level=None)
    other.execute("BEGIN IMMEDIATE")  # another process that does not let go of the store
    bridge.signal(signal.SIGTERM)
    assert bridge.wait(50) == 0  # 8 floors, twice, and an epoch would be 85 seconds
    assert "the epochs are not raised" in bridge.output()
    other.close()


def test_a_bridge_without_time_to_wait_commits_what_is_applied(
    kafka: KafkaServer, topic: str, group: str, programs: Programs, settings: dict[str, str]
) -> None:
    """DRAIN_SECONDS bounds the waiting for what is in flight, not the last commits."""
    bridge = programs.bridge(DRAIN_SECONDS="0", COMMIT_SECONDS="600")
    worker = programs.worker(concurrency=1)
    bridge.start()
    worker.start()
    produce(kafka.bootstrap_servers, topic, log_records(RUNS, range(3)))
    wait_until(lambda: read_numbers(settings["STORAGE_URL"]) == all_numbers(RUNS, 3), "all is applied", seconds=90)
    time.sleep(2.0)  # the bridge has seen it too
    assert not is_applied(kafka.bootstrap_servers, group, topic)
    bridge.signal(signal.SIGTERM)
    assert bridge.wait(50) == 0
    assert is_applied(kafka.bootstrap_servers, group, topic)
    assert "the epochs are not raised" not in bridge.output()


def test_a_bridge_without_time_to_wait_commits_what_it_gives_away(
    kafka: KafkaServer, topic: str, group: str, programs: Programs, settings: dict[str, str]
) -> None:
    first = programs.bridge("first", DRAIN_SECONDS="0", COMMIT_SECONDS="600")
    worker = programs.worker(concurrency=1)
    first.start()
    worker.start()
    produce(kafka.bootstrap_servers, topic, log_records(RUNS, range(3)))
    wait_until(lambda: read_numbers(settings["STORAGE_URL"]) == all_numbers(RUNS, 3), "all is applied", seconds=90)
    time.sleep(2.0)  # the bridge has seen it too
    assert committed(kafka.bootstrap_servers, group, topic) == 0
    programs.bridge("second", COMMIT_SECONDS="600").start()
    wait_until(lambda: "revoked" in first.output(), "partitions are given away", seconds=60)
    assert committed(kafka.bootstrap_servers, group, topic) > 0


def committed(bootstrap_servers: str, group: str, topic: str) -> int:
    """The sum of what the group has committed."""
    consumer = Consumer({"bootstrap.servers": bootstrap_servers, "group.id": group, "enable.auto.commit": False})
    places = [TopicPartition(topic, number) for number in range(4)]
    offsets = [max(place.offset, 0) for place in consumer.committed(places, timeout=10)]
    consumer.close()
    return sum(offsets)


@pytest.mark.broker
def test_redis_restarted_empty(
    kafka: KafkaServer, redis: RedisServer, topic: str, group: str, programs: Programs, settings: dict[str, str]
) -> None:
    bridge, worker = programs.bridge(**QUICK), programs.worker(concurrency=2, **QUICK)
    bridge.start()
    worker.start()
    for third in range(3):
        produce(kafka.bootstrap_servers, topic, log_records(RUNS, range(third * 60, third * 60 + 30)))
        redis.kill()
        produce(kafka.bootstrap_servers, topic, log_records(RUNS, range(third * 60 + 30, third * 60 + 60)))
        if third == 0:
            bridge.wait_output("waiting for Redis", 30)
        redis.start()
    wait_applied(kafka.bootstrap_servers, group, topic, seconds=90)
    assert read_numbers(settings["STORAGE_URL"]) == all_numbers(RUNS, 180)


def test_kafka_restarted(
    kafka: KafkaServer, topic: str, group: str, programs: Programs, settings: dict[str, str]
) -> None:
    bridge, worker = programs.bridge(**QUICK), programs.worker(concurrency=1, **QUICK)
    bridge.start()
    worker.start()
    produce(kafka.bootstrap_servers, topic, log_records(RUNS, range(100)))
    kafka.kill()
    bridge.wait_output("waiting for Kafka", 30)
    kafka.start()
    produce(kafka.bootstrap_servers, topic, log_records(RUNS, range(100, 200)))
    wait_applied(kafka.bootstrap_servers, group, topic, seconds=90)
    assert bridge.is_alive()
    assert read_numbers(settings["STORAGE_URL"]) == all_numbers(RUNS, 200)


def test_memory_is_bounded_while_nobody_works(
    kafka: KafkaServer, topic: str, group: str, programs: Programs, settings: dict[str, str]
) -> None:
    bridge = programs.bridge(HELD_BYTES="8000000", **QUICK)
    bridge.start()
    bridge.wait_output("partition taken over", 30)
    before = psutil.Process(bridge.pid).memory_info().rss
    backlog = [
        item._replace(record=item.record._replace(value=(item.record.value or b"") + b" " * 4_000))
        for item in log_records(RUNS, range(3_000))
    ]
    assert sum(item.record.size for item in backlog) > 140_000_000
    produce(kafka.bootstrap_servers, topic, backlog)
    bridge.wait_output("reading pauses", 30)
    time.sleep(3)  # time in which an unbounded bridge would read it all
    grown = psutil.Process(bridge.pid).memory_info().rss - before
    assert grown < 110_000_000
    worker = programs.worker(concurrency=2, HELD_BYTES="8000000", **QUICK)
    worker.start()
    wait_applied(kafka.bootstrap_servers, group, topic, seconds=120)
    assert read_numbers(settings["STORAGE_URL"]) == all_numbers(RUNS, 3_000)


def test_missing_topic_is_waited_for(
    kafka: KafkaServer, group: str, programs: Programs, settings: dict[str, str], make_topic: MakeTopic
) -> None:
    name = make_topic()
    kafka.delete_topic(name)
    bridge, worker = programs.bridge(KAFKA_DATA_INGESTION_TOPIC=name, **QUICK), programs.worker(concurrency=1, **QUICK)
    bridge.start()
    bridge.wait_output("it does not exist", 30)
    worker.start()
    kafka.create_topic(name, 4)
    produce(kafka.bootstrap_servers, name, log_records(RUNS, range(10)))
    wait_applied(kafka.bootstrap_servers, group, name, seconds=60)
    assert read_numbers(settings["STORAGE_URL"]) == all_numbers(RUNS, 10)


def test_wrong_setting_stops_at_once(programs: Programs, settings: dict[str, str], tmp_path: Path) -> None:
    wrong = {"INGEST_LANES": "0"}
    for process in (programs.bridge(**wrong), programs.worker(concurrency=1, **wrong)):
        process.launch()
        assert process.wait(30) != 0
        assert "INGEST_LANES='0'" in process.output()
    done = run_command({**settings, **wrong}, tmp_path, "status")
    assert (done.returncode, "INGEST_LANES='0'" in done.stderr) == (2, True)


def test_bad_records_among_good_ones(
    kafka: KafkaServer, topic: str, group: str, programs: Programs, settings: dict[str, str], tmp_path: Path
) -> None:
    bridge, worker = programs.bridge(**QUICK), programs.worker(concurrency=1, **QUICK)
    bridge.start()
    worker.start()
    good = list(log_records(1, range(len(BAD) + 1)))
    mixed = []
    for item, (value, _) in zip(good, BAD.values(), strict=False):
        mixed += [item, Recorded("", 0, Record(0, 1, item.record.key, value))]
    produce(kafka.bootstrap_servers, topic, [*mixed, good[-1]])
    wait_applied(kafka.bootstrap_servers, group, topic, seconds=90)
    assert read_numbers(settings["STORAGE_URL"]) == all_numbers(1, len(good))
    assert bridge.is_alive()
    assert worker.is_alive()

    done = run_command(settings, tmp_path, "dead-letters", "list", "--json")
    letters = [json.loads(line) for line in done.stdout.splitlines()]
    assert [letter["reason"] for letter in letters] == [reason for _, reason in BAD.values()]
    again = run_command(settings, tmp_path, "dead-letters", "requeue", "--reason", "value_too_large")
    assert again.returncode == 1
    assert "failed again" in again.stdout
    dropped = run_command(settings, tmp_path, "dead-letters", "drop", "--all")
    assert dropped.returncode == 0
    assert run_command(settings, tmp_path, "dead-letters", "list", "--json").stdout == ""
    assert run_command(settings, tmp_path, "status").returncode == 0


def test_topic_made_anew_under_a_running_bridge(
    kafka: KafkaServer, topic: str, group: str, programs: Programs, settings: dict[str, str]
) -> None:
    bridge, worker = programs.bridge(**QUICK), programs.worker(concurrency=1, **QUICK)
    bridge.start()
    worker.start()
    produce(kafka.bootstrap_servers, topic, log_records(RUNS, range(20)))
    wait_applied(kafka.bootstrap_servers, group, topic, seconds=60)
    kafka.delete_topic(topic)
    kafka.create_topic(topic, 4)
    produce(kafka.bootstrap_servers, topic, log_records(RUNS, range(20, 50)))
    bridge.wait_output("the topic was made anew", 60)
    wait_until(
        lambda: read_numbers(settings["STORAGE_URL"]) == all_numbers(RUNS, 50), "all is applied", seconds=60, pause=0.3
    )


def test_partitions_added_under_a_running_bridge(
    kafka: KafkaServer, group: str, programs: Programs, settings: dict[str, str], make_topic: MakeTopic
) -> None:
    """What the bridge's clients know of the topic is older than its new partitions."""
    topic = make_topic(partitions=2)
    bridge = programs.bridge(KAFKA_DATA_INGESTION_TOPIC=topic, **QUICK)
    worker = programs.worker(concurrency=1, KAFKA_DATA_INGESTION_TOPIC=topic, **QUICK)
    bridge.start()
    worker.start()
    first = [item._replace(partition=number % 2) for number, item in enumerate(log_records(RUNS, range(20)))]
    produce(kafka.bootstrap_servers, topic, first)
    wait_applied(kafka.bootstrap_servers, group, topic, seconds=60)
    kafka.add_partitions(topic, 5)
    added = [item._replace(partition=2 + number % 3) for number, item in enumerate(log_records(RUNS, range(20, 40)))]
    produce(kafka.bootstrap_servers, topic, added)
    wait_applied(kafka.bootstrap_servers, group, topic, seconds=120)
    assert read_numbers(settings["STORAGE_URL"]) == all_numbers(RUNS, 40)
    with open_store(settings["STORAGE_URL"]) as store:
        owners = store.engine.read(store.ledger.sources)
    epochs = {source.partition: owner.epoch.number for source, owner in owners.items() if source.topic == topic}
    assert epochs == dict.fromkeys(range(5), 1)


def test_lanes_change_and_bridges_come_and_go(
    kafka: KafkaServer, topic: str, group: str, programs: Programs, settings: dict[str, str], tmp_path: Path
) -> None:
    worker = programs.worker(concurrency=2, **QUICK)
    worker.start()
    first = programs.bridge("bridge-1", INGEST_LANES="2", **QUICK)
    first.start()
    first.wait_output("partition taken over", 30)
    produce(kafka.bootstrap_servers, topic, log_records(RUNS, range(100)))
    second = programs.bridge("bridge-2", INGEST_LANES="5", **QUICK)  # shares the partitions, and wants other lanes
    second.start()
    produce(kafka.bootstrap_servers, topic, log_records(RUNS, range(100, 200)))
    second.wait_output("lanes changed", 60)
    produce(kafka.bootstrap_servers, topic, log_records(RUNS, range(200, 250)))
    first.kill()  # its partitions come back after the session timeout; or at once, to a third
    third = programs.bridge("bridge-3", INGEST_LANES="5", **QUICK)
    third.start()
    produce(kafka.bootstrap_servers, topic, log_records(RUNS, range(250, 300)))
    wait_applied(kafka.bootstrap_servers, group, topic, seconds=120)
    assert read_numbers(settings["STORAGE_URL"]) == all_numbers(RUNS, 300)
    assert second.stop() == 0
    assert third.stop() == 0

    wait_until(lambda: run_drain(settings, tmp_path), "drained", seconds=90)
    assert is_applied(kafka.bootstrap_servers, group, topic)
    assert run_command(settings, tmp_path, "status").returncode == 0


def run_drain(settings: dict[str, str], folder: Path) -> bool:
    done = run_command(settings, folder, "drain")
    assert done.returncode == 0, done.stderr[-2_000:]
    return "drained" in done.stderr


def test_a_foreign_store_is_refused_until_adopted(
    kafka: KafkaServer, topic: str, group: str, programs: Programs, settings: dict[str, str], tmp_path: Path
) -> None:
    bridge, worker = programs.bridge(**QUICK), programs.worker(concurrency=1, **QUICK)
    bridge.start()
    worker.start()
    produce(kafka.bootstrap_servers, topic, log_records(RUNS, range(10)))
    wait_applied(kafka.bootstrap_servers, group, topic, seconds=60)
    bridge.stop()
    worker.stop()
    foreign = {**settings, **QUICK, "STORAGE_URL": f"sqlite:///{tmp_path / 'foreign.db'}"}
    done = run_command(foreign, tmp_path, "bridge")
    assert done.returncode == 1
    assert "belongs to store" in done.stderr
    assert "--adopt" in done.stderr
