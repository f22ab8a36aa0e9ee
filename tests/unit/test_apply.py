"""A batch is applied exactly once, whatever the store says, and whatever its records are."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import fdb.tuple
import pytest

from storage.application import Application, Applier
from storage.apply import BatchApplier, State
from storage.batch import Batch, Epoch, Record, Source
from storage.errors import StorageUnavailable
from storage.ledger import Mark, Owner
from storage.store import Store, assemble_store
from tests.conformance.vectors import dump
from tests.engines import double_database, open_kind, open_store_kind
from tests.fdb_double.fdb.faults import Fault

SOURCE = Source("cluster", "data-ingestion", "topic-1", 2)
EPOCH = Epoch(7, "e7")
RUN = "0123456789abcdef0123456789abcdef"
TIME_LIMIT = 30.0


class Clock:
    """Seconds that pass when told."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(params=["sqlite", "double", "cluster"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


# A cluster's five seconds for a transaction are few for so many keys where many tests share two cores.
on_one_machine = pytest.mark.parametrize("kind", ["sqlite", "double"])


@pytest.fixture
def store(kind: str, tmp_path: Path) -> Iterator[Store]:
    with open_store_kind(kind, tmp_path) as opened:
        own(opened)
        yield opened


@pytest.fixture
def double(tmp_path: Path) -> Iterator[Store]:
    with assemble_store(open_kind("double", tmp_path, timeout=2.0)) as opened:
        own(opened)
        yield opened


def own(store: Store, *, epoch: Epoch = EPOCH, cursor: int = -1) -> None:
    def work(transaction: Any) -> None:
        store.ledger.write_owner(transaction, SOURCE, Owner(epoch, "group", 1))
        store.ledger.write_cursor(transaction, SOURCE, 0, cursor)

    store.engine.transact(work)


def cursor_of(store: Store) -> int | None:
    return store.engine.read(lambda transaction: store.ledger.cursors(transaction, SOURCE)).get(0)


def applier_of(store: Store, clock: Callable[[], float] | None = None, what: Applier | None = None) -> BatchApplier:
    return BatchApplier(
        store.engine, store.ledger, what or store.applier, clock=clock or Clock(), patience=40.0, budget=15.0
    )


def message(kind: str, payload: dict[str, Any], run: str = RUN) -> bytes:
    envelope = {"type": kind, "run_id": run, "timestamp": "2026-01-01T00:00:00Z", "payload": payload}
    return json.dumps(envelope).encode()


def metric(step: int) -> bytes:
    return message("log_metric", {"name": "loss", "value": 0.5, "step": step})


def batch(*values: bytes, first: int = 0, attempt: int = 1, after: int = -1) -> Batch:
    records = tuple(Record(first + index, 5, RUN.encode(), value) for index, value in enumerate(values))
    return Batch(SOURCE, 0, EPOCH, attempt, after, records)


def steps_of(store: Store) -> list[int]:
    keys = [fdb.tuple.unpack(key) for where, key in dump(store) if where == "data/runs"]
    return [key[5] for key in keys if key[1:2] == ("seqs",) and key[4] == "val"]


def letters_of(store: Store) -> list[tuple[int, str]]:
    return [(letter.offset, letter.reason) for letter in store.dead_letters.each(store.engine)]


def test_applies_once(store: Store) -> None:
    applier, one = applier_of(store), batch(metric(0), metric(1))
    assert applier.apply(one).state is State.APPLIED
    before = dump(store)
    again = applier.apply(one)
    assert (again.state, again.covered) == (State.DUPLICATE, 2)
    assert dump(store) == before
    assert cursor_of(store) == 1


def test_applies_only_past_the_cursor(store: Store) -> None:
    own(store, cursor=1)
    result = applier_of(store).apply(batch(metric(0), metric(1), metric(2)))
    assert (result.state, result.covered, result.applied["log_metric"]) == (State.APPLIED, 2, 1)
    assert steps_of(store) == [2]


