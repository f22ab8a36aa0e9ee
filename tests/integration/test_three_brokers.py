"""A cluster of three brokers in the states that long-lived clusters reach: nothing is lost, nothing applied twice.

`make test` runs these on their own, one after the other: three brokers are much for a machine, and need no second set.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, TopicPartition

from demo.servers.kafka_cluster import BROKERS, KafkaCluster
from demo.servers.kafka_jars import missing_for_kafka
from demo.servers.process import wait_until
from storage.recorded import Recorded
from storage.store import open_store
from tasks.outbox import OutboxPublisher
from tasks.settings import load_settings
from tests.conftest import MakeTopic, Programs
from tests.integration.traffic import all_numbers, log_records, produce, read_numbers, wait_applied

pytestmark = [pytest.mark.integration, pytest.mark.three_brokers, pytest.mark.timeout(600)]

RUNS = 12
LONG = 240.0  # seconds, only waited out where something is wrong
QUICK = {"STALL_SECONDS": "1", "CHECK_SECONDS": "2"}
NEW_PROTOCOL = {**QUICK, "KAFKA_CONFIG": '{"group.protocol": "consumer"}'}


@pytest.fixture(scope="session")
def three_brokers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaCluster]:
    missing = missing_for_kafka()
    if missing is not None:
        pytest.skip(f"no real Kafka: {missing}")
    with KafkaCluster(tmp_path_factory.mktemp("three-brokers")) as cluster:
        yield cluster


@pytest.fixture
def kafka(three_brokers: KafkaCluster) -> KafkaCluster:
    """In place of the session's one broker: the cluster, whole, whatever the test before did to it."""
    three_brokers.start()
    return three_brokers


def holds(settings: dict[str, str], runs: int, count: int) -> None:
    """Wait until a store holds all numbers, and say what it holds where it never does."""
    expected = all_numbers(runs, count)
    try:
        wait_until(lambda: read_numbers(settings["STORAGE_URL"]) == expected, "applied", seconds=LONG, pause=0.5)
    except TimeoutError:
        assert read_numbers(settings["STORAGE_URL"]) == expected


def test_a_broker_dies_and_leaders_move(
    kafka: KafkaCluster, topic: str, group: str, programs: Programs, settings: dict[str, str]
) -> None:
    """A bridge that takes partitions over after a broker's death remembers the dead leaders."""
    first, second = programs.bridge("first", **QUICK), programs.bridge("second", **QUICK)
    worker = programs.worker(concurrency=1, **QUICK)
    for program in (first, second, worker):
        program.start()
    produce(kafka.bootstrap_servers, topic, log_records(RUNS, range(20)))
    wait_applied(kafka.bootstrap_servers, group, topic, seconds=LONG)
    victim = kafka.brokers[kafka.leaders(topic)[0]]
    victim.kill()
    assert second.stop() == 0  # its partitions come to the first
    produce(kafka.bootstrap_servers, topic, log_records(RUNS, range(20, 40)))
    holds(settings, RUNS, 40)
    kafka.start()
    kafka.elect(topic, range(4))
    assert victim.number in kafka.leaders(topic).values()
    produce(kafka.bootstrap_servers, topic, log_records(RUNS, range(40, 60)))
    holds(settings, RUNS, 60)
    wait_applied(kafka.bootstrap_servers, group, topic, seconds=LONG)
    assert first.is_alive()
    assert worker.is_alive()


def test_an_unclean_election_cuts_the_log(
    kafka: KafkaCluster, group: str, programs: Programs, settings: dict[str, str]
) -> None:
    """What was applied is not in the log any more: a person has to decide, and is told both offsets."""
    topic = f"cut-{uuid4().hex[:12]}"
    config = {"min.insync.replicas": "1", "unclean.leader.election.enable": "true", "retention.ms": "-1"}
    kafka.create_topic(topic, 1, config, on=BROKERS[:2])
    ahead, behind = (kafka.brokers[number] for number in BROKERS[:2])
    bridge = programs.bridge(KAFKA_DATA_INGESTION_TOPIC=topic, **QUICK)
    worker = programs.worker(concurrency=1, KAFKA_DATA_INGESTION_TOPIC=topic, **QUICK)
    bridge.start()
    worker.start()
    produce(kafka.bootstrap_servers, topic, in_partition(0, log_records(1, range(10))))
    holds(settings, 1, 10)
    behind.kill()
    wait_until(lambda: kafka.in_sync(topic, 0) == {ahead.number}, "one is behind", seconds=LONG)
    produce(kafka.bootstrap_servers, topic, in_partition(0, log_records(1, range(10, 30))))
    holds(settings, 1, 30)
    ahead.kill()
    behind.start()
    wait_until(lambda: kafka.leaders(topic) == {0: behind.number}, "the one that is behind leads", seconds=LONG)
    assert bridge.wait(LONG) == 1
    assert "stopped: a person has to decide" in bridge.output()
    at_reading = "all below offset 30 is read, and the log was cut", "broker end offset is 10"
    at_take_over = (
        "the log ends at offset 10, but offset 29 is applied already",
    )  # where the group's session ended too
    said = bridge.output()
    assert any(all(part in said for part in sentence) for sentence in (at_reading, at_take_over))
    assert read_numbers(settings["STORAGE_URL"]) == all_numbers(1, 30)
    kafka.start()
    kafka.delete_topic(topic)


