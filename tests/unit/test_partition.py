"""One partition in one epoch: lanes, batches, what is committed, what is sent again."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from bridge.lanes import choose_lane, find_run
from bridge.partition import Limits, Partition, Seen
from storage.batch import Batch, Epoch, Record, Source
from storage.judgement import Verdict, judge
from storage.ledger import Owner, Standing

SOURCE = Source("cluster", "topic", "id", 0)
EPOCH = Epoch(3, "e")
RUN_OF_LANE = {choose_lane(str(n).encode(), 2): str(n).encode() for n in range(20)}


def make(cursors: dict[int, int] | None = None, start: int = 0, **limits: Any) -> Partition:
    return Partition(SOURCE, EPOCH, cursors or {0: -1, 1: -1}, start, Limits(**({"linger": 0.0} | limits)))


def feed(state: Partition, *places: tuple[int, int], now: float = 0.0, size: int = 10) -> None:
    """Records as (offset, lane)."""
    for offset, lane in places:
        state.take(Record(offset, 0, RUN_OF_LANE[lane], b"x" * size), RUN_OF_LANE[lane], now)


def offsets(batch: Batch) -> list[int]:
    return [record.offset for record in batch.records]


def see(state: Partition, cursors: dict[int, int], now: float = 0.0, epoch: Epoch = EPOCH) -> Seen:
    return state.observe(Standing(Owner(epoch, "group", 2), cursors), now)


def test_one_batch_a_lane_is_in_flight() -> None:
    state = make()
    feed(state, (0, 0), (1, 1), (2, 0))
    batches = state.due(0.0)
    assert {batch.lane: offsets(batch) for batch in batches} == {0: [0, 2], 1: [1]}
    assert {batch.after for batch in batches} == {-1}
    feed(state, (3, 0))
    assert state.due(1.0) == []
    assert see(state, {0: 2, 1: -1}) is Seen.FINE
    (following,) = state.due(1.0)
    assert (offsets(following), following.after) == ([3], 2)


def test_records_linger_until_the_batch_is_full() -> None:
    state = make(linger=1.0, batch_records=3)
    feed(state, (0, 0), (1, 0), now=5.0)
    assert (state.due(5.5), state.next_due(5.5)) == ([], 0.5)
    feed(state, (2, 0), now=5.6)
    assert [offsets(batch) for batch in state.due(5.6)] == [[0, 1, 2]]
    assert state.next_due(5.6) is None
    feed(state, (3, 0), now=5.7)
    assert state.next_due(5.7) is None, "its lane is not idle"
    feed(state, (4, 1), now=5.8)
    feed(state, (5, 1), now=6.0)
    assert state.next_due(6.0) == pytest.approx(0.8), "the linger is that of the oldest"
    assert state.next_due(9.0) == 0.0


def test_the_next_is_the_lane_that_waits_longest() -> None:
    state = make(linger=1.0)
    feed(state, (0, 0), now=5.0)
    feed(state, (1, 1), now=5.5)
    assert state.next_due(5.5) == 0.5


def test_batches_are_bounded_by_records() -> None:
    state = make(batch_records=2)
    feed(state, *[(offset, 0) for offset in range(5)])
    assert [offsets(batch) for batch in state.due(0.0)] == [[0, 1]]
    see(state, {0: 1, 1: -1})
    assert [offsets(batch) for batch in state.due(0.0)] == [[2, 3]]
    see(state, {0: 3, 1: -1})
    assert [offsets(batch) for batch in state.due(0.0)] == [[4]]


def test_batches_are_bounded_by_bytes_and_a_large_record_goes_alone() -> None:
    state = make(batch_bytes=100)
    feed(state, (0, 0), (1, 0), size=40)
    feed(state, (2, 0), size=500)
    assert [offsets(batch) for batch in state.due(0.0)] == [[0, 1]]
    see(state, {0: 1, 1: -1})
    assert [offsets(batch) for batch in state.due(0.0)] == [[2]]


def test_a_batch_may_be_as_large_as_its_bound() -> None:
    state = make(batch_bytes=2 * (40 + len(RUN_OF_LANE[0])))
    feed(state, (0, 0), (1, 0), (2, 0), size=40)
    assert [offsets(batch) for batch in state.due(0.0)] == [[0, 1]]


def test_what_a_full_batch_leaves_lingers_from_then_on() -> None:
    state = make(linger=1.0, batch_records=2)
    feed(state, (0, 0), (1, 0), (2, 0), now=0.0)
    state.due(0.5)
    see(state, {0: 1, 1: -1}, 0.7)
    assert (state.due(1.2), len(state.due(1.5))) == ([], 1)


def test_what_a_lane_holds_is_waiting_or_on_its_way() -> None:
    state = make(batch_records=2)
    feed(state, (0, 0), (1, 0), (2, 0), (3, 1))
    state.due(0.0)
    see(state, {0: 0, 1: 3})
    assert list(state.lags()) == [(0, 0, 3), (1, 3, 0)]


def test_what_a_cursor_covers_is_skipped() -> None:
    state = make({0: 4, 1: 1}, start=0)
    behind = not state.caught_up
    feed(state, (0, 0), (1, 1), (2, 1), (4, 0))
    assert behind
    assert (state.skipped, [offsets(batch) for batch in state.due(0.0)]) == (3, [[2]])
    assert state.caught_up
    assert state.committable() == 2


def test_the_highest_cursor_stays_in_sight_while_lower_ones_move() -> None:
    state = make({0: 30, 1: 5}, start=6)
    feed(state, (6, 1))
    state.due(0.0)
    see(state, {0: 30, 1: 6})
    assert not state.caught_up
    feed(state, (30, 0))
    assert state.caught_up


def test_only_what_every_lane_has_applied_is_committable() -> None:
    state = make()
    assert state.committable() == 0
    feed(state, (3, 0), (5, 1), (9, 0))
    assert state.committable() == 3
    state.due(0.0)
    see(state, {0: 3, 1: -1})  # a part of lane 0's batch
    assert state.committable() == 5
    see(state, {0: 3, 1: 5})
    assert state.committable() == 9
    see(state, {0: 9, 1: 5})
    assert (state.committable(), state.is_drained, state.held) == (10, True, 0)


def test_reading_pauses_when_too_much_is_held_and_goes_on_well_below() -> None:
    state = make(held_bytes=1_000)
    feed(state, (0, 0), (1, 1), size=500)
    assert state.is_full()
    state.due(0.0)
    see(state, {0: 0, 1: -1})
    assert state.is_full()  # below the bound, not yet below half of it
    see(state, {0: 0, 1: 1})
    assert not state.is_full()


def test_one_stuck_lane_does_not_let_the_others_run_ahead_for_ever() -> None:
    state = make(ahead=10)
    feed(state, (0, 0), *[(offset, 1) for offset in range(1, 12)])
    state.due(0.0)
    see(state, {0: -1, 1: 11})
    assert state.is_full()


def test_a_foreign_epoch_and_a_store_that_went_back_are_seen() -> None:
    state = make({0: 7, 1: 7}, start=8)
    assert see(state, {0: 9, 1: 9}, epoch=Epoch(4, "f")) is Seen.FENCED
    assert state.observe(Standing(None, {0: 7, 1: 7}), 0.0) is Seen.FENCED
    assert see(state, {0: 6, 1: 7}) is Seen.WENT_BACK
    assert see(state, {1: 7}) is Seen.WENT_BACK
    assert see(state, {0: 7, 1: 7}) is Seen.FINE


def test_a_stalled_batch_is_sent_again_at_once_only_from_an_empty_queue() -> None:
    state = make(stall=5.0, stall_cap=30.0)
    feed(state, (0, 0))
    (batch,) = state.due(0.0)
    assert state.stalled(100.0) == []  # the store has never answered, and Redis has not taken it
    state.sent(batch, 0.0)
    see(state, {0: -1, 1: -1}, 1.0)
    assert state.stalled(5.9) == []
    assert state.stalled(6.0) == [batch]
    again = state.resend(batch, 6.0, queue_is_empty=True)
    assert again is not None
    assert (again.attempt, offsets(again), again.after) == (2, [0], -1)
    state.sent(again, 6.0)
    assert state.resend(batch, 20.0, queue_is_empty=True) is None  # that one is not in flight any more
    assert state.resend(again, 12.0, queue_is_empty=False) is None  # it may be waiting its turn
    third = state.resend(again, 16.0, queue_is_empty=False)
    assert third is not None
    assert third.attempt == 3


def test_a_batch_that_redis_has_not_taken_is_no_stall() -> None:
    state = make(stall=5.0)
    feed(state, (0, 0), (1, 0), (2, 0))
    (batch,) = state.due(0.0)
    see(state, {0: -1, 1: -1}, 0.0)
    state.sent(replace(batch, epoch=Epoch(2, "d")), 0.0)  # another epoch's
    assert state.stalled(50.0) == []
    state.sent(batch, 50.0)
    again = state.resend(batch, 55.0, queue_is_empty=True)
    assert again is not None
    assert state.stalled(70.0) == []
    state.sent(batch, 70.0)  # the broker speaks of the first attempt
    see(state, {0: 0, 1: -1}, 71.0)  # which gets something done
    assert state.stalled(90.0) == []
    state.sent(again, 90.0)
    assert (state.stalled(95.0), state.resent) == ([again], 1)
    see(state, {0: 2, 1: -1}, 96.0)
    feed(state, (3, 0))
    state.due(97.0)
    assert state.stalled(150.0) == []


def test_copies_of_a_batch_stay_few_while_workers_wait_with_an_empty_queue() -> None:
    """Reads work, so nothing says that the store is away; the tasks wait in the workers, so the queue is empty."""
    state = make(stall=5.0, stall_cap=120.0)
    feed(state, (0, 0), (1, 0))
    (batch,) = state.due(0.0)
    state.sent(batch, 0.0)
    see(state, {0: -1, 1: -1}, 0.0)
    sent_at = []
    for now in range(700):
        for stalled in state.stalled(float(now)):
            again = state.resend(stalled, float(now), queue_is_empty=True)
            if again is not None:
                sent_at.append(now)
                state.sent(again, float(now))
    assert sent_at == [5, 10, 30, 70, 150, 270, 390, 510, 630]
    see(state, {0: 0, 1: -1}, 700.0)  # it moves: the store takes writes
    (late,) = state.stalled(705.0)
    assert state.resend(late, 705.0, queue_is_empty=True) is not None


def test_a_batch_that_moves_or_a_store_that_does_not_answer_is_no_stall() -> None:
    state = make(stall=5.0)
    feed(state, (0, 0), (1, 0))
    (batch,) = state.due(0.0)
    state.sent(batch, 0.0)
    see(state, {0: -1, 1: -1}, 0.0)
    see(state, {0: 0, 1: -1}, 4.0)
    assert state.stalled(8.0) == []
    assert state.stalled(9.0) == [batch]
    state.unanswered()
    assert state.stalled(50.0) == []
    see(state, {0: 0, 1: -1}, 60.0)
    assert (state.stalled(64.0), state.stalled(65.0)) == ([], [batch])


def test_lanes_may_switch_only_when_nothing_is_outstanding() -> None:
    state = make({0: 3, 1: -1}, start=2)
    assert not state.may_switch
    feed(state, (2, 1), (3, 0))
    assert not state.may_switch
    state.due(0.0, drain=True)
    see(state, {0: 3, 1: 2})
    assert state.may_switch


def test_lanes_are_stable() -> None:
    assert [choose_lane(f"{n:032x}".encode(), 8) for n in range(8)] == [0, 6, 4, 2, 1, 7, 5, 3]
    assert choose_lane("größe".encode(), 256) == choose_lane("größe".encode(), 256)


def test_the_run_is_the_envelopes() -> None:
    run = b"0123456789abcdef"
    stock = b'{"type":"log_metric","run_id":"' + run + b'","payload":{}}'
    assert find_run(Record(0, 0, run, stock)) == run
    assert find_run(Record(0, 0, b"other", stock)) == run
    assert find_run(Record(0, 0, None, stock)) == run
    assert find_run(Record(0, 0, b"key", b"not json")) == b"key"
    assert find_run(Record(0, 0, b"key", b'{"run_id": 5}')) == b"key"
    assert find_run(Record(0, 0, b"key", None)) == b"key"
    assert find_run(Record(0, 0, None, None)) == b""
    # a run id that only looks like the key's, further in
    assert find_run(Record(0, 0, b"a", b'{"payload":{"run_id":"a"},"run_id":"b"}')) == b"b"


def test_judgement() -> None:
    owner = Owner(EPOCH, "group", 2)

    def at(cursor: int | None, owner: Owner | None = owner, epoch: Epoch = EPOCH) -> Verdict:
        return judge(owner, cursor, epoch=epoch, after=10, last=20)

    assert [at(cursor) for cursor in (9, 10, 15, 19, 20, 21)] == [
        Verdict.EARLY,
        Verdict.APPLY,
        Verdict.APPLY,
        Verdict.APPLY,
        Verdict.DUPLICATE,
        Verdict.DUPLICATE,
    ]
    assert at(None) is at(10, None) is at(10, epoch=Epoch(3, "x")) is at(10, epoch=Epoch(4, "e")) is Verdict.SUPERSEDED
