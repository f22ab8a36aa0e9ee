"""Dead letters are found by reason and run, and counted, through indexes that always say what the heads say."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from storage.batch import Record, Source
from storage.dead_letters import DeadLetter
from storage.store import Store, assemble_store
from tests.engines import open_kind

SOURCE = Source("cluster", "data-ingestion", "topic-1", 2)
OTHER = Source("cluster", "control-events", "topic-2", 0)


@pytest.fixture(params=["sqlite", "double"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    with assemble_store(open_kind(str(request.param), tmp_path, timeout=5.0)) as opened:
        yield opened


def letter(offset: int, *, reason: str = "invalid", run: str = "run-a", source: Source = SOURCE) -> DeadLetter:
    return DeadLetter(source, 0, offset, reason, "no good", 1.0, run, "log_metric", 10)


def keep(store: Store, *letters: DeadLetter) -> None:
    for one in letters:
        record = Record(one.offset, 0, b"key", b"value")
        store.engine.transact(lambda transaction: store.dead_letters.keep(transaction, one, record))  # noqa: B023


def remove(store: Store, one: DeadLetter) -> None:
    store.engine.transact(lambda transaction: store.dead_letters.remove(transaction, one.source, one.offset))


def offsets(store: Store, **wanted: str) -> list[int]:
    return [one.offset for one in store.dead_letters.each(store.engine, **wanted, page=2)]


def fresh(store: Store) -> Store:
    """The same store as another process has it: nothing known yet."""
    return replace(store, dead_letters=type(store.dead_letters)(store.ledger))


def test_found_by_reason_and_run_across_pages(store: Store) -> None:
    keep(
        store,
        *(letter(offset, reason="bug" if offset % 2 else "invalid", run=f"run-{offset % 3}") for offset in range(12)),
    )
    assert offsets(store) == list(range(12))
    assert offsets(store, reason="bug") == [1, 3, 5, 7, 9, 11]
    assert offsets(store, run="run-2") == [2, 5, 8, 11]
    assert offsets(store, run="run-2", reason="bug") == [5, 11]
    assert offsets(store, run="run-") == []


def test_runs_that_share_an_indexed_beginning_are_told_apart(store: Store) -> None:
    keep(store, letter(1, run="x" * 200 + "one"), letter(2, run="x" * 200 + "two"), letter(3, run="x" * 1_500))
    assert offsets(store, run="x" * 200 + "two") == [2]
    assert offsets(store, run="x" * 1_500) == [3]  # a head keeps 1,000 characters


@pytest.mark.parametrize("run", ["", "\ud800half", "nul\x00inside", "<script>", "ü" * 900])
def test_any_run_id_can_be_kept_and_found(store: Store, run: str) -> None:
    keep(store, letter(1, run=run), letter(2, run="other"))
    assert offsets(store, run=run.encode("utf-8", "replace").decode()) == [1]


def test_counts_follow_every_change(store: Store) -> None:
    keep(store, letter(1), letter(2), letter(3, reason="bug"), letter(1, source=OTHER))
    assert store.dead_letters.count(store.engine) == Counter(
        {(SOURCE, 0, "invalid"): 2, (SOURCE, 0, "bug"): 1, (OTHER, 0, "invalid"): 1}
    )
    keep(store, letter(1))  # the same record once more
    renewed = letter(2, reason="bug")
    store.engine.transact(lambda transaction: store.dead_letters.write_head(transaction, renewed))
    remove(store, letter(3))
    remove(store, letter(3))  # by two people
    assert store.dead_letters.count(store.engine) == Counter(
        {(SOURCE, 0, "invalid"): 1, (SOURCE, 0, "bug"): 1, (OTHER, 0, "invalid"): 1}
    )
    assert offsets(store, reason="bug") == [2]
    assert offsets(store, reason="invalid") == [1, 1]
    assert offsets(store, run="run-a") == [1, 1, 2]


def test_letters_of_a_release_without_indexes_are_found(store: Store) -> None:
    keep(store, *(letter(offset) for offset in range(5)))
    drop_indexes(store)
    later = fresh(store)
    keep(later, letter(7, reason="bug"))  # by a worker of this release, before anybody has looked
    remove(later, letter(4))  # one that is not indexed: no count goes below what is there
    assert offsets(later, reason="invalid") == [0, 1, 2, 3]
    assert later.dead_letters.count(later.engine) == Counter({(SOURCE, 0, "invalid"): 4, (SOURCE, 0, "bug"): 1})
    assert fresh(store).dead_letters.count(store.engine) == later.dead_letters.count(store.engine)


def test_more_letters_of_a_release_without_indexes_than_one_read_takes_are_found(store: Store) -> None:
    keep(store, *(letter(offset) for offset in range(510)))
    drop_indexes(store)
    assert fresh(store).dead_letters.count(store.engine) == Counter({(SOURCE, 0, "invalid"): 510})


def test_a_store_of_this_release_is_never_searched_for_older_letters(store: Store) -> None:
    def marked() -> bool:
        return store.engine.read(lambda transaction: transaction.get(store.ledger.key("dead_index")).wait()) is not None

    assert not marked()
    keep(store, letter(1))
    assert marked()
    drop_indexes(store)
    keep(store, letter(2))
    assert not marked()
    assert len(offsets(fresh(store), reason="invalid")) == 2
    assert marked()


def drop_indexes(store: Store) -> None:
    def work(transaction: Any) -> None:
        for name in ("dead_reason", "dead_run", "dead_count"):
            transaction.clear_range(*store.ledger.span(name))
        transaction.clear(store.ledger.key("dead_index"))

    store.engine.transact(work)
