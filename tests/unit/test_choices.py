"""Chosen dead letters and cleanups come in pages, each once, in bounded reads, whatever the filter."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from storage.batch import Record, Source
from storage.choices import CleanupChoice, LetterChoice, read_cleanups, read_letters
from storage.cleanups import CleanupState
from storage.dead_letters import DeadLetter
from storage.store import Store, assemble_store
from tests.engines import open_kind

SOURCE = Source("cluster", "data-ingestion", "topic-1", 2)


@pytest.fixture(params=["sqlite", "double"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    with assemble_store(open_kind(str(request.param), tmp_path, timeout=5.0)) as opened:
        yield opened


def keep(store: Store, count: int) -> None:
    def work(transaction: Any) -> None:
        for offset in range(count):
            reason, run = ("bug" if offset % 2 else "invalid"), f"run-{offset % 3}"
            letter = DeadLetter(SOURCE, 0, offset, reason, f"Error {offset}", 1.0, run, "log_metric", 10)
            store.dead_letters.keep(transaction, letter, Record(offset, 0, None, b"value"))

    store.engine.transact(work)


def fail(store: Store, *runs: str) -> None:
    def work(transaction: Any) -> None:
        for run in runs:
            store.cleanups.ask(transaction, run, source="event", now=1.0)
            store.cleanups.begin(transaction, run, task_id="t", token="token", now=1.0, lease=9.0)
            store.cleanups.fail(transaction, run, token="token", error=f"No {run}", tries=1, due=2.0, now=2.0)

    store.engine.transact(work)


def all_letters(store: Store, choice: LetterChoice, *, limit: int, scan: int = 5_000) -> tuple[list[int], int]:
    """Offsets of all pages, and the number of pages."""
    found: list[int] = []
    position, pages = None, 0
    while True:
        page = read_letters(store, choice, position, limit=limit, scan=scan)
        assert len(page.items) <= limit
        assert page.looked_at <= scan
        found += [letter.offset for letter in page.items]
        pages += 1
        if page.position is None:
            return found, pages
        position = page.position


@pytest.mark.parametrize(
    ("choice", "wanted"),
    [
        (LetterChoice(), list(range(20))),
        (LetterChoice(reason="bug"), list(range(1, 20, 2))),
        (LetterChoice(runs="run-1"), list(range(1, 20, 3))),
        (LetterChoice(runs="run-"), [*range(0, 20, 3), *range(1, 20, 3), *range(2, 20, 3)]),
        (LetterChoice(runs="run-1", reason="bug"), [1, 7, 13, 19]),
        (LetterChoice(text="ERROR 1"), [1, *range(10, 20)]),
        (LetterChoice(text="log_metric", reason="invalid"), list(range(0, 20, 2))),
        (LetterChoice(runs="nobody"), []),
        (LetterChoice(reason="nothing"), []),
    ],
)
def test_letters_of_all_pages(store: Store, choice: LetterChoice, wanted: list[int]) -> None:
    keep(store, 20)
    assert all_letters(store, choice, limit=3)[0] == wanted
    assert all_letters(store, choice, limit=3, scan=4)[0] == wanted
    assert all_letters(store, choice, limit=100) == (wanted, 1)


def test_a_last_page_that_is_full_has_no_next(store: Store) -> None:
    keep(store, 6)
    assert all_letters(store, LetterChoice(), limit=3) == (list(range(6)), 2)
    fail(store, "a", "b", "c", "d")
    page = read_cleanups(store, CleanupChoice(), limit=4)
    assert (len(page.items), page.position) == (4, None)


@pytest.mark.parametrize("position", ["", "????", "/w==", "ü", "A" * 5_000, "__________8="])
def test_a_wrong_position_does_no_harm(store: Store, position: str) -> None:
    keep(store, 3)
    page = read_letters(store, LetterChoice(reason="bug"), position, limit=5)
    assert {letter.offset for letter in page.items} <= {1}


def test_cleanups_by_state_run_and_text(store: Store) -> None:
    runs = [f"run-{number:02d}" for number in range(20)]
    fail(store, *runs)
    store.engine.transact(lambda transaction: store.cleanups.requeue(transaction, "run-07", now=3.0))
    found: list[str] = []
    position = None
    while True:
        page = read_cleanups(store, CleanupChoice(), position, limit=7)
        found += [entry.run for entry in page.items]
        position = page.position
        if position is None:
            break
    assert found == [run for run in runs if run != "run-07"]
    pending = read_cleanups(store, CleanupChoice(CleanupState.PENDING), limit=7)
    assert [entry.run for entry in pending.items] == ["run-07"]
    ones = read_cleanups(store, CleanupChoice(runs="run-1"), limit=50)
    assert [entry.run for entry in ones.items] == runs[10:]
    said = read_cleanups(store, CleanupChoice(text="no RUN-03"), limit=50, scan=8)
    assert ([entry.run for entry in said.items], said.looked_at) == (["run-03"], 8)
    assert said.position is not None


def test_counts_no_further_than_asked(store: Store) -> None:
    fail(store, "a", "b", "c")
    assert store.cleanups.count_some(store.engine, CleanupState.FAILED, most=2) == 2
    assert store.cleanups.count_some(store.engine, CleanupState.FAILED, most=10) == 3
    assert store.cleanups.count_some(store.engine, CleanupState.HELD, most=10) == 0
