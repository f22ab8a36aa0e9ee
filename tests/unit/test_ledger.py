"""Our own records: what a bridge may change in them, and when it must not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from storage.batch import Epoch, Source
from storage.ledger import Owner, Standing, change_lanes, raise_epoch, raise_floor
from storage.store import Store, assemble_store
from tests.engines import open_kind

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


def test_a_floor_is_raised_over_what_was_seen(store: Store, epoch: Epoch) -> None:
    assert raise_floor(store.engine, store.ledger, SOURCE, epoch, cursors=SEEN, offset=50)
    assert raise_floor(store.engine, store.ledger, SOURCE, epoch, cursors={0: 30, 1: 49}, offset=20)
    assert store.engine.read(lambda transaction: store.ledger.floor(transaction, SOURCE)) == 50
    assert not raise_floor(store.engine, store.ledger, SOURCE, Epoch(9, "other"), cursors=SEEN, offset=60)
