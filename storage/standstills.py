"""Partitions that stand still though they could move, as the bridge sees them: noted while it lasts, read by people.

A note holds for a while and is written again until then, so that one whose bridge has gone ends by itself.
Key (in ``("bridge",)``): ``("standstill", *source)``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import msgpack

from storage.batch import Source
from storage.ledger import order_source

if TYPE_CHECKING:
    from storage.engine import Engine, Transaction
    from storage.ledger import Ledger

HOLDS: Final = 60.0  # seconds that a note is believed


@dataclass(frozen=True, slots=True)
class StandstillNote:
    """A partition that stands still.

    Attributes:
        source: the partition.
        step: what it does not do: "take-over", "read" or "commit".
        at: the offset that it stands at, None where there is none.
        end: the offset that it could go to, None where it is not known.
        since: Unix seconds.
        seen: when it was seen last, Unix seconds.
    """

    source: Source
    step: str
    at: int | None
    end: int | None
    since: float
    seen: float


class Standstills:
    """Reads and writes the notes.

    Args:
        ledger: our directory's keys.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def note(self, engine: Engine, note: StandstillNote) -> None:
        """Note a partition, in place of an older note of it.

        Raises:
            StorageUnavailable: the store did not answer.
        """
        key = self._ledger.key("standstill", *order_source(note.source))
        value: bytes = msgpack.packb([note.step, note.at, note.end, note.since, note.seen])
        engine.transact(lambda transaction: transaction.set(key, value))

    def forget(self, engine: Engine, source: Source) -> None:
        """It moves again.

        Raises:
            StorageUnavailable: the store did not answer.
        """
        key = self._ledger.key("standstill", *order_source(source))
        engine.transact(lambda transaction: transaction.clear(key))

    def find(self, engine: Engine, now: float) -> list[StandstillNote]:
        """The partitions that stand still at this time, in Unix seconds.

        Raises:
            StorageUnavailable: the store did not answer.
        """

        def work(transaction: Transaction) -> list[StandstillNote]:
            pairs = transaction.get_range(*self._ledger.span("standstill")).wait()
            notes = [self._unpack(key, value) for key, value in pairs]
            return [note for note in notes if abs(now - note.seen) <= HOLDS]

        return engine.read(work)

    def _unpack(self, key: bytes, value: bytes) -> StandstillNote:
        _, cluster, topic, partition, topic_id = self._ledger.elements(key)
        return StandstillNote(Source(cluster, topic, topic_id, partition), *msgpack.unpackb(value))
