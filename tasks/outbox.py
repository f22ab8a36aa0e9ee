"""Publishing the outbox: events into the control topic, each removed once Kafka has confirmed it.

An event may be published twice, by two processes or where a removal fails; the ledger makes that one cleanup.
"""

from __future__ import annotations

import os
import threading
import time
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import structlog
from confluent_kafka import KafkaError, KafkaException, Message, Producer

from storage.engine import ignore
from tasks.errors import WrongSettingError
from tasks.kafka_clients import PARTITIONER, find_refusals, make_client, word_refusals
from tasks.kafka_trouble import Told

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from storage.outbox import OutboxEvent
    from storage.store import Store
    from tasks.settings import Settings

_PATIENCE: Final = 5.0  # seconds that one publishing waits for Kafka
_REST: Final = 30.0  # seconds without publishing in passing, after Kafka did not confirm
_YOUNG: Final = 10.0  # seconds that an event is left to whoever put it
_PAGE: Final = 500

log = structlog.get_logger("tasks.outbox")


class Published(NamedTuple):
    """How many events were confirmed and removed, and how many were tried and are left."""

    sent: int
    left: int


class OutboxPublisher:
    """Publishes with an idempotent producer of the process that uses it: made on first use, never before a fork.

    Args:
        settings: Kafka's servers and security, and the topic.
        patience: seconds that one publishing waits for Kafka.
    """

    def __init__(self, settings: Settings, *, patience: float = _PATIENCE) -> None:
        self._config = settings.kafka_client()
        self._told = Told(self._config)
        self._topic = settings.kafka_control_events_topic
        self._patience = patience
        self._lock = threading.Lock()
        self._made: tuple[int, Producer] | None = None
        self._not_before = 0.0

    def publish(self, store: Store, events: Sequence[OutboxEvent]) -> Published:
        """Publish these events, wait for Kafka for a while, and remove those that it has confirmed.

        Raises:
            StorageUnavailable: the confirmed ones are published, and not removed: they will be published again.
        """
        confirmed = self._send(events)
        if confirmed:
            store.engine.transact(lambda transaction: store.outbox.remove(transaction, confirmed))
        if len(confirmed) < len(events):
            self._not_before = time.monotonic() + _REST
            # What it remembers of the topic may have grown old: one that was made anew it would never find again.
            self.close()
            left, trouble = len(events) - len(confirmed), self._told.explain()
            why = {} if trouble is None else {"error": str(trouble)}
            log.warning("events are left in the outbox: Kafka did not confirm them", left=left, **why)
        return Published(len(confirmed), len(events) - len(confirmed))

    def publish_soon(self, store: Store, events: Sequence[OutboxEvent]) -> None:
        """The same in passing: not where Kafka was away a moment ago, since beat publishes what is left."""
        if time.monotonic() >= self._not_before:
            self.publish(store, events)

    def publish_waiting(
        self, store: Store, *, now: float, older: float = _YOUNG, keep: Callable[[], None] = ignore
    ) -> Published:
        """Publish what waits in the outbox; stops where Kafka does not confirm a page.

        Args:
            store: the open store.
            now: Unix seconds.
            older: only events that have waited for so many seconds, so that nobody is published at the same time.
            keep: called before each page; renews a job's lock.
        """
        sent = left = 0
        page: list[OutboxEvent] = []
        for event in store.outbox.each(store.engine, page=_PAGE):
            if now - older < event.time <= now + older:
                continue  # young; what lies further ahead is of another clock, and behind it may stand more
            page.append(event)
            if len(page) == _PAGE:
                keep()
                done = self.publish(store, page)
                sent, left, page = sent + done.sent, left + done.left, []
                if left:
                    break
        if page and not left:
            done = self.publish(store, page)
            sent, left = sent + done.sent, left + done.left
        return Published(sent, left)

    def check(self) -> None:
        """See whether such a producer can be made; for who starts, since it is made on first use.

        Raises:
            WrongSettingError: it cannot; names each setting that librdkafka refuses.
        """
        refused = find_refusals(Producer, self._producer_config(), self._config)
        if refused:
            raise WrongSettingError(word_refusals(refused))

    def close(self) -> None:
        """Give the producer up; what a parent made is left alone. Closing twice is fine."""
        with self._lock:
            self._made = None

    def _send(self, events: Iterable[OutboxEvent]) -> list[OutboxEvent]:
        """The events that Kafka has confirmed within our patience."""
        confirmed: list[OutboxEvent] = []
        try:
            producer = self._producer()
            for event in events:
                producer.produce(self._topic, event.event, on_delivery=_noting(event, confirmed))
            producer.flush(self._patience + 1.0)
        except (BufferError, KafkaException, WrongSettingError) as error:
            self.close()
            log.warning("Kafka takes no events", topic=self._topic, error=str(error))
        return list(confirmed)

    def _producer(self) -> Producer:
        with self._lock:
            if self._made is None or self._made[0] != os.getpid():
                self._made = (os.getpid(), make_client(Producer, self._producer_config(), self._config))
            return self._made[1]

    def _producer_config(self) -> dict[str, Any]:
        return {
            "log_level": 3,
            "partitioner": PARTITIONER,  # of events with a key; KAFKA_CONFIG may name another
            **self._config,
            "client.id": "matyan-outbox",
            "enable.idempotence": True,
            "linger.ms": 2,
            # Given up by then, so that nothing piles up in memory: the outbox has it.
            "message.timeout.ms": int(self._patience * 1_000),
            "error_cb": self._on_error,
        }

    def _on_error(self, error: KafkaError) -> None:
        if error.fatal():
            self.close()  # an idempotent producer that has lost count is of no more use
        self._told.hear(error)
        log.debug("Kafka", error=error.str())


def _noting(event: OutboxEvent, confirmed: list[OutboxEvent]) -> Any:
    def note(error: KafkaError | None, message: Message) -> None:
        del message
        if error is None:
            confirmed.append(event)

    return note
