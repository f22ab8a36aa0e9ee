"""The cleanup ledger: its transitions, its index, who may change what, and names that never reach a blob store."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from storage.blob_names import UnsafeName, check_key, is_foreign, run_prefix
from storage.cleanups import Cleanup, CleanupState
from storage.store import Store, assemble_store
from tests.conformance.vectors import dump
from tests.engines import open_kind

T = TypeVar("T")

RUN = "0123456789abcdef0123456789abcdef"
DONE, FAILED, HELD, PENDING, RUNNING = (
    CleanupState.DONE,
    CleanupState.FAILED,
    CleanupState.HELD,
    CleanupState.PENDING,
    CleanupState.RUNNING,
)


@pytest.fixture(params=["sqlite", "double"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    with assemble_store(open_kind(str(request.param), tmp_path, timeout=5.0)) as opened:
        yield opened


class Hand:
    """Calls the ledger, one transaction a call."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self.store.cleanups, name)

        def call(run: str = RUN, **given: Any) -> Any:
            return self.store.engine.transact(lambda transaction: method(transaction, run, **given))

        return call

    def begun(self, token: str = "t1", now: float = 10.0) -> Cleanup:
        begun = self.begin(task_id=f"task-{token}", token=token, now=now, lease=30.0)
        assert isinstance(begun, Cleanup)
        return begun

    def state(self) -> CleanupState:
        entry = self.get()
        listed = [state for state in CleanupState for _ in self.store.cleanups.each(self.store.engine, states=[state])]
        assert listed == [entry.state], "the index has exactly the state of the entry"
        state: CleanupState = entry.state
        return state


@pytest.fixture
def hand(store: Store) -> Hand:
    return Hand(store)


def test_the_way_of_a_cleanup(hand: Hand) -> None:
    assert hand.get() is None
    asked = hand.ask(source="event", now=1.0)
    assert (asked.state, asked.source, asked.round, asked.attempts, asked.whole) == (PENDING, "event", 1, 0, True)
    assert hand.get() == asked
    begun = hand.begun()
    assert (begun.state, begun.attempts, begun.task_id, begun.due) == (RUNNING, 1, "task-t1", 40.0)
    moved = hand.progress(token="t1", total=(1_000, 5_000), position=f"{RUN}/k", now=11.0, lease=30.0)
    assert (moved.objects, moved.bytes, moved.position, moved.due) == (1_000, 5_000, f"{RUN}/k", 41.0)
    done = hand.finish(token="t1", seen=1, now=12.0)
    assert (done.state, done.objects, done.attempts, done.position) == (DONE, 1_000, 0, "")
    assert hand.state() is DONE


def test_only_one_execution_works_and_a_dead_one_is_taken_over(hand: Hand) -> None:
    hand.ask(source="event", now=1.0)
    hand.begun("t1", now=10.0)
    assert hand.begin(task_id="b", token="t2", now=39.0, lease=30.0) is None
    second = hand.begun("t2", now=40.0)
    assert second.attempts == 2, "a worker that died counts as a try"
    assert hand.progress(token="t1", total=(9, 9), position="", now=41.0, lease=30.0) is None
    assert hand.finish(token="t1", seen=1, now=41.0) is None
    assert hand.fail(token="t1", error="late", tries=1, due=50.0, now=41.0) is None
    assert hand.hold(token="t1", seen=1, reason="late", now=41.0) is None
    assert hand.give_way(token="t1", now=41.0) is None
    assert hand.state() is RUNNING
    assert hand.get().token == "t2"


@pytest.mark.parametrize(("ahead", "taken"), [(1_800.0, False), (7_200.0, True), (3e8, True)])
def test_a_due_time_that_cannot_be_is_not_waited_for(hand: Hand, ahead: float, *, taken: bool) -> None:
    hand.ask(source="event", now=1.0 + ahead)
    assert (hand.begin(task_id="a", token="t1", now=1.0, lease=30.0) is not None) == taken
    hand.begun("t1", now=10.0 + ahead)
    assert (hand.begin(task_id="b", token="t2", now=10.0, lease=30.0) is not None) == taken


def test_a_begin_that_went_through_unheard_is_one_try(hand: Hand) -> None:
    hand.ask(source="event", now=1.0)
    hand.begun("t1")
    assert hand.begun("t1").attempts == 1


