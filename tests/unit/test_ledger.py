"""Our own records: what a bridge may change in them, and when it must not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from storage.batch import Epoch, Source
from storage.engine import Transaction
from storage.errors import Refused
from storage.ledger import (
    Gap,
    Mark,
    Owner,
    Standing,
    change_lanes,
    raise_epoch,
    raise_floor,
    unpack_offset,
    unpack_owner,
)
from storage.store import Store, assemble_store
from tests.engines import double_database, open_kind, open_store_kind
from tests.fdb_double.fdb.faults import Fault

SOURCE = Source("cluster", "data-ingestion", "topic-1", 2)
SEEN = {0: 40, 1: 49}  # with nothing outstanding and 50 read next: a drained moment


@pytest.fixture(params=["sqlite", "double", "cluster"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    with open_store_kind(request.param, tmp_path) as opened:
        yield opened


@pytest.fixture
def epoch(store: Store) -> Epoch:
    """A partition that was taken over, with the cursors that the bridge has seen."""
    owner = raise_epoch(store.engine, store.ledger, SOURCE, group="group", lanes=2)
    write_cursors(store, SEEN)
    return owner.epoch


def write_cursors(store: Store, cursors: dict[int, int]) -> None:
    store.engine.transact(lambda transaction: store.ledger.replace_cursors(transaction, SOURCE, cursors))


def standing(store: Store) -> Standing:
    return store.engine.read(lambda transaction: store.ledger.standings(transaction, [SOURCE]))[SOURCE]


def change(store: Store, epoch: Epoch, **changed: Any) -> Owner | None:
    given: dict[str, Any] = {"cursors": SEEN, "position": 50, "lanes": 3, **changed}
    return change_lanes(store.engine, store.ledger, SOURCE, epoch, **given)


def test_lanes_change_at_a_drained_moment(store: Store, epoch: Epoch) -> None:
    owner = change(store, epoch)
    assert owner is not None
    assert (owner.lanes, owner.epoch.number) == (3, epoch.number + 1)
    assert standing(store) == Standing(owner, {0: 49, 1: 49, 2: 49})


@pytest.mark.parametrize("left", [{0: 39, 1: 49}, {0: 40, 1: -1}, {1: 49}, {}])
def test_lanes_do_not_change_in_a_store_that_has_gone_back(left: dict[int, int], store: Store, epoch: Epoch) -> None:
    """To the same epoch: new cursors would cover records that are lost with it."""
    write_cursors(store, left)
    before = standing(store)
    assert change(store, epoch) is None
    assert standing(store) == before
    assert not raise_floor(store.engine, store.ledger, SOURCE, epoch, cursors=SEEN, offset=50)


def test_lanes_do_not_change_under_another_epoch_or_below_a_cursor(store: Store, epoch: Epoch) -> None:
    before = standing(store)
    assert change(store, Epoch(epoch.number, "other")) is None
    assert change(store, epoch, position=49) is None
    assert standing(store) == before


def test_lanes_change_once_where_the_commit_is_not_heard(tmp_path: Path) -> None:
    with assemble_store(open_kind("double", tmp_path)) as store:
        owner = raise_epoch(store.engine, store.ledger, SOURCE, group="group", lanes=2)
        write_cursors(store, SEEN)
        double_database(tmp_path).faults.commits.append(Fault(1021, committed=True))
        changed = change(store, owner.epoch)
        assert changed is not None
        assert standing(store) == Standing(changed, {0: 49, 1: 49, 2: 49})


def test_a_lane_that_begins_anew_has_no_mark(store: Store, epoch: Epoch) -> None:
    ledger = store.ledger
    store.engine.transact(lambda transaction: ledger.write_mark(transaction, SOURCE, 0, Mark(41, ("task", 0), 1.0, 1)))
    assert change(store, epoch) is not None
    assert store.engine.read(lambda transaction: ledger.mark(transaction, SOURCE, 0)) is None


def test_a_source_that_is_forgotten_was_never_taken_over(store: Store, epoch: Epoch) -> None:
    store.engine.transact(lambda transaction: store.ledger.forget(transaction, SOURCE))
    assert standing(store) == Standing(None, {})
    assert raise_epoch(store.engine, store.ledger, SOURCE, group="another", lanes=5).lanes == 5


def test_a_take_over_raises_the_epochs_of_all_topic_ids_and_leaves_their_lanes(store: Store, epoch: Epoch) -> None:
    anew, neighbour = SOURCE._replace(topic_id="topic-2"), SOURCE._replace(partition=3)
    theirs = raise_epoch(store.engine, store.ledger, neighbour, group="group", lanes=2)
    owner = raise_epoch(store.engine, store.ledger, anew, group="group", lanes=7)
    assert (owner.lanes, owner.epoch.number) == (7, epoch.number + 1)
    assert standing(store) == Standing(Owner(owner.epoch, "group", 2), SEEN)
    again = raise_epoch(store.engine, store.ledger, anew, group="group", lanes=9)
    assert (again.lanes, again.epoch.number) == (7, epoch.number + 2)
    owners = store.engine.read(store.ledger.sources)
    assert owners == {SOURCE: Owner(again.epoch, "group", 2), anew: again, neighbour: theirs}


def test_another_group_is_refused_and_changes_nothing(store: Store, epoch: Epoch) -> None:
    before = standing(store)
    for source in (SOURCE, SOURCE._replace(topic_id="topic-2")):
        with pytest.raises(Refused, match="belongs to the consumer group 'group', this bridge runs in 'another'"):
            raise_epoch(store.engine, store.ledger, source, group="another", lanes=2)
    assert (standing(store), len(store.engine.read(store.ledger.sources))) == (before, 1)


def test_every_gap_is_kept(store: Store) -> None:
    gaps = [Gap(SOURCE, 3, 7, 1.0), Gap(SOURCE, 20, 29, 2.0), Gap(SOURCE._replace(partition=3), 3, 4, 3.0)]
    for gap in gaps:
        store.engine.transact(lambda transaction: store.ledger.write_gap(transaction, gap))  # noqa: B023
    assert store.engine.read(store.ledger.gaps) == gaps


def test_a_floor_is_raised_over_what_was_seen(store: Store, epoch: Epoch) -> None:
    assert raise_floor(store.engine, store.ledger, SOURCE, epoch, cursors=SEEN, offset=50)
    assert raise_floor(store.engine, store.ledger, SOURCE, epoch, cursors={0: 30, 1: 49}, offset=20)
    assert store.engine.read(lambda transaction: store.ledger.floor(transaction, SOURCE)) == 50
    assert not raise_floor(store.engine, store.ledger, SOURCE, Epoch(9, "other"), cursors=SEEN, offset=60)
    assert raise_floor(store.engine, store.ledger, SOURCE, epoch, cursors=SEEN, offset=51)
    assert store.engine.read(lambda transaction: store.ledger.floor(transaction, SOURCE)) == 51


class Between:
    """Does something between the reads of `raise_floor` and its commit, in each try of it.

    In a store in memory: the embedded one lets nobody write there.
    """

    def __init__(self, store: Store, monkeypatch: pytest.MonkeyPatch, *acts: Callable[[Store], object]) -> None:
        self.tries = 0
        left = list(acts)
        read = store.ledger.floor

        def floor(transaction: Transaction, source: Source) -> int | None:
            found = read(transaction, source)
            self.tries += 1
            if left:
                left.pop(0)(store)
            return found

        monkeypatch.setattr(store.ledger, "floor", floor)


@pytest.fixture
def in_memory(tmp_path: Path) -> Iterator[Store]:
    with assemble_store(open_kind("double", tmp_path)) as opened:
        yield opened


def owned(store: Store) -> Epoch:
    owner = raise_epoch(store.engine, store.ledger, SOURCE, group="group", lanes=2)
    write_cursors(store, SEEN)
    return owner.epoch


def commit_task(store: Store) -> None:
    """What a task's transaction reads and writes of the ledger."""

    def work(transaction: Transaction) -> None:
        owner = store.ledger.read_owner(transaction, SOURCE)
        cursor = store.ledger.read_cursor(transaction, SOURCE, 0)
        assert unpack_owner(owner.wait()) is not None
        store.ledger.write_cursor(transaction, SOURCE, 0, (unpack_offset(cursor.wait()) or 0) + 1)

    store.engine.transact(work)


