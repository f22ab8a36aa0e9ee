"""Dead letters: records that can never be applied, kept whole with their reason until a person requeues or drops them.

A dead letter is a head under ``("dead", *source, offset)`` and its record (time, key, value, headers where it has some)
in chunks under ``("dead_record", *source, offset, n)``. A record too large for one transaction is staged: its chunks
are written first, in transactions of their own, and the head last, together with the cursor. Chunks without a head are
the leavings of a worker that died between the two; the next try writes the same keys.

Kafka has one record at a place for ever, a replay may bring another to it: whoever writes the head removes what lies
beyond the end of its record, so that a shorter record never ends in a longer one's chunks. Beside the heads stand
indexes and counts (`storage.letter_index`).
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, NamedTuple

import msgpack

from storage.batch import Record, Source
from storage.errors import Poison, SplitTransaction, TransactionTooLarge
from storage.ledger import order_source
from storage.letter_index import LetterIndex
from storage.meaning import INGEST

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Iterator

    from storage.engine import Engine, Transaction
    from storage.envelope import Envelope
    from storage.ledger import Ledger
    from storage.letter_index import DeadKey
    from storage.meaning import Meaning, Outcome

CHUNK: Final = 90_000  # bytes; a value may have 100,000
STAGED: Final = 4_000_000  # bytes of a record beyond which its chunks are written ahead
SHORT: Final = 1_000  # characters kept of run id, type and error in the head
_TRIES: Final = 3  # of a requeue that the store finds too old or contended, where nothing can be done ahead
_PAUSE: Final = 0.1  # seconds before the second; before the third twice as long


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """The head of a dead letter.

    Attributes:
        source: where the record came from.
        lane: the lane it was in.
        offset: its offset.
        reason: short stable name of what is wrong (`Poison.reason`, ``bug``, ``kills_workers``, ...).
        error: what is wrong, in words.
        time: when it was kept, Unix seconds.
        run: run id, as far as it could be read (first 1,000 characters).
        type: message type, as far as it could be read.
        size: bytes of key, value and headers.
        requeues: how often it was requeued and failed again.
        route: the name of what its topic's records mean (`storage.meaning.Meaning.route`).
    """

    source: Source
    lane: int
    offset: int
    reason: str
    error: str
    time: float
    run: str
    type: str
    size: int
    requeues: int = 0
    route: str = INGEST


class Some(NamedTuple):
    """What `DeadLetters.read` found.

    Attributes:
        pairs: keys with their letters; None where the letter has gone since it was indexed.
        more: whether the span may hold more.
    """

    pairs: list[tuple[bytes, DeadLetter | None]]
    more: bool


class DeadLetters:
    """Reads and writes dead letters within transactions.

    Args:
        ledger: our directory's keys.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._index = LetterIndex(ledger)
        self._indexed = False  # known to be

    def _head_key(self, source: Source, offset: int) -> bytes:
        return self._ledger.key("dead", *order_source(source), offset)

    def keep(self, transaction: Transaction, letter: DeadLetter, record: Record) -> None:
        """Write head and record in one transaction, over whatever lies at their place."""
        transaction.clear_range(*self._ledger.span("dead_record", *order_source(letter.source), letter.offset))
        for key, chunk in self._chunks(letter.source, letter.offset, record):
            transaction.set(key, chunk)
        self.write_head(transaction, letter)

    def stage(self, engine: Engine, source: Source, offset: int, record: Record) -> None:
        """Write the chunks of a large record ahead, in transactions of their own; `keep_staged` makes it a letter.

        Nothing is cleared here: whoever else stages the same record writes the same bytes, and may have written the
        head already.
        """
        some: list[tuple[bytes, bytes]] = []
        for pair in self._chunks(source, offset, record):
            some.append(pair)
            if len(some) * CHUNK >= STAGED:
                _write(engine, some)
                some = []
        _write(engine, some)

    def keep_staged(self, transaction: Transaction, letter: DeadLetter, record: Record) -> None:
        """Make a letter of a record that was staged: write its head, and clear what lies beyond its last chunk.

        No chunk of the record's own is touched, so another execution may still be staging the same one.
        """
        end = -(-len(_pack(record)) // CHUNK)
        beyond = self._ledger.key("dead_record", *order_source(letter.source), letter.offset, end)
        _, last = self._ledger.span("dead_record", *order_source(letter.source), letter.offset)
        transaction.clear_range(beyond, last)
        self.write_head(transaction, letter)

    def write_head(self, transaction: Transaction, letter: DeadLetter) -> None:
        """Write the head of a letter whose record is there; from then on the letter is listed."""
        self._index.replace(transaction, self._head(transaction, letter.source, letter.offset), letter)
        head = (
            letter.lane,
            letter.reason,
            letter.error[:SHORT],
            letter.time,
            letter.run[:SHORT],
            letter.type[:SHORT],
            letter.size,
            letter.requeues,
            letter.route,
        )
        packed: bytes = msgpack.packb(head, unicode_errors="replace")
        transaction.set(self._head_key(letter.source, letter.offset), packed)

    def _head(self, transaction: Transaction, source: Source, offset: int) -> DeadLetter | None:
        value = transaction.get(self._head_key(source, offset)).wait()
        return None if value is None else _unpack_head(source, offset, value)

    def _chunks(self, source: Source, offset: int, record: Record) -> Iterator[tuple[bytes, bytes]]:
        whole = _pack(record)
        for number, start in enumerate(range(0, len(whole), CHUNK)):
            key = self._ledger.key("dead_record", *order_source(source), offset, number)
            yield key, whole[start : start + CHUNK]

    def get(self, transaction: Transaction, source: Source, offset: int) -> tuple[DeadLetter, Record] | None:
        """One dead letter with its whole record; None where there is none."""
        head = transaction.get(self._head_key(source, offset))
        chunks = transaction.get_range(*self._ledger.span("dead_record", *order_source(source), offset))
        value = head.wait()
        if value is None:
            return None
        whole = b"".join(chunk for _, chunk in chunks.wait())
        return _unpack_head(source, offset, value), Record(offset, *msgpack.unpackb(whole, use_list=False))

    def remove(self, transaction: Transaction, source: Source, offset: int) -> None:
        """Delete a dead letter."""
        self._index.replace(transaction, self._head(transaction, source, offset), None)
        transaction.clear(self._head_key(source, offset))
        transaction.clear_range(*self._ledger.span("dead_record", *order_source(source), offset))

    # -- listing ---------------------------------------------------------------------------------------------------

    def each(
        self, engine: Engine, *, reason: str | None = None, run: str | None = None, page: int = 1_000
    ) -> Iterator[DeadLetter]:
        """Heads in order of topic, partition and offset, read in pages so that any number fits in memory.

        Args:
            engine: the open store.
            reason: only those with this reason; found by index.
            run: only those of this run (as far as heads keep its id); found by index.
            page: heads of one read.
        """
        run = None if run is None else run[:SHORT]
        begin, end = self.span(engine, reason=reason, run=run)
        while True:
            some = self.read(engine, begin, end, limit=page)
            for _, letter in some.pairs:
                if letter is not None and reason in {None, letter.reason} and run in {None, letter.run}:
                    yield letter
            if not some.more:
                return
            begin = some.pairs[-1][0] + b"\x00"

    def span(
        self, engine: Engine, *, reason: str | None = None, run: str | None = None, runs: str = ""
    ) -> tuple[bytes, bytes]:
        """Begin and end of the keys, of heads or of an index, among which all such letters are; for `read`.

        Args:
            engine: the open store.
            reason: the reason; with a run the caller looks at it.
            run: the run id.
            runs: how run ids begin; in place of ``run``.
        """
        if reason is None and run is None and not runs:
            return self._ledger.span("dead")
        self._ensure_index(engine)
        if run is not None:
            return self._index.span_of_run(run)
        if runs:
            return self._index.span_of_runs(runs)
        return self._index.span_of_reason(reason or "")

    def read(self, engine: Engine, begin: bytes, end: bytes, *, limit: int) -> Some:
        """The letters of so many keys of a span."""

        def work(transaction: Transaction) -> Some:
            pairs = transaction.get_range(begin, end, limit=limit).wait()
            places = [self._place(key) for key, _ in pairs]
            if begin.startswith(self._ledger.key("dead")):
                values: list[bytes | None] = [value for _, value in pairs]
            else:
                reads = [transaction.get(self._head_key(*place)) for place in places]
                values = [read.wait() for read in reads]
            found = [
                (key, None if value is None else _unpack_head(*place, value))
                for (key, _), place, value in zip(pairs, places, values, strict=True)
            ]
            return Some(found, len(pairs) == limit)

        return engine.read(work)

    def count(self, engine: Engine) -> Counter[DeadKey]:
        """How many letters there are by source, lane and reason; reads the kept counts, not the letters."""
        self._ensure_index(engine)
        return engine.read(self._index.counts)

    def _place(self, key: bytes) -> tuple[Source, int]:
        """Where the letter of a head's or an index entry's key came from."""
        cluster, topic, partition, topic_id, offset = self._ledger.elements(key)[-5:]
        return Source(cluster, topic, topic_id, partition), offset

    def _ensure_index(self, engine: Engine) -> None:
        """Index, once, letters that a release without indexes has left; safe beside workers that keep new ones."""
        if self._indexed:
            return
        if engine.read(lambda transaction: transaction.get(self._index.built_key).wait()) is None:
            begin, end = self._ledger.span("dead")
            some = self.read(engine, begin, end, limit=500)
            found = bool(some.pairs)
            while some.pairs:
                letters = [letter for _, letter in some.pairs if letter is not None]
                engine.transact(lambda transaction: self._index_missing(transaction, letters))  # noqa: B023
                some = self.read(engine, some.pairs[-1][0] + b"\x00", end, limit=500)
            if found:
                engine.transact(lambda transaction: transaction.set(self._index.built_key, b""))
        self._indexed = True

    def _index_missing(self, transaction: Transaction, letters: list[DeadLetter]) -> None:
        for letter in letters:
            now = self._head(transaction, letter.source, letter.offset)  # it may have changed since it was listed
            if now is not None and not self._index.has(transaction, now):
                self._index.replace(transaction, None, now)

    # -- requeueing ------------------------------------------------------------------------------------------------

    def requeue(self, engine: Engine, applier: Meaning, letter: DeadLetter, *, now: float) -> Outcome | None:
        """Apply a dead letter's record once more, and delete the letter, in one transaction.

        ``applier`` is that of the letter's route: `storage.store.Store.meaning_of` knows it.

        Safe to call twice and to die in: a letter that is gone was done. A record that fails again stays a dead
        letter, with its new reason. By nature it is applied out of its run's order, after all that came since.

        Returns:
            What became of the record; None where the letter was gone.

        Raises:
            StorageUnavailable: the store did not answer.
            TransactionTooLarge: the record alone is more than one transaction can take.
            TransactionTooOld, Contended: three times on end; try again later.
            ValueError: the applier is another route's.
        """
        if applier.route != letter.route:
            msg = f"a dead letter of the route {letter.route!r} cannot be applied as one of {applier.route!r}"
            raise ValueError(msg)

        def work(transaction: Transaction) -> Outcome | None:
            found = self.get(transaction, letter.source, letter.offset)
            if found is None:
                return None
            head, record = found
            try:
                item: Envelope | Poison = applier.decode(record)
            except Poison as error:
                item = error
            outcome = applier.begin(transaction, [item]).finish()[0]
            if outcome.error is not None:
                renewed = replace(
                    head, reason=outcome.error.reason, error=str(outcome.error), time=now, requeues=head.requeues + 1
                )
                self.write_head(transaction, renewed)
            else:
                self.remove(transaction, letter.source, letter.offset)
            return outcome

        failures = 0
        while True:
            try:
                return engine.transact(work, impatient=True)
            except SplitTransaction as error:
                if self._shrink(engine, applier, letter):
                    failures = 0
                    continue
                failures += 1
                if failures == _TRIES or isinstance(error, TransactionTooLarge):
                    raise
                time.sleep(_PAUSE * failures)

    def _shrink(self, engine: Engine, applier: Meaning, letter: DeadLetter) -> bool:
        """Do a part of a delete_run that is too large for one transaction; False: there is nothing to do ahead."""

        def work(transaction: Transaction) -> bool:
            found = self.get(transaction, letter.source, letter.offset)
            if found is None:
                return False
            return applier.shrink(transaction, applier.decode(found[1]))

        return engine.transact(work)


def _pack(record: Record) -> bytes:
    # Without headers three fields, as older releases write and read them.
    packed: bytes = msgpack.packb(record[1:] if record.headers else (record.timestamp_ms, record.key, record.value))
    return packed


def _write(engine: Engine, pairs: list[tuple[bytes, bytes]]) -> None:
    def work(transaction: Transaction) -> None:
        for key, value in pairs:
            transaction.set(key, value)

    if pairs:
        engine.transact(work)


def _unpack_head(source: Source, offset: int, value: bytes) -> DeadLetter:
    lane, reason, error, time, run, kind, size, requeues, *route = msgpack.unpackb(value)
    return DeadLetter(source, lane, offset, reason, error, time, run, kind, size, requeues, *route)