def test_turns_away_what_is_early_or_superseded(store: Store) -> None:
    applier = applier_of(store)
    assert applier.apply(batch(metric(5), first=5, after=4)).state is State.EARLY
    assert applier.apply(replace(batch(metric(0)), epoch=Epoch(6, "e6"))).state is State.SUPERSEDED
    assert applier.apply(replace(batch(metric(0)), epoch=Epoch(7, "other"))).state is State.SUPERSEDED
    assert applier.apply(replace(batch(metric(0)), lane=3)).state is State.SUPERSEDED
    assert applier.apply(replace(batch(metric(0)), source=SOURCE._replace(topic_id="x"))).state is State.SUPERSEDED
    assert (steps_of(store), cursor_of(store)) == ([], -1)


@pytest.mark.parametrize("attempt", [1, 3])
def test_dead_letters_keep_their_neighbours(attempt: int, store: Store) -> None:
    result = applier_of(store).apply(batch(metric(0), b"bad", metric(2), attempt=attempt))
    assert (result.state, dict(result.dead)) == (State.APPLIED, {"invalid": 1})
    assert (steps_of(store), letters_of(store), cursor_of(store)) == ([0, 2], [(1, "invalid")], 2)


def test_a_batch_over_ten_megabytes_goes_in_parts(store: Store) -> None:
    big = [message("log_terminal_line", {"line": "x" * 90_000, "step": step}) for step in range(150)]
    result = applier_of(store).apply(batch(*big))
    assert result.state is State.APPLIED
    assert result.transactions > 1
    assert result.applied["log_terminal_line"] == 150
    assert cursor_of(store) == 149


def test_a_record_too_large_alone_is_a_dead_letter(store: Store) -> None:
    tree = {f"k{number}": "x" * 90_000 for number in range(130)}
    result = applier_of(store).apply(batch(metric(0), message("log_hparams", {"value": tree}), metric(2)))
    assert dict(result.dead) == {"transaction_too_large": 1}
    assert (steps_of(store), letters_of(store)) == ([0, 2], [(1, "transaction_too_large")])


@on_one_machine
def test_a_huge_run_is_deleted_in_steps(store: Store) -> None:
    applier = applier_of(store)
    tags = [message("add_tag", {"tag_name": f"{'t' * 1_900}{number}"}) for number in range(2_300)]
    applier.apply(batch(message("create_run", {}), *tags))
    assert len(dump(store)) > 10_000
    last = 1 + len(tags)
    result = applier.apply(batch(message("delete_run", {}), first=last, after=last - 1))
    assert (result.state, result.applied["delete_run"], letters_of(store)) == (State.APPLIED, 1, [])
    left = dump(store)
    assert {where for where, _ in left} == {"data/indexes", "system"}
    assert [value for (where, _), value in left.items() if where == "data/indexes"] != [b""]
    assert sum(1 for where, _ in left if where == "data/indexes") == 1  # the tombstone
    assert cursor_of(store) == last


@on_one_machine
def test_a_huge_run_is_deleted_within_the_time_budget(store: Store) -> None:
    tags = [message("add_tag", {"tag_name": f"{'t' * 1_900}{number}"}) for number in range(2_300)]
    applier_of(store).apply(batch(message("create_run", {}), *tags))
    clock, slow, last = Clock(), SlowApplier(store.directories), 1 + len(tags)
    slow.clock_of_steps = clock
    applier, deletion = applier_of(store, clock, slow), batch(message("delete_run", {}), first=last, after=last - 1)
    assert (applier.apply(deletion).state, slow.steps) == (State.UNFINISHED, 2)  # 20 seconds, the budget is 15
    assert cursor_of(store) == last - 1
    tries = 1
    while (state := applier.apply(deletion).state) is State.UNFINISHED:
        tries += 1
    assert (state, cursor_of(store), letters_of(store)) == (State.APPLIED, last, [])
    assert tries > 1


