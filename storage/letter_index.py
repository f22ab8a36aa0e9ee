"""Indexes and counts of dead letters, so that any number of them is listed fast.

They are written in the transactions that keep and remove letters.

Keys (in ``("bridge",)``):

    ("dead_reason", reason, *source, offset)    empty
    ("dead_run", run, *source, offset)          empty; the first 200 characters of the run id
    ("dead_count", *source, lane, reason)       how many; written by the lane's own tasks, so it makes no conflicts
    ("dead_index",)                             there are no letters of releases without indexes (any more)
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

import msgpack

from storage.batch import Source
from storage.ledger import order_source

if TYPE_CHECKING:
    from storage.dead_letters import DeadLetter
    from storage.engine import Transaction
    from storage.ledger import Ledger

RUN: Final = 200  # characters of a run id in its key

DeadKey = tuple[Source, int, str]  # source, lane, reason


class LetterIndex:
    """Reads and writes the indexes within transactions.

    Args:
        ledger: our directory's keys.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    # -- writing ---------------------------------------------------------------------------------------------------

    def replace(self, transaction: Transaction, old: DeadLetter | None, new: DeadLetter | None) -> None:
        """Follow a change of one letter: made (no old one), removed (no new one), or renewed with another reason."""
        before, after = _facts(old), _facts(new)
        if before == after:
            return
        if old is not None and self.has(transaction, old):
            transaction.clear(self._reason_key(old))
            transaction.clear(self._run_key(old))
            self._add(transaction, old, -1)
        if new is not None:
            self._mark_new_store(transaction)
            transaction.set(self._reason_key(new), b"")
            transaction.set(self._run_key(new), b"")
            self._add(transaction, new, 1)

    def _mark_new_store(self, transaction: Transaction) -> None:
        """The first letter of a store: no older ones have to be looked for, ever."""
        if transaction.get(self.built_key).wait() is None:
            begin, end = self._ledger.span("dead")
            if not transaction.get_range(begin, end, limit=1).wait():
                transaction.set(self.built_key, b"")

    def _add(self, transaction: Transaction, letter: DeadLetter, change: int) -> None:
        key = self._ledger.key("dead_count", *order_source(letter.source), letter.lane, letter.reason)
        value = transaction.get(key).wait()
        count = (0 if value is None else msgpack.unpackb(value)) + change
        if count > 0:
            transaction.set(key, msgpack.packb(count))
        else:
            transaction.clear(key)

    # -- reading ---------------------------------------------------------------------------------------------------

    def counts(self, transaction: Transaction) -> Counter[DeadKey]:
        """How many letters there are by source, lane and reason."""
        found: Counter[DeadKey] = Counter()
        for key, value in transaction.get_range(*self._ledger.span("dead_count")).wait():
            _, cluster, topic, partition, topic_id, lane, reason = self._ledger.elements(key)
            found[Source(cluster, topic, topic_id, partition), lane, reason] = msgpack.unpackb(value)
        return found

    def span_of_reason(self, reason: str) -> tuple[bytes, bytes]:
        """Begin and end of the index entries of one reason."""
        return self._ledger.span("dead_reason", _clean(reason))

    def span_of_run(self, run: str) -> tuple[bytes, bytes]:
        """Begin and end of the index entries of one run (of all that share its first 200 characters)."""
        return self._ledger.span("dead_run", _clean(run)[:RUN])

    def span_of_runs(self, beginning: str) -> tuple[bytes, bytes]:
        """Begin and end of the index entries of all runs whose id begins so."""
        open_ended = self._ledger.key("dead_run", _clean(beginning)[:RUN])[:-1]  # without the text's own end
        return open_ended, open_ended + b"\xff"

    def _reason_key(self, letter: DeadLetter) -> bytes:
        return self._ledger.key("dead_reason", _clean(letter.reason), *order_source(letter.source), letter.offset)

    def _run_key(self, letter: DeadLetter) -> bytes:
        return self._ledger.key("dead_run", _clean(letter.run)[:RUN], *order_source(letter.source), letter.offset)

    def has(self, transaction: Transaction, letter: DeadLetter) -> bool:
        """Whether a letter is indexed; those of older releases are not, until `DeadLetters` finds them."""
        return transaction.get(self._reason_key(letter)).wait() is not None

    @property
    def built_key(self) -> bytes:
        """A key that is there once all letters are indexed, those of older releases too."""
        return self._ledger.key("dead_index")


def _clean(text: str) -> str:
    """Text that can stand in a key: half surrogates become question marks, as in the letter's head."""
    return text.encode("utf-8", "replace").decode()


def _facts(letter: DeadLetter | None) -> tuple[str, str, int] | None:
    return None if letter is None else (_clean(letter.reason), _clean(letter.run)[:RUN], letter.lane)
