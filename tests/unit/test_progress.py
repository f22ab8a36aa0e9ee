"""Which partitions stand still though they could move, and which only rest."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from bridge.progress import HUNG_AFTER, TOLD_AFTER, Progress, Sight, Standstill, Step
from storage.batch import Source
from storage.standstills import HOLDS, StandstillNote, Standstills
from storage.store import open_store

READING = Sight(position=50, committable=50, landed=50, resting=False, readable=50, answered=True)
LATE = TOLD_AFTER + 1


def look(*sights: Sight, every: float = LATE) -> list[Standstill]:
    """What stands still when these were seen one after the other, and the last of them for long."""
    progress = Progress(1.0)
    now = 0.0
    for sight in sights:
        progress.look(3, sight, now)
        now += every
    progress.look(3, sights[-1], now)
    return progress.find(now)


def test_nothing_to_do_is_rest() -> None:
    assert look(READING) == []


def test_what_can_be_read_and_is_not_stands_still() -> None:
    (still,) = look(replace(READING, readable=90))
    assert (still.partition, still.step, still.at, still.end) == (3, Step.READ, 50, 90)
    assert still.describe("topic") == (
        f"topic[3]: a bridge has it and has not read it for {LATE:.0f} s: it is at offset 50 of 90"
    )


def test_it_is_told_within_a_minute_and_not_at_once() -> None:
    progress = Progress(1.0)
    for second in range(61):
        progress.look(0, replace(READING, readable=90 + second), float(second))  # more comes, nothing is read
        assert bool(progress.find(float(second))) == (second >= TOLD_AFTER)
    assert TOLD_AFTER + 15 < 60 < HUNG_AFTER


def test_slow_progress_is_progress() -> None:
    behind = replace(READING, readable=1_000)
    assert look(*(replace(behind, position=50 + step) for step in range(5)), every=TOLD_AFTER - 1) == []


def test_a_reason_to_rest_is_rest() -> None:
    behind = replace(READING, readable=90)
    assert look(replace(behind, resting=True)) == []  # paused: enough is on its way
    assert look(replace(behind, readable=None)) == []  # Kafka is away
    assert look(behind, replace(behind, resting=True), behind, every=30.0) == []  # full now and then


def test_what_could_be_taken_over_and_is_not_stands_still() -> None:
    given = Sight(position=None, committable=None, landed=None, resting=False, readable=90, answered=True)
    (still,) = look(given)
    assert still.describe("topic") == (
        f"topic[3]: a bridge has it and has not taken it over for {LATE:.0f} s, though store and Kafka answer"
    )
    assert look(replace(given, answered=False)) == []
    assert look(replace(given, readable=None)) == []


def test_what_is_applied_and_not_committed_stands_still() -> None:
    applied = replace(READING, committable=60, position=60, readable=60)
    (still,) = look(applied)
    assert "all below offset 60 is applied and has not been committed" in still.describe("topic")
    assert "the commit is 50" in still.describe("topic")
    assert look(replace(applied, answered=False)) == []
    seldom = Progress(600.0)
    seldom.look(3, applied, 0.0)
    assert seldom.find(900.0) == []  # by its setting
    assert seldom.find(1_801.0) != []


def test_what_has_gone_is_forgotten() -> None:
    progress = Progress(1.0)
    for number in (1, 2):
        progress.look(number, replace(READING, readable=90), 0.0)
    progress.keep([2])
    assert [still.partition for still in progress.find(LATE)] == [2]


def test_notes_hold_for_a_while(tmp_path: Path) -> None:
    source = Source("cluster", "topic", "id-1", 3)
    with open_store(f"sqlite:///{tmp_path / 'store.db'}") as store:
        notes = Standstills(store.ledger)
        note = StandstillNote(source, Step.READ, 50, None, 1_000.0, 1_050.0)
        notes.note(store.engine, note)
        assert notes.find(store.engine, 1_050.0 + HOLDS) == [note]
        assert notes.find(store.engine, 1_051.0 + HOLDS) == []
        later = StandstillNote(source, Step.READ, 50, 90, 1_000.0, 1_065.0)
        notes.note(store.engine, later)
        assert notes.find(store.engine, 1_100.0) == [later]
        notes.forget(store.engine, source)
        assert notes.find(store.engine, 1_100.0) == []
