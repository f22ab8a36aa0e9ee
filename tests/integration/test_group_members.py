"""Who else may be in the bridge's consumer group: whatever Kafka does about them, a person is told in words."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, cast

import pytest
from confluent_kafka import Consumer, KafkaException, ShareConsumer, TopicPartition

from bridge.committer import Committer
from bridge.keeper import Keeper
from bridge.lookup import Lookup
from bridge.store_desk import StoreDesk
from bridge.topic_watch import TopicWatch
from demo.servers.kafka import KafkaServer
from demo.servers.process import wait_until
from tests.conftest import Programs
from tests.integration.traffic import all_numbers, log_records, produce, read_numbers, wait_applied
from tests.unit.test_committer import Bench

pytestmark = [pytest.mark.integration, pytest.mark.timeout(400)]

RUNS = 12
LONG = 180.0  # seconds, only waited out where something is wrong
QUICK = {"STALL_SECONDS": "1", "CHECK_SECONDS": "2"}
NEW = {**QUICK, "KAFKA_CONFIG": '{"group.protocol": "consumer"}'}
STATIC = {**QUICK, "KAFKA_CONFIG": '{"group.instance.id": "bridge-0"}'}


@contextmanager
def polled(make: Callable[[dict[str, Any]], Any], config: dict[str, Any], topic: str) -> Iterator[None]:
    """Another member of a group, polled in a thread of its own."""
    consumer = make({**config, "log_level": 0})
    consumer.subscribe([topic])
    ended = threading.Event()

    def poll() -> None:
        with suppress(KafkaException):  # a share consumer that is refused
            while not ended.is_set():
                consumer.poll(0.2)
        consumer.close()

    thread = threading.Thread(target=poll)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def stranger(kafka: KafkaServer, group: str) -> dict[str, Any]:
    """A member as a stock worker would be one."""
    names = {"client.id": "aiokafka-0.14.0", "group.id": group, "bootstrap.servers": kafka.bootstrap_servers}
    return {**names, "enable.auto.commit": False, "partition.assignment.strategy": "roundrobin"}


def test_a_stranger_in_a_group_of_the_new_protocol(
    kafka: KafkaServer, topic: str, group: str, programs: Programs, settings: dict[str, str]
) -> None:
    """Kafka would share the partitions out among them: the bridge waits for it to go, and stops when one comes."""
    bridge, worker = programs.bridge(**NEW), programs.worker(concurrency=1, **NEW)
    worker.start()
    with polled(Consumer, stranger(kafka, group), topic):
        bridge.start()
        bridge.wait_output("waiting for the group", LONG)
        assert "aiokafka-0.14.0" in bridge.output()
        assert "cannot be mixed" in bridge.output()
    bridge.wait_output("partition taken over", LONG)
    produce(kafka.bootstrap_servers, topic, log_records(RUNS, range(20)))
    wait_applied(kafka.bootstrap_servers, group, topic, seconds=LONG)
    with polled(Consumer, stranger(kafka, group), topic):
        assert bridge.wait(LONG) == 1
    assert "stopped: a person has to decide" in bridge.output()
    assert "other members: aiokafka-0.14.0; stop them first. They cannot be mixed" in bridge.output()
    assert read_numbers(settings["STORAGE_URL"]) == all_numbers(RUNS, 20)


@pytest.mark.parametrize("given", [QUICK, NEW], ids=["classic", "new"])
def test_a_group_that_is_no_consumer_group(
    kafka: KafkaServer, topic: str, group: str, programs: Programs, given: dict[str, str]
) -> None:
    for attempt in range(10):
        name = f"{group}-{attempt}"
        with polled(ShareConsumer, {"bootstrap.servers": kafka.bootstrap_servers, "group.id": name}, topic):
            if not is_refused(kafka, name, topic):
                continue  # we came first, and made it a consumer group
            bridge = programs.bridge(INGEST_GROUP=name, **given)
            bridge.launch()
            assert bridge.wait(LONG) == 1
            break
    else:
        pytest.fail("ten times the share group came too late")
    assert f"the group '{name}' is in use by another protocol than ours" in bridge.output()
    assert "INGEST_GROUP" in bridge.output()


def is_refused(kafka: KafkaServer, group: str, topic: str) -> bool:
    """Whether Kafka refuses a consumer of that group, since it is a share group; else it takes it in."""
    consumer = Consumer({**stranger(kafka, group), "log_level": 0})
    consumer.subscribe([topic])
    errors = []

    def is_decided() -> bool:
        message = consumer.poll(0.2)
        errors.extend([message.error()] if message is not None and message.error() is not None else [])
        return bool(errors or consumer.assignment())

    try:
        wait_until(is_decided, "Kafka takes the consumer in or refuses it", seconds=LONG)
        return bool(errors)
    finally:
        consumer.close()


def test_two_bridges_with_one_instance_id(
    kafka: KafkaServer, topic: str, group: str, programs: Programs, settings: dict[str, str]
) -> None:
    """Kafka fences the older one, and tells nobody but it. One that leaves leaves for real."""
    worker = programs.worker(concurrency=1, **STATIC)
    older, younger = programs.bridge("older", **STATIC), programs.bridge("younger", **STATIC)
    worker.start()
    older.start()
    older.wait_output("partition taken over", LONG)
    produce(kafka.bootstrap_servers, topic, log_records(RUNS, range(20)))
    younger.start()
    assert older.wait(LONG) == 1
    assert "as group.instance.id='bridge-0'" in older.output()
    produce(kafka.bootstrap_servers, topic, log_records(RUNS, range(20, 40)))
    wait_applied(kafka.bootstrap_servers, group, topic, seconds=LONG)
    other = programs.bridge("other", **{**QUICK, "KAFKA_CONFIG": '{"group.instance.id": "bridge-1"}'})
    other.start()
    other.wait_output("assigned", LONG)
    assert younger.stop() == 0
    produce(kafka.bootstrap_servers, topic, log_records(RUNS, range(40, 60)))
    wait_applied(kafka.bootstrap_servers, group, topic, seconds=LONG)
    assert read_numbers(settings["STORAGE_URL"]) == all_numbers(RUNS, 60)


def test_a_session_time_that_the_broker_forbids(programs: Programs) -> None:
    bridge = programs.bridge(KAFKA_CONFIG='{"session.timeout.ms": "100"}')
    bridge.launch()
    assert bridge.wait(LONG) == 1
    assert "group.min.session.timeout.ms" in bridge.output()


def test_a_revoke_that_comes_too_late_commits_nothing_and_ends_nothing(
    kafka: KafkaServer, topic: str, group: str
) -> None:
    """Past max.poll.interval.ms on_revoke is called as ever, but Kafka knows the member no more."""
    bench, told = Bench(), []
    times = {"session.timeout.ms": 6_000, "max.poll.interval.ms": 6_000}
    late = Consumer({**stranger(kafka, group), **times, "partition.assignment.strategy": "cooperative-sticky"})
    committer = Committer(
        late,
        topic,
        cast(Keeper, bench.keeper),
        cast(StoreDesk, bench.desk),
        bench.holdings,
        cast(TopicWatch, None),  # only asked where a partition is not ours
        every=1.0,
        alive=lambda: None,
        away=lambda: None,
    )

    def assign(consumer: Consumer, places: list[TopicPartition]) -> None:
        told.append("assigned")
        consumer.incremental_assign([TopicPartition(topic, place.partition, 0) for place in places])

    def revoke(consumer: Consumer, places: list[TopicPartition]) -> None:
        told.append("revoked")
        committer.commit_now(bench.holding, time.monotonic() + 5.0)
        consumer.incremental_unassign(places)

    def lose(consumer: Consumer, places: list[TopicPartition]) -> None:
        told.append("lost")
        consumer.incremental_unassign(places)

    late.subscribe([topic], on_assign=assign, on_revoke=revoke, on_lost=lose)
    wait_until(lambda: late.poll(0.2) is None and "assigned" in told, "it has its partitions", seconds=LONG)
    other = {**stranger(kafka, group), "client.id": "other", "partition.assignment.strategy": "cooperative-sticky"}
    with Lookup({"bootstrap.servers": kafka.bootstrap_servers}, group) as lookup, polled(Consumer, other, topic):
        wait_until(lambda: lookup.members() == ["other"], "the late one is thrown out", seconds=LONG, pause=0.5)
        wait_until(lambda: bool(late.poll(0.2)) or len(told) > 1, "it hears of it", seconds=LONG)
    wait_until(lambda: late.poll(0.2) is None and told[-1] == "assigned", "it is back", seconds=LONG)
    assert {"revoked", "lost"} & set(told)
    assert bench.holding.landed is None  # nothing was committed, and nothing raised
    late.close()
