"""The outbox: events that a transaction promised to Kafka, until Kafka has confirmed them.

An event is put in the transaction that makes it true, published after the commit, and removed once its delivery was
confirmed: so it is published at least once. Key: ``("outbox", time, random id)``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple
from uuid import uuid4

import msgpack

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from storage.engine import Engine, Transaction
    from storage.ledger import Ledger


class OutboxEvent(NamedTuple):
    """An event that is to be published.

    Attributes:
        id: its name within the outbox.
        time: when it was put, Unix seconds; the order of the outbox.
        run: the run it is about.
        event: the bytes of the Kafka record's value.
    """

    id: str
    time: float
    run: str
    event: bytes


class Outbox:
    """Reads and writes outbox events within transactions.

    Args:
        ledger: our directory's keys.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def put(self, transaction: Transaction, run: str, event: bytes, now: float) -> OutboxEvent:
        """Promise an event to Kafka."""
        put = OutboxEvent(uuid4().hex, now, run, event)
        packed: bytes = msgpack.packb((run, event), unicode_errors="replace")
        transaction.set(self._key(put), packed)
        return put

    def remove(self, transaction: Transaction, events: Iterable[OutboxEvent]) -> None:
        """Forget events whose delivery was confirmed; those that are gone already do not matter."""
        for event in events:
            transaction.clear(self._key(event))

    def each(self, engine: Engine, *, page: int = 500) -> Iterator[OutboxEvent]:
        """All events, oldest first, read in pages so that any number fits in memory."""
        begin, end = self._ledger.span("outbox")
        while True:
            start = begin
            pairs = engine.read(lambda transaction: transaction.get_range(start, end, limit=page).wait())  # noqa: B023
            for key, value in pairs:
                _, time, name = self._ledger.elements(key)
                yield OutboxEvent(name, time, *msgpack.unpackb(value))
            if len(pairs) < page:
                return
            begin = pairs[-1][0] + b"\x00"

    def count(self, engine: Engine) -> int:
        """How many events are waiting."""
        return sum(1 for _ in self.each(engine, page=5_000))

    def _key(self, event: OutboxEvent) -> bytes:
        return self._ledger.key("outbox", event.time, event.id)
