"""How far behind a partition is, as the bridge reports it."""

from __future__ import annotations

import pytest

from bridge.lookup import Bounds
from bridge.partition import Limits, Partition
from bridge.report import Lag, LagClock
from storage.batch import Record
from storage.ledger import Owner, Standing
from tests.unit.test_partition import EPOCH, SOURCE

WALL = 1_800_005_000.0
START = 1_800_000_000_000  # milliseconds


def make() -> Partition:
    return Partition(SOURCE, EPOCH, {0: 9}, 10, Limits(linger=0.0))


def take(state: Partition, offset: int, milliseconds: int) -> None:
    state.take(Record(offset, milliseconds, b"r", b"v"), b"r", 0.0)


def test_nothing_is_said_before_anything_is_known() -> None:
    assert LagClock().read(None, None, 0.0, WALL) is None
    assert LagClock().read(None, Bounds(0, 100), 0.0, WALL) is None


def test_nothing_left_is_no_lag() -> None:
    state = make()
    assert LagClock().read(state, Bounds(0, 10), 0.0, WALL) == Lag(0, 0.0)
    assert LagClock().read(state, None, 0.0, WALL) == Lag(0, 0.0)


def test_the_oldest_record_that_is_not_applied_has_the_age() -> None:
    state, clock = make(), LagClock()
    take(state, 10, START + 4_900_000)
    take(state, 11, START + 4_990_000)
    assert clock.read(state, Bounds(0, 500), 0.0, WALL) == Lag(490, 100.0)
    (batch,) = state.due(0.0)
    assert clock.read(state, Bounds(0, 500), 0.0, WALL) == Lag(490, 100.0)
    state.observe(Standing(Owner(EPOCH, "group", 1), {0: 10}), 1.0)
    assert batch.last == 11
    assert clock.read(state, Bounds(0, 500), 1.0, WALL) == Lag(489, 10.0)


def test_an_end_that_was_asked_for_long_ago_does_not_lag_behind_what_is_read() -> None:
    state = make()
    take(state, 10, START + 4_900_000)
    assert LagClock().read(state, Bounds(0, 2), 0.0, WALL) == Lag(1, 100.0)


def test_a_record_without_a_time_or_not_yet_read_ages_since_it_is_known() -> None:
    state, clock = make(), LagClock()
    assert clock.read(state, Bounds(0, 20), 100.0, WALL) == Lag(10, 0.0)
    take(state, 10, 0)
    assert clock.read(state, Bounds(0, 20), 107.0, WALL) == Lag(10, 7.0)


def test_a_partition_that_is_dropped_goes_on_from_what_was_applied() -> None:
    clock = LagClock()
    assert clock.read(make(), Bounds(0, 10), 0.0, WALL) == Lag(0, 0.0)
    assert clock.read(None, Bounds(0, 30), 50.0, WALL) == Lag(20, 0.0)
    assert clock.read(None, Bounds(0, 30), 60.0, WALL) == Lag(20, 10.0)


def test_a_clock_that_is_behind_the_producers_gives_no_negative_age() -> None:
    state = make()
    take(state, 10, START + 9_000_000)
    assert LagClock().read(state, Bounds(0, 11), 0.0, WALL) == Lag(1, 0.0)


def test_what_takes_offsets_and_is_no_record_is_no_lag() -> None:
    state, clock = make(), LagClock()
    take(state, 10, START + 4_900_000)
    take(state, 15, START + 4_950_000)  # between them lies a transaction that was aborted
    state.reach(17)
    assert clock.read(state, Bounds(0, 17), 0.0, WALL) == Lag(2, 100.0)
    state.due(0.0)
    state.observe(Standing(Owner(EPOCH, "group", 1), {0: 15}), 1.0)
    assert clock.read(state, Bounds(0, 17), 1.0, WALL) == Lag(0, 0.0)
    assert state.committable() == 17


def test_what_retention_took_is_no_lag() -> None:
    state, clock = make(), LagClock()
    assert clock.read(state, Bounds(40, 50), 0.0, WALL) == Lag(10, 0.0)
    assert clock.read(None, Bounds(45, 50), 0.0, WALL) == Lag(5, 0.0)


@pytest.mark.parametrize("created", [9_000_000_000_000, 86_400_000, -1])
def test_a_producer_with_a_wrong_clock_hides_no_lag_and_raises_no_alarm(created: int) -> None:
    state, clock = make(), LagClock()
    take(state, 10, created)
    take(state, 11, created)
    assert clock.read(state, Bounds(0, 12), 0.0, WALL) == Lag(2, 0.0)
    state.due(0.0)
    assert clock.read(state, Bounds(0, 12), 90.0, WALL) == Lag(2, 90.0), "it stands still, whatever its time says"
    state.observe(Standing(Owner(EPOCH, "group", 1), {0: 10}), 91.0)
    assert clock.read(state, Bounds(0, 12), 91.0, WALL) == Lag(1, 0.0), "it has moved on"