def in_partition(number: int, records: Iterable[Recorded]) -> list[Recorded]:
    return [item._replace(partition=number) for item in records]


def test_a_topic_made_anew_under_load(
    kafka: KafkaCluster, topic: str, programs: Programs, settings: dict[str, str]
) -> None:
    bridge, worker = programs.bridge(**QUICK), programs.worker(concurrency=1, **QUICK)
    bridge.start()
    worker.start()
    produce(kafka.bootstrap_servers, topic, log_records(RUNS, range(20)))
    holds(settings, RUNS, 20)
    produce(kafka.bootstrap_servers, topic, log_records(RUNS, range(20, 400)))
    kafka.delete_topic(topic)  # with records that nobody has read
    kafka.create_topic(topic, 4, {"retention.ms": "-1"})
    produce(kafka.bootstrap_servers, topic, log_records(RUNS, range(400, 440)))
    last = list(range(400, 440))

    def came() -> bool:
        found = read_numbers(settings["STORAGE_URL"])
        return len(found) == RUNS and all(numbers[-40:] == last for numbers in found.values())

    wait_until(came, "the new topic is applied", seconds=LONG, pause=0.5)
    for numbers in read_numbers(settings["STORAGE_URL"]).values():
        assert numbers[:-40] == list(range(len(numbers) - 40))  # of the old topic the first so many, once
    assert bridge.is_alive()


def test_a_compacted_topic(
    kafka: KafkaCluster, make_topic: MakeTopic, group: str, programs: Programs, settings: dict[str, str]
) -> None:
    """Compaction takes what a later record of the run replaces; what it left, at offsets with holes, is applied."""
    config = {"cleanup.policy": "compact", "segment.ms": "500", "min.cleanable.dirty.ratio": "0.01"}
    topic = make_topic(partitions=1, config=config)
    produce(kafka.bootstrap_servers, topic, in_partition(0, log_records(3, range(30))))

    def is_compacted() -> bool:
        # A segment ends by its records' time, and only one that has ended is compacted.
        fresh = in_partition(0, log_records(1, range(90, 91)))
        now = int(time.time() * 1_000)
        stamped = [item._replace(record=item.record._replace(timestamp_ms=now)) for item in fresh]
        produce(kafka.bootstrap_servers, topic, stamped)
        return count_records(kafka.bootstrap_servers, topic) < 90

    wait_until(is_compacted, "records are compacted away", seconds=LONG, pause=1.0)
    bridge = programs.bridge(KAFKA_DATA_INGESTION_TOPIC=topic, **QUICK)
    worker = programs.worker(concurrency=1, KAFKA_DATA_INGESTION_TOPIC=topic, **QUICK)
    bridge.start()
    worker.start()
    wait_applied(kafka.bootstrap_servers, group, topic, seconds=LONG)
    found = read_numbers(settings["STORAGE_URL"])
    assert found[f"{1:032x}"][-1] == 29
    assert all(numbers == sorted(set(numbers)) for run, numbers in found.items() if run != f"{0:032x}")
    code, said = programs.run("status", KAFKA_DATA_INGESTION_TOPIC=topic, **QUICK)
    assert "lost" not in said
    assert code == 0, said


def count_records(bootstrap_servers: str, topic: str) -> int:
    """How many records a topic's only partition holds."""
    consumer = Consumer({"bootstrap.servers": bootstrap_servers, "group.id": "nobody", "enable.partition.eof": True})
    consumer.assign([TopicPartition(topic, 0, OFFSET_BEGINNING)])
    count = 0
    while True:
        message = consumer.poll(30)
        assert message is not None
        error = message.error()
        if error is not None:
            assert error.code() == KafkaError._PARTITION_EOF
            consumer.close()
            return count
        count += 1