def take_over(store: Store) -> None:
    raise_epoch(store.engine, store.ledger, SOURCE, group="group", lanes=2)


def switch_lanes(store: Store) -> None:
    owner = standing(store).owner
    assert owner is not None
    assert change(store, owner.epoch) is not None


def forget(store: Store) -> None:
    store.engine.transact(lambda transaction: store.ledger.forget(transaction, SOURCE))


def restore(store: Store) -> None:
    """A backup of the same epoch, with lower cursors: every key is written, the owner with the value that it has."""

    def work(transaction: Transaction) -> None:
        owner = unpack_owner(store.ledger.read_owner(transaction, SOURCE).wait())
        assert owner is not None
        store.ledger.write_owner(transaction, SOURCE, owner)
        store.ledger.replace_cursors(transaction, SOURCE, {0: 10, 1: 10})
        store.ledger.write_floor(transaction, SOURCE, 5)

    store.engine.transact(work)


def test_raising_the_floor_does_not_conflict_with_a_tasks_commit(
    in_memory: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    epoch = owned(in_memory)
    between = Between(in_memory, monkeypatch, commit_task, commit_task, commit_task)
    assert raise_floor(in_memory.engine, in_memory.ledger, SOURCE, epoch, cursors=SEEN, offset=50)
    assert between.tries == 1
    assert standing(in_memory).cursors == {0: 41, 1: 49}


@pytest.mark.parametrize(
    ("act", "left"),
    [(take_over, None), (switch_lanes, None), (forget, None), (restore, 5)],
)
def test_raising_the_floor_notices_what_changes_cursors_otherwise(
    act: Callable[[Store], object], left: int | None, in_memory: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    epoch = owned(in_memory)
    Between(in_memory, monkeypatch, act)
    assert not raise_floor(in_memory.engine, in_memory.ledger, SOURCE, epoch, cursors=SEEN, offset=50)
    monkeypatch.undo()
    assert in_memory.engine.read(lambda transaction: in_memory.ledger.floor(transaction, SOURCE)) == left
