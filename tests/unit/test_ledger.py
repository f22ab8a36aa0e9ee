"""Our own records: what a bridge may change in them, and when it must not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from storage.batch import Epoch, Source
from storage.errors import Refused
from storage.ledger import Gap, Mark, Owner, Standing, change_lanes, raise_epoch, raise_floor
from storage.store import Store, assemble_store
from tests.engines import double_database, open_kind
from tests.fdb_double.fdb.faults import Fault

SOURCE = Source("cluster", "data-ingestion", "topic-1", 2)
SEEN = {0: 40, 1: 49}  # with nothing outstanding and 50 read next: a drained moment


@pytest.fixture(params=["sqlite", "double"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    with assemble_store(open_kind(request.param, tmp_path)) as opened:
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
