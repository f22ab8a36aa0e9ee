"""A batch that does not move is listed until its cursor moves or its epoch ends, and no longer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bridge.desk import Desk
from bridge.partition import Limits, Partition
from bridge.stall_notes import StallNotes
from storage.batch import Epoch, Record, Source
from storage.errors import StorageUnavailable
from storage.ledger import Owner, Standing
from storage.stalls import Stall, Stalls
from storage.store import Store, assemble_store
from tests.engines import open_kind

SOURCE = Source("cluster", "data-ingestion", "topic-1", 2)
EPOCH = Epoch(7, "e7")
STALL = Stall(SOURCE, 0, EPOCH, cursor=9, first=10, last=19, attempt=1, since=1_000.0)


@pytest.fixture(params=["sqlite", "double"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    with assemble_store(open_kind(str(request.param), tmp_path, timeout=5.0)) as opened:
        set_standing(opened, EPOCH, 9)
        yield opened


def set_standing(store: Store, epoch: Epoch, cursor: int) -> None:
    def work(transaction: Any) -> None:
        store.ledger.write_owner(transaction, SOURCE, Owner(epoch, "group", 1))
        store.ledger.write_cursor(transaction, SOURCE, 0, cursor)

    store.engine.transact(work)


def test_is_listed_while_it_stands_still(store: Store) -> None:
    stalls = Stalls(store.ledger)
    assert stalls.find(store.engine) == []
    stalls.note(store.engine, STALL)
    assert stalls.find(store.engine) == [STALL]


def test_the_next_attempt_keeps_the_time_since(store: Store) -> None:
    stalls = Stalls(store.ledger)
    stalls.note(store.engine, STALL)
    stalls.note(store.engine, replace(STALL, attempt=2, since=2_000.0))
    assert stalls.find(store.engine) == [replace(STALL, attempt=2)]


@pytest.mark.parametrize(("epoch", "cursor"), [(EPOCH, 14), (EPOCH, 19), (Epoch(8, "e8"), 9)])
def test_is_gone_when_its_cursor_moved_or_its_epoch_ended(store: Store, epoch: Epoch, cursor: int) -> None:
    stalls = Stalls(store.ledger)
    stalls.note(store.engine, STALL)
    set_standing(store, epoch, cursor)
    assert stalls.find(store.engine) == []


class FakeKeeper:
    """Remembers what is noted, or fails."""

    def __init__(self) -> None:
        self.noted: list[Stall] = []
        self.error: Exception | None = None

    def note_stall(self, stall: Stall) -> None:
        if self.error is not None:
            raise self.error
        self.noted.append(stall)


@pytest.fixture
def desk() -> Iterator[Desk]:
    desk = Desk("store")
    yield desk
    desk.close()


def stalled_partition() -> Partition:
    state = Partition(SOURCE, EPOCH, {0: 9}, 10, Limits(stall=5.0))
    state.take(Record(10, 0, b"run", b"value"), b"run", 0.0)
    (batch,) = state.due(0.0, drain=True)
    state.sent(batch, 0.0)
    state.observe(Standing(Owner(EPOCH, "group", 1), {0: 9}), 0.0)
    return state


class TestBridge:
    def look(self, notes: StallNotes, desk: Desk, state: Partition, now: float) -> None:
        notes.look(state, now)
        done: list[bool] = []
        desk.ask(lambda: None, lambda _: done.append(True), lambda error: pytest.fail(str(error)))
        while not done:
            desk.answer()

    def make(self, keeper: FakeKeeper, desk: Desk, failed: Callable[[Exception, str], None]) -> StallNotes:
        return StallNotes(keeper, desk, failed)  # type: ignore[arg-type]

    def test_notes_a_batch_once_an_attempt(self, desk: Desk) -> None:
        keeper, state = FakeKeeper(), stalled_partition()
        notes = self.make(keeper, desk, lambda error, _: pytest.fail(str(error)))
        self.look(notes, desk, state, 4.9)
        assert keeper.noted == []
        for now in (5.1, 5.2, 9.0):
            self.look(notes, desk, state, now)
        assert [(stall.lane, stall.cursor, stall.first, stall.last, stall.attempt) for stall in keeper.noted] == [
            (0, 9, 10, 10, 1)
        ]
        again = state.resend(state.stalled(9.0)[0], 9.0, queue_is_empty=True)
        assert again is not None
        state.sent(again, 9.0)
        self.look(notes, desk, state, 14.1)
        assert [stall.attempt for stall in keeper.noted] == [1, 2]

    def test_a_note_that_failed_is_made_again(self, desk: Desk) -> None:
        keeper, state = FakeKeeper(), stalled_partition()
        failures: list[str] = []
        notes = self.make(keeper, desk, lambda _, doing: failures.append(doing))
        keeper.error = StorageUnavailable("away")
        self.look(notes, desk, state, 6.0)
        assert failures == ["noting a batch that does not move"]
        keeper.error = None
        self.look(notes, desk, state, 6.1)
        assert len(keeper.noted) == 1