def test_tries_are_bounded(hand: Hand) -> None:
    hand.ask(source="event", now=1.0)
    hand.begun("t1", now=10.0)
    failed = hand.fail(token="t1", error="S3 is down", tries=2, due=12.0, now=11.0)
    assert (failed.state, failed.error, failed.due) == (PENDING, "S3 is down", 12.0)
    assert hand.begin(task_id="b", token="t2", now=11.9, lease=30.0) is None, "not due yet"
    hand.begun("t2", now=12.0)
    failed = hand.fail(token="t2", error="S3 is down" + "n" * 9_000, tries=2, due=14.0, now=13.0)
    assert failed.state is FAILED
    assert len(failed.error) == 2_000
    assert hand.begin(task_id="b", token="t3", now=99.0, lease=30.0) is None
    again = hand.requeue(now=100.0)
    assert (again.state, again.attempts, again.round, again.due) == (PENDING, 0, 2, 100.0)
    assert hand.state() is PENDING


def test_a_repeated_event_lists_once_more(hand: Hand) -> None:
    hand.ask(source="event", now=1.0)
    assert hand.ask(source="event", now=2.0).round == 2, "open: one cleanup, a new round"
    begun = hand.begun()
    hand.ask(source="event", now=11.0)
    assert hand.finish(token="t1", seen=begun.round, now=12.0).state is PENDING
    again = hand.begun("t2", now=13.0)
    assert hand.finish(token="t2", seen=again.round, now=14.0).state is DONE
    hand.ask(source="orphans", now=15.0)
    assert hand.state() is PENDING
    assert hand.get().created == 1.0


def test_events_that_keep_coming_do_not_keep_it_from_failing(hand: Hand) -> None:
    hand.ask(source="event", now=1.0)
    for number in range(3):
        hand.begun(f"t{number}", now=10.0 + number)
        hand.ask(source="event", now=10.0 + number)
        hand.fail(token=f"t{number}", error="denied", tries=3, due=0.0, now=10.0 + number)
    assert hand.state() is FAILED


def test_a_slice_that_moved_on_is_no_try(hand: Hand) -> None:
    hand.ask(source="event", now=1.0)
    hand.begun("t1", now=10.0)
    given = hand.give_way(token="t1", now=11.0)
    assert (given.state, given.attempts, given.due) == (PENDING, 0, 11.0)
    hand.begun("t2", now=12.0)
    assert hand.give_way(token="t2", now=13.0, moved=False).attempts == 1


def test_a_held_cleanup_is_opened_by_the_next_event(hand: Hand) -> None:
    hand.ask(source="event", now=1.0)
    begun = hand.begun()
    held = hand.hold(token="t1", seen=begun.round, reason="the run lives", now=11.0)
    assert (held.state, held.error, held.by_hand) == (HELD, "the run lives", False)
    assert hand.ask(source="event", now=12.0).state is PENDING
    assert hand.state() is PENDING


def test_an_event_during_the_look_makes_it_look_again(hand: Hand) -> None:
    hand.ask(source="event", now=1.0)
    begun = hand.begun()
    hand.ask(source="event", now=10.5)
    assert hand.hold(token="t1", seen=begun.round, reason="the run lives", now=11.0).state is PENDING


def test_what_a_person_holds_only_a_person_opens(hand: Hand) -> None:
    hand.ask(source="event", now=1.0)
    hand.begun()
    assert hand.hold(reason="not today", now=11.0).by_hand
    assert hand.progress(token="t1", total=(1, 1), position="", now=12.0, lease=30.0) is None, "the worker stops"
    hand.ask(source="event", now=12.0)
    assert hand.state() is HELD
    assert hand.requeue(now=13.0).state is PENDING


def test_a_force_lasts_one_round(hand: Hand) -> None:
    hand.ask(source="event", now=1.0)
    hand.hold(reason="lives", now=2.0)
    assert hand.requeue(now=3.0, force=True).forced
    begun = hand.begun()
    assert begun.forced
    assert not hand.finish(token="t1", seen=begun.round, now=11.0).forced
    assert hand.requeue(now=12.0, force=True).forced
    assert not hand.ask(source="event", now=13.0).forced


