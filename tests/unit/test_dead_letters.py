"""A dead letter keeps the whole record and nothing else, whatever lay at its place before."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from storage.application import Application, Applier
from storage.batch import Record, Source
from storage.dead_letters import CHUNK, STAGED, DeadLetter
from storage.directories import Directories
from storage.errors import Contended, SplitTransaction, TransactionTooLarge, TransactionTooOld
from storage.meaning import CONTROL
from storage.store import Store, assemble_store
from tests.engines import double_database, open_kind
from tests.fdb_double.fdb.faults import Fault

SOURCE = Source("cluster", "data-ingestion", "topic-1", 2)
SHORT, LONG, STAGED_ONE, LARGEST = 10, 5 * CHUNK, STAGED + 3 * CHUNK, 9_000_000


@pytest.fixture(params=["sqlite", "double"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    with assemble_store(open_kind(request.param, tmp_path)) as opened:
        yield opened


def record(length: int, offset: int = 7) -> Record:
    return Record(offset, 1_000, b"run", bytes([length % 251]) * length)


def letter(of: Record) -> DeadLetter:
    return DeadLetter(SOURCE, 0, of.offset, "invalid", "bad", 1.0, "run", "", of.size)


def keep(store: Store, kept: Record) -> None:
    """Keep a record as `storage.apply` does: staged if it is large."""
    letters = store.dead_letters
    if kept.size > STAGED:
        letters.stage(store.engine, SOURCE, kept.offset, kept)
        store.engine.transact(lambda transaction: letters.keep_staged(transaction, letter(kept), kept))
    else:
        store.engine.transact(lambda transaction: letters.keep(transaction, letter(kept), kept))


def read(store: Store, offset: int = 7) -> Record | None:
    found = store.engine.read(lambda transaction: store.dead_letters.get(transaction, SOURCE, offset))
    return None if found is None else found[1]


@pytest.mark.parametrize(
    ("before", "after"),
    [(LONG, SHORT), (STAGED_ONE, LONG), (LARGEST, STAGED_ONE), (LARGEST, SHORT), (SHORT, LARGEST), (LONG, LONG + 1)],
)
def test_another_record_at_a_letters_place_is_kept_whole(before: int, after: int, store: Store) -> None:
    """A replay of a file in which the record was mended, for example."""
    neighbours = [record(200_000, 6), record(200_000, 8)]
    for each in (*neighbours, record(before), record(after)):
        keep(store, each)
    assert read(store) == record(after)
    assert [read(store, 6), read(store, 8)] == neighbours


def test_the_leavings_of_a_staging_that_was_broken_off_are_no_part_of_a_letter(store: Store) -> None:
    store.dead_letters.stage(store.engine, SOURCE, 7, record(9_000_000))
    assert read(store) is None
    keep(store, record(100))
    assert read(store) == record(100)


def test_whoever_stages_the_same_record_later_leaves_the_letter_as_it_is(store: Store) -> None:
    large = record(9_000_000)
    keep(store, large)
    store.dead_letters.stage(store.engine, SOURCE, 7, large)
    assert read(store) == large


def test_a_letter_that_is_removed_leaves_nothing(store: Store) -> None:
    prefix = store.directories.bridge

    def count_keys() -> int:
        return len(store.engine.read(lambda transaction: transaction.get_range(prefix, prefix + b"\xff").wait()))

    def remove() -> None:
        store.engine.transact(lambda transaction: store.dead_letters.remove(transaction, SOURCE, 7))

    keep(store, record(1))
    remove()
    before = count_keys()  # the first letter notes for good that letters are indexed
    keep(store, record(9_000_000))
    assert count_keys() > before + 100
    remove()
    assert count_keys() == before <= 1


def test_a_head_is_short_whatever_its_error_and_type_are(store: Store) -> None:
    of = record(SHORT)
    long = replace(letter(of), error="e" * 200_000, type="t" * 200_000)
    store.engine.transact(lambda transaction: store.dead_letters.keep(transaction, long, of))
    (kept,) = store.dead_letters.each(store.engine)
    assert (kept.error, kept.type) == ("e" * 1_000, "t" * 1_000)


def test_a_letter_is_applied_as_one_of_its_own_route_alone(store: Store) -> None:
    keep(store, KEPT)
    control = replace(letter(KEPT), route=CONTROL)
    with pytest.raises(ValueError, match="of the route 'control' cannot be applied as one of 'ingest'"):
        store.dead_letters.requeue(store.engine, store.applier, control, now=2.0)
    assert read(store) == KEPT


def test_a_letter_that_is_gone_was_requeued_before(store: Store) -> None:
    keep(store, KEPT)
    outcomes = [store.dead_letters.requeue(store.engine, store.applier, letter(KEPT), now=2.0) for _ in range(2)]
    assert [outcome and outcome.kind for outcome in outcomes] == ["applied", None]


def test_a_letter_that_fails_again_says_when(store: Store) -> None:
    keep(store, record(SHORT))
    store.dead_letters.requeue(store.engine, store.applier, letter(record(SHORT)), now=2.0)
    (kept,) = store.dead_letters.each(store.engine)
    assert (kept.time, kept.requeues) == (2.0, 1)


def test_a_requeue_that_meets_conflict_upon_conflict_ends(tmp_path: Path) -> None:
    with assemble_store(open_kind("double", tmp_path)) as store:
        keep(store, KEPT)
        double_database(tmp_path).faults.commits.extend([Fault(1020)] * 9)
        with pytest.raises(Contended):
            store.dead_letters.requeue(store.engine, store.applier, letter(KEPT), now=2.0)
        double_database(tmp_path).faults.commits.clear()
        assert read(store) == KEPT


class SlowApplier(Applier):
    """Whatever it applies takes too long for one transaction, up to a try; at few tries something can be done ahead."""

    tries = 0

    def __init__(
        self, directories: Directories, error: SplitTransaction, *, until: int, ahead: Collection[int] = ()
    ) -> None:
        super().__init__(directories)
        self._error = error
        self._until = until
        self._ahead = ahead

    def begin(self, transaction: Any, items: Any) -> Application:
        self.tries += 1
        if self.tries < self._until:
            raise self._error
        return super().begin(transaction, items)

    def shrink(self, transaction: Any, envelope: Any) -> bool:
        return self.tries in self._ahead


VALUE = b'{"type": "add_tag", "run_id": "r", "timestamp": "2026-01-01T00:00:00Z", "payload": {"tag_name": "t"}}'
KEPT = Record(7, 1_000, b"r", VALUE)


@pytest.mark.parametrize("error", [TransactionTooOld("1007"), Contended("1020")])
def test_a_requeue_that_cannot_go_through_ends(error: SplitTransaction, store: Store) -> None:
    keep(store, KEPT)
    slow, began = SlowApplier(store.directories, error, until=9), time.monotonic()
    with pytest.raises(type(error)):
        store.dead_letters.requeue(store.engine, slow, letter(KEPT), now=2.0)
    assert (slow.tries, read(store)) == (3, KEPT)  # it is kept for another time
    assert time.monotonic() - began >= 0.3, "there is time between two tries"
    slow = SlowApplier(store.directories, error, until=3)
    outcome = store.dead_letters.requeue(store.engine, slow, letter(KEPT), now=2.0)
    assert outcome is not None
    assert (outcome.kind, read(store)) == ("applied", None)


def test_a_requeue_begins_to_count_anew_where_something_was_done_ahead(store: Store) -> None:
    keep(store, KEPT)
    slow = SlowApplier(store.directories, TransactionTooOld("1007"), until=6, ahead=[3])
    assert store.dead_letters.requeue(store.engine, slow, letter(KEPT), now=2.0) is not None
    assert (slow.tries, read(store)) == (6, None)


def test_a_requeue_that_is_too_large_alone_is_tried_once(store: Store) -> None:
    keep(store, KEPT)
    large = SlowApplier(store.directories, TransactionTooLarge("2101"), until=9)
    with pytest.raises(TransactionTooLarge):
        store.dead_letters.requeue(store.engine, large, letter(KEPT), now=2.0)
    assert (large.tries, read(store)) == (1, KEPT)
