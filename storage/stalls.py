"""Batches that do not move, as the bridge sees them: noted when it would send one again, read by people.

A note needs no removal: it is true while its epoch is in force and the lane's cursor stands where it stood.
Key (in ``("bridge",)``): ``("stall", *source, lane)``, so there is one a lane at most.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import msgpack

from storage.batch import Epoch, Source
from storage.ledger import order_source, unpack_offset, unpack_owner

if TYPE_CHECKING:
    from storage.engine import Engine, Transaction
    from storage.ledger import Ledger


@dataclass(frozen=True, slots=True)
class Stall:
    """A batch that does not move.

    Attributes:
        source: its partition.
        lane: its lane.
        epoch: the epoch it was cut in.
        cursor: where the lane's cursor stands.
        first: offset of its first record.
        last: offset of its last record.
        attempt: how often it was sent.
        since: when it moved last, Unix seconds.
    """

    source: Source
    lane: int
    epoch: Epoch
    cursor: int
    first: int
    last: int
    attempt: int
    since: float


class Stalls:
    """Reads and writes the notes.

    Args:
        ledger: our directory's keys.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def note(self, engine: Engine, stall: Stall) -> None:
        """Note a batch; one that was noted at the same cursor keeps the time since when it stands still.

        Raises:
            StorageUnavailable: the store did not answer.
        """
        key = self._ledger.key("stall", *order_source(stall.source), stall.lane)

        def work(transaction: Transaction) -> None:
            value = transaction.get(key).wait()
            old = None if value is None else _unpack(stall.source, stall.lane, value)
            same = old is not None and (old.epoch, old.cursor) == (stall.epoch, stall.cursor)
            new = replace(stall, since=old.since) if old is not None and same else stall
            transaction.set(key, _pack(new))

        engine.transact(work)

    def find(self, engine: Engine) -> list[Stall]:
        """The batches that stand still now, longest first.

        Raises:
            StorageUnavailable: the store did not answer.
        """

        def work(transaction: Transaction) -> list[Stall]:
            noted = []
            for key, value in transaction.get_range(*self._ledger.span("stall")).wait():
                _, cluster, topic, partition, topic_id, lane = self._ledger.elements(key)
                noted.append(_unpack(Source(cluster, topic, topic_id, partition), lane, value))
            reads = [
                (
                    stall,
                    self._ledger.read_owner(transaction, stall.source),
                    self._ledger.read_cursor(transaction, stall.source, stall.lane),
                )
                for stall in noted
            ]
            found = []
            for stall, owner_read, cursor_read in reads:
                owner, cursor = unpack_owner(owner_read.wait()), unpack_offset(cursor_read.wait())
                if owner is not None and owner.epoch == stall.epoch and cursor == stall.cursor:
                    found.append(stall)
            return found

        return sorted(engine.read(work), key=lambda stall: stall.since)


def _pack(stall: Stall) -> bytes:
    packed: bytes = msgpack.packb((*stall.epoch, stall.cursor, stall.first, stall.last, stall.attempt, stall.since))
    return packed


def _unpack(source: Source, lane: int, value: bytes) -> Stall:
    number, name, *rest = msgpack.unpackb(value)
    return Stall(source, lane, Epoch(number, name), *rest)