class SlowApplier(Applier):
    """Each step of a large deletion takes ten seconds."""

    clock_of_steps: Clock
    steps = 0

    def shrink(self, transaction: Any, envelope: Any) -> bool:
        self.steps += 1
        self.clock_of_steps.now += 10.0
        return super().shrink(transaction, envelope)


class BuggyApplier(Applier):
    """Has a bug that one record meets."""

    def begin(self, transaction: Any, items: Any) -> Application:
        application = super().begin(transaction, items)
        if any(b"666" in repr(item).encode() for item in items):
            application.finish = self._fail  # type: ignore[method-assign]
        return application

    def _fail(self) -> Any:
        raise ZeroDivisionError


def test_a_bug_is_found_by_halving_and_dead_lettered_at_the_third_attempt(store: Store) -> None:
    applier = applier_of(store, what=BuggyApplier(store.directories))
    one = batch(metric(0), metric(1), metric(666), metric(3))
    with pytest.raises(ZeroDivisionError):
        applier.apply(one)
    assert (steps_of(store), cursor_of(store), letters_of(store)) == ([0, 1], 1, [])
    with pytest.raises(ZeroDivisionError):
        applier.apply(one.again())
    assert applier.apply(one.again().again()).state is State.APPLIED
    assert (steps_of(store), letters_of(store)) == ([0, 1, 3], [(2, "bug")])
    (letter,) = store.dead_letters.each(store.engine)
    assert "ZeroDivisionError" in letter.error


def mark(store: Store, offset: int, token: tuple[str, int], time: float, deaths: int) -> None:
    store.engine.transact(
        lambda transaction: store.ledger.write_mark(transaction, SOURCE, 0, Mark(offset, token, time, deaths))
    )


def test_a_record_that_kills_workers_is_found_out(store: Store) -> None:
    clock = Clock()
    applier, late = applier_of(store, clock), batch(metric(0), metric(1), attempt=3)
    mark(store, 0, ("dead", 0), clock.now, 0)
    assert applier.apply(late, token=("t1", 0)).state is State.UNFINISHED  # its worker may still live
    clock.now += 41
    mark(store, 0, ("dead", 0), clock.now - 41, 2)
    result = applier.apply(late, token=("t2", 0))
    assert (result.state, dict(result.dead)) == (State.APPLIED, {"kills_workers": 1})
    assert (steps_of(store), letters_of(store)) == ([1], [(0, "kills_workers")])


def test_a_mark_of_the_future_ages_from_when_it_is_seen(store: Store) -> None:
    clock, late = Clock(), batch(metric(0), metric(1), attempt=3)
    applier = applier_of(store, clock)
    mark(store, 0, ("dead", 0), clock.now + 315_360_000.0, 0)
    assert applier.apply(late, token=("t1", 0)).state is State.UNFINISHED, "its worker may still live"
    clock.now += 39
    assert applier.apply(late, token=("t2", 0)).state is State.UNFINISHED
    clock.now += 2
    assert applier.apply(late, token=("t3", 0)).state is State.APPLIED, "the lane goes on"
    assert (steps_of(store), letters_of(store)) == ([0, 1], [])


def test_a_worker_of_the_future_that_lives_goes_on_from_its_mark(store: Store) -> None:
    slow, fast, late = Clock(), Clock(), batch(metric(0), attempt=3)
    fast.now += 600.0
    mark(store, 0, ("fast", 0), fast.now, 0)
    assert applier_of(store, slow).apply(late, token=("slow", 0)).state is State.UNFINISHED
    assert applier_of(store, fast).apply(late, token=("fast", 1)).state is State.APPLIED
    assert letters_of(store) == []


def test_a_retry_is_no_death(store: Store) -> None:
    clock = Clock()
    mark(store, 0, ("task", 0), clock.now - 100, 0)
    result = applier_of(store, clock).apply(batch(metric(0), attempt=3), token=("task", 1))
    assert (result.state, letters_of(store)) == (State.APPLIED, [])