def test_named_keys_are_kept_until_they_are_gone(hand: Hand, store: Store) -> None:
    keys = [f"{RUN}/{number:05}" for number in range(2_500)]
    asked = hand.ask(source="event", keys=keys, now=1.0)
    assert (asked.whole, asked.named) == (False, 2_500)
    assert hand.ask(source="event", keys=keys[:3], now=2.0).named == 2_500, "the same keys are the same"
    first = hand.keys()
    assert first == keys[:1_000]
    assert hand.keys(after=first[-1], limit=2) == keys[1_000:1_002]
    hand.begun()
    moved = hand.progress(token="t1", total=(2, 0), position="", gone=[keys[0], keys[0], keys[1]], now=11.0, lease=30.0)
    assert moved.named == 2_498
    assert hand.keys(limit=1) == [keys[2]]
    assert hand.ask(source="event", now=12.0).whole, "all of the run, asked for while some keys are on their way"
    assert hand.purge()
    assert not hand.purge()
    assert hand.keys() == []
    assert list(store.cleanups.each(store.engine, states=list(CleanupState))) == []


def test_lists_and_counts_by_state(store: Store, hand: Hand) -> None:
    runs = [f"run-{number:04}" for number in range(25)]
    for run in runs:
        hand.ask(run, source="event", now=1.0)
    for run in runs[:5]:
        hand.begin(run, task_id="", token="t", now=2.0, lease=1.0)
        hand.fail(run, token="t", error="denied", tries=1, due=0.0, now=3.0)
    cleanups, engine = store.cleanups, store.engine
    assert [entry.run for entry in cleanups.each(engine, page=10)] == runs
    assert [entry.run for entry in cleanups.each(engine, states=[FAILED], page=2)] == runs[:5]
    assert [entry.run for entry in cleanups.each(engine, states=[FAILED], after=runs[2])] == runs[3:5]
    assert [entry.run for entry in cleanups.each(engine, after=runs[20])] == runs[21:]
    assert cleanups.count(engine) == {PENDING: 20, FAILED: 5, RUNNING: 0, DONE: 0, HELD: 0}
    assert cleanups.count(engine, states=[HELD]) == {HELD: 0}


def test_postponing_moves_only_what_waits(hand: Hand) -> None:
    hand.ask(source="event", now=1.0)
    assert hand.postpone(due=61.0, now=2.0).due == 61.0
    assert hand.begin(task_id="b", token="t2", now=60.0, lease=30.0) is None
    hand.begun(now=61.0)
    assert hand.postpone(due=99.0, now=62.0) is None


def test_nothing_of_ours_stands_in_matyans_directories(store: Store, hand: Hand) -> None:
    before = dump(store)
    hand.ask(source="event", keys=[f"{RUN}/a"], now=1.0)
    assert dump(store) == before


@pytest.mark.parametrize(
    "run", ["", ".", "..", "a/b", "/", "../x", "a\0", "a\nb", "a\x7f", "a\x85", "*", "a?", "r" * 1_023, "\ud800"]
)
def test_unsafe_run_ids_are_refused(run: str, hand: Hand) -> None:
    with pytest.raises(UnsafeName):
        run_prefix(run)
    with pytest.raises(UnsafeName):
        hand.ask(run, source="event", now=1.0)


@pytest.mark.parametrize("run", ["a", RUN, "v1.2", "...", ".a", "a b", "läuft", "r" * 1_022, "a\\b", "[x]"])
def test_other_run_ids_are_prefixes(run: str) -> None:
    assert run_prefix(run) == f"{run}/"


def test_keys_are_checked(hand: Hand) -> None:
    for key in ["", "a\0", "k" * 1_025, "ü" * 513, "\ud800"]:
        with pytest.raises(UnsafeName):
            check_key(key)
        with pytest.raises(UnsafeName):
            hand.ask(source="event", keys=["fine", key], now=1.0)
    assert check_key("k" * 1_024)
    assert hand.get() is None


@pytest.mark.parametrize(
    ("key", "foreign"),
    [("r/a", False), ("r/seq/m/1.png", False), ("ra", True), ("other/a", True), ("r/../x", True), ("r/a..b", False)],
)
def test_foreign_keys(key: str, foreign: bool) -> None:
    assert is_foreign("r", key) is foreign