def test_the_new_protocol_assigns_revokes_and_loses(
    kafka: KafkaCluster, topic: str, group: str, programs: Programs, settings: dict[str, str]
) -> None:
    worker = programs.worker(concurrency=1, **NEW_PROTOCOL)
    first, second = programs.bridge("first", **NEW_PROTOCOL), programs.bridge("second", **NEW_PROTOCOL)
    worker.start()
    first.start()
    first.wait_output("partition taken over", LONG)
    produce(kafka.bootstrap_servers, topic, log_records(RUNS, range(20)))
    holds(settings, RUNS, 20)
    second.start()
    first.wait_output("revoked", LONG)
    second.wait_output("partition taken over", LONG)
    produce(kafka.bootstrap_servers, topic, log_records(RUNS, range(20, 40)))
    holds(settings, RUNS, 40)
    first.signal(signal.SIGSTOP)  # longer than the broker waits for it: what it had is taken from it
    produce(kafka.bootstrap_servers, topic, log_records(RUNS, range(40, 60)))
    holds(settings, RUNS, 60)
    first.signal(signal.SIGCONT)
    first.wait_output("lost", LONG)
    produce(kafka.bootstrap_servers, topic, log_records(RUNS, range(60, 80)))
    holds(settings, RUNS, 80)
    second.kill()
    produce(kafka.bootstrap_servers, topic, log_records(RUNS, range(80, 100)))
    holds(settings, RUNS, 100)
    wait_applied(kafka.bootstrap_servers, group, topic, seconds=LONG)
    assert first.stop() == 0


def test_bridges_of_both_protocols_follow_each_other(
    kafka: KafkaCluster, topic: str, programs: Programs, settings: dict[str, str], tmp_path: Path
) -> None:
    """A setting is changed bridge by bridge: for a while both are in the group."""
    worker = programs.worker(concurrency=1, **QUICK)
    classic, new = programs.bridge("classic", **QUICK), programs.bridge("new", **NEW_PROTOCOL)
    worker.start()
    classic.start()
    classic.wait_output("partition taken over", LONG)
    produce(kafka.bootstrap_servers, topic, log_records(RUNS, range(20)))
    new.start()
    new.wait_output("partition taken over", LONG)
    produce(kafka.bootstrap_servers, topic, log_records(RUNS, range(20, 40)))
    holds(settings, RUNS, 40)
    assert classic.stop() == 0
    produce(kafka.bootstrap_servers, topic, log_records(RUNS, range(40, 60)))
    holds(settings, RUNS, 60)
    assert new.is_alive()


def test_an_instance_id_that_is_still_taken_is_waited_for(
    kafka: KafkaCluster, topic: str, programs: Programs, settings: dict[str, str]
) -> None:
    """New protocol: Kafka refuses the younger one, until the older one is dead and its session over."""
    config = {"KAFKA_CONFIG": '{"group.protocol": "consumer", "group.instance.id": "bridge-0"}'}
    first = programs.bridge("first", **QUICK, **config)
    worker = programs.worker(concurrency=1, **QUICK)
    worker.start()
    first.start()
    first.wait_output("partition taken over", LONG)
    again = programs.bridge("again", **QUICK, **config)
    again.start()
    again.wait_output("each bridge needs an id of its own", LONG)
    assert first.is_alive()
    first.kill()
    again.wait_output("partition taken over", LONG)
    produce(kafka.bootstrap_servers, topic, log_records(RUNS, range(20)))
    holds(settings, RUNS, 20)


def test_the_outbox_outlives_leaders_topics_and_new_partitions(
    kafka: KafkaCluster, make_topic: MakeTopic, tmp_path: Path
) -> None:
    """One producer, as a worker keeps it for months."""
    topic = make_topic(partitions=1)
    settings = load_settings(None, kafka_bootstrap_servers=kafka.bootstrap_servers, kafka_control_events_topic=topic)
    publisher = OutboxPublisher(settings, patience=10.0)
    with open_store(f"sqlite:///{tmp_path / 'outbox.db'}") as store:

        def publish(event: bytes) -> None:
            store.engine.transact(lambda transaction: store.outbox.put(transaction, "run", event, 1.0))
            wait_until(
                lambda: publisher.publish_waiting(store, now=100.0).left == 0,
                "it is published",
                seconds=LONG,
                pause=0.5,
            )

        publish(b"first")
        victim = kafka.brokers[kafka.leaders(topic)[0]]
        victim.kill()
        publish(b"second")
        kafka.start()
        kafka.elect(topic, [0])
        publish(b"third")
        assert count_records(kafka.bootstrap_servers, topic) >= 3
        kafka.delete_topic(topic)
        kafka.create_topic(topic, 1)
        publish(b"fourth")
        assert count_records(kafka.bootstrap_servers, topic) == 1
        kafka.add_partitions(topic, 3)
        publish(b"fifth")
        assert store.outbox.count(store.engine) == 0
    publisher.close()