class AwayApplier(Applier):
    """The store goes away after a record is marked; what ``then`` does happens just before."""

    then: Callable[[], None] = staticmethod(lambda: None)

    def begin(self, transaction: Any, items: Any) -> Application:
        self.then()
        msg = "no answer"
        raise StorageUnavailable(msg)


def mark_of(store: Store) -> Mark | None:
    return store.engine.read(lambda transaction: store.ledger.mark(transaction, SOURCE, 0))


def test_a_store_that_goes_away_in_a_late_attempt_is_no_death_to_other_copies(store: Store) -> None:
    clock, late = Clock(), batch(metric(0), attempt=3)
    for number in range(4):  # copies, none of which comes to its retry before the next one
        with pytest.raises(StorageUnavailable):
            applier_of(store, clock, AwayApplier(store.directories)).apply(late, token=(f"copy-{number}", 0))
        assert mark_of(store) is None
        clock.now += 60
    assert applier_of(store, clock).apply(late, token=("last", 0)).state is State.APPLIED
    assert letters_of(store) == []


def test_the_mark_of_another_execution_is_left_alone(double: Store) -> None:
    clock = Clock()
    away, theirs = AwayApplier(double.directories), ("theirs", 0)
    away.then = lambda: mark(double, 0, theirs, clock.now, 1)  # it took our mark for a dead worker's
    with pytest.raises(StorageUnavailable):
        applier_of(double, clock, away).apply(batch(metric(0), attempt=3), token=("ours", 0))
    found = mark_of(double)
    assert found is not None
    assert found.token == theirs


def test_a_mark_that_cannot_be_taken_back_does_not_hide_the_error(double: Store, tmp_path: Path) -> None:
    away = AwayApplier(double.directories)
    away.then = double_database(tmp_path).faults.leave
    with pytest.raises(StorageUnavailable, match="no answer") as caught:
        applier_of(double, what=away).apply(batch(metric(0), attempt=3), token=("task", 0))
    assert "the mark" in caught.value.__notes__[0]


@pytest.mark.parametrize(("spent", "stays"), [(16.0, False), (21.0, True)])
def test_time_that_opening_the_store_took_is_gone(spent: float, stays: bool, store: Store) -> None:
    """Nothing is begun that the hard time limit could cut off: that would look like a death."""
    clock, late = Clock(), batch(metric(0), attempt=3)
    result = applier_of(store, clock).apply(late, token=("task", 0), began=clock.now - spent)
    assert (result.state, steps_of(store), cursor_of(store)) == (State.UNFINISHED, [], -1)
    assert (mark_of(store) is not None) == stays
    assert applier_of(store, clock).apply(late, token=("task", 1)).state is State.APPLIED


@pytest.mark.parametrize("committed", [True, False])
def test_maybe_committed_is_settled_by_the_cursor(committed: bool, double: Store, tmp_path: Path) -> None:
    double_database(tmp_path).faults.commits.append(Fault(1021, committed=committed))
    result = applier_of(double).apply(batch(message("log_record", {"message": "m", "level": 20, "timestamp": 1.0})))
    assert result.state in {State.APPLIED, State.DUPLICATE}
    records = [key for where, key in dump(double) if where == "data/runs" and b"__log_records" in key and b"val" in key]
    assert len(records) == 1


def test_conflicts_alone_never_make_a_dead_letter(double: Store, tmp_path: Path) -> None:
    double_database(tmp_path).faults.commits.extend([Fault(1020)] * 8)
    result = applier_of(double).apply(batch(metric(0), metric(1)))
    assert (result.state, letters_of(double), steps_of(double)) == (State.APPLIED, [], [0, 1])


def test_a_store_that_is_away_is_nobodys_fault(double: Store, tmp_path: Path) -> None:
    database = double_database(tmp_path)
    applier = applier_of(double)
    database.faults.leave()
    with pytest.raises(StorageUnavailable):
        applier.apply(batch(metric(0)))
    database.faults.come_back()
    assert applier.apply(batch(metric(0))).state is State.APPLIED
    assert letters_of(double) == []
