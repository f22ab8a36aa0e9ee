"""The outbox's events get into Kafka, and go from the outbox only then."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import pytest
from confluent_kafka import Consumer, TopicPartition

from demo.servers.kafka import KafkaServer
from demo.servers.process import free_port
from storage.errors import LockHeld
from storage.outbox import OutboxEvent
from storage.store import Store, open_store
from tasks.app import make_app
from tasks.blob_stores import OpenedBlobs
from tasks.job_list import JOBS
from tasks.job_runner import JobAsk, JobRunner
from tasks.outbox import OutboxPublisher, Published
from tasks.settings import Settings, load_settings
from tests.conftest import MakeTopic

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with open_store(f"sqlite:///{tmp_path / 'store.db'}") as opened:
        yield opened


def put(store: Store, *times: float) -> None:
    for time in times:
        store.engine.transact(
            lambda transaction: store.outbox.put(transaction, "run", f"at {time:g}".encode(), time)  # noqa: B023
        )


def settings_for(servers: str, topic: str) -> Settings:
    return load_settings(None, kafka_bootstrap_servers=servers, kafka_control_events_topic=topic)


def read(servers: str, topic: str, count: int) -> list[tuple[bytes | None, str | bytes | None]]:
    """The first records of a topic: key and value."""
    consumer = Consumer({"bootstrap.servers": servers, "group.id": "reader", "auto.offset.reset": "earliest"})
    consumer.assign([TopicPartition(topic, 0, 0)])
    found = consumer.consume(count, timeout=30)
    consumer.close()
    return [(message.key(), message.value()) for message in found]


def test_what_waits_is_published_once_and_removed(kafka: KafkaServer, make_topic: MakeTopic, store: Store) -> None:
    topic = make_topic(1)
    put(store, 1.0, 2.0, 3.0, 95.0)
    publisher = OutboxPublisher(settings_for(kafka.bootstrap_servers, topic), patience=20.0)
    assert publisher.publish_waiting(store, now=100.0, older=10.0) == Published(3, 0)
    assert [event.time for event in store.outbox.each(store.engine)] == [95.0], "the young are left to who put them"
    assert publisher.publish_waiting(store, now=100.0, older=10.0) == Published(0, 0)
    assert publisher.publish_waiting(store, now=105.0, older=10.0) == Published(1, 0)
    assert read(kafka.bootstrap_servers, topic, 4) == [(None, f"at {time}".encode()) for time in (1, 2, 3, 95)]
    assert store.outbox.count(store.engine) == 0
    publisher.close()
    publisher.close()


def put_many(store: Store, count: int) -> None:
    def work(transaction: object) -> None:
        for number in range(count):
            store.outbox.put(transaction, "run", b"{}", float(number))  # type: ignore[arg-type]

    store.engine.transact(work)


def test_more_than_a_page(kafka: KafkaServer, make_topic: MakeTopic, store: Store) -> None:
    topic = make_topic(1)
    put_many(store, 1_203)
    publisher = OutboxPublisher(settings_for(kafka.bootstrap_servers, topic), patience=20.0)
    kept = list[None]()
    keep = partial(kept.append, None)
    assert publisher.publish_waiting(store, now=1e6, keep=keep) == Published(1_203, 0)
    assert len(kept) == 2, "the job's lock is renewed before each full page"
    assert len(read(kafka.bootstrap_servers, topic, 1_203)) == 1_203
    publisher.close()


class SlowPublisher(OutboxPublisher):
    """Half of its lock's life goes by with each page, and then somebody else wants to do the job."""

    now = 1e6
    refused = 0

    def publish(self, store: Store, events: Sequence[OutboxEvent]) -> Published:
        self.now += 14.0
        with pytest.raises(LockHeld), store.job_locks(clock=lambda: self.now).hold("bridge_outbox", ttl=30.0):
            pass
        self.refused += 1
        return super().publish(store, events)


@pytest.mark.parametrize("gap", [60.0, 0.0], ids=["beat", "by hand"])
def test_the_job_keeps_its_lock_for_as_long_as_it_publishes(
    gap: float, kafka: KafkaServer, make_topic: MakeTopic, store: Store
) -> None:
    put_many(store, 1_203)
    settings = settings_for(kafka.bootstrap_servers, make_topic(1))
    publisher = SlowPublisher(settings, patience=20.0)
    with make_app(settings) as app:
        blobs = OpenedBlobs(settings)
        runner = JobRunner(
            settings, app, store=lambda: store, blobs=blobs.blobs, publisher=publisher, clock=lambda: publisher.now
        )
        assert runner.run(JOBS["outbox"], JobAsk(gap=gap)) == {"sent": 1_203, "left": 0}
    assert publisher.refused == 3
    publisher.close()


def test_what_kafka_does_not_confirm_stays(store: Store) -> None:
    put(store, 1.0, 2.0)
    publisher = OutboxPublisher(settings_for(f"127.0.0.1:{free_port()}", "any"), patience=1.0)
    assert publisher.publish_waiting(store, now=100.0) == Published(0, 2)
    assert store.outbox.count(store.engine) == 2
    events = list(store.outbox.each(store.engine))
    publisher.publish_soon(store, events)  # at once: Kafka was away a moment ago
    assert store.outbox.count(store.engine) == 2
    publisher.close()


def test_a_topic_that_is_not_there(kafka: KafkaServer, store: Store) -> None:
    put(store, 1.0)
    publisher = OutboxPublisher(settings_for(kafka.bootstrap_servers, "no-such-control-topic"), patience=2.0)
    assert publisher.publish_waiting(store, now=100.0) == Published(0, 1)
    assert store.outbox.count(store.engine) == 1
    publisher.close()
