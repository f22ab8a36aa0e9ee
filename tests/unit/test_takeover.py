"""The take-over table, row by row."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from bridge.takeover import Found, Stamp, decide_start, unpack_stamp
from storage.batch import Source
from storage.errors import Refused

SOURCE = Source("cluster", "topic", "id-1", 0)
OURS = Stamp("cluster", "id-1", "store")
FOUND = Found(
    committed=50, stamp=OURS, log_start=10, log_end=100, lanes=2, cursors={0: 60, 1: 49}, floor=50, store="store"
)


def decide(*, adopt: bool = False, **changes: Any) -> Any:
    return decide_start(SOURCE, replace(FOUND, **changes), adopt=adopt)


def test_no_commit_begins_at_the_log_start() -> None:
    start = decide(committed=None, stamp=None, cursors={}, floor=None)
    assert (start.offset, start.cursors, start.floor, start.gap) == (10, {0: 9, 1: 9}, 10, None)


def test_a_lost_commit_keeps_the_cursors_and_begins_behind_what_the_store_has() -> None:
    start = decide(committed=None, stamp=None, log_start=0)
    assert (start.offset, start.cursors, start.floor, start.gap) == (50, {0: 60, 1: 49}, 50, None)
    ahead = decide(committed=None, stamp=None, log_start=0, cursors={0: 60, 1: 57})
    assert (ahead.offset, ahead.floor) == (58, 58)
    without_runs = decide(committed=None, stamp=None, log_start=0, cursors={0: 60, 1: -1})
    assert without_runs.offset == 50  # the floor knows that there was nothing for lane 1
    missing = decide(committed=None, stamp=None, log_start=0, cursors={0: 60}, floor=None)
    assert (missing.offset, missing.cursors) == (0, {0: 60, 1: -1})


def test_a_commit_without_stamp_is_trusted_and_lifts_cursors() -> None:
    start = decide(committed=55, stamp=None)
    assert (start.offset, start.cursors, start.floor) == (55, {0: 60, 1: 54}, 55)
    assert "lifted from 49 to 54" in " ".join(start.notes)
    assert decide(committed=55, stamp=None, cursors={}, floor=None).cursors == {0: 54, 1: 54}


def test_our_commit_up_to_the_floor_is_where_to_begin() -> None:
    start = decide()
    assert (start.offset, start.cursors, start.floor, start.gap, start.notes) == (50, {0: 60, 1: 49}, 50, None, ())


def test_our_commit_above_the_floor_means_the_store_went_back() -> None:
    start = decide(committed=70, cursors={0: 30, 1: 20}, floor=21)
    assert (start.offset, start.cursors, start.floor) == (21, {0: 30, 1: 20}, 21)
    assert "gone back" in " ".join(start.notes)


def test_our_commit_in_a_store_without_floor_means_the_store_went_back_to_the_beginning() -> None:
    start = decide(floor=None)
    assert (start.offset, start.cursors, start.floor) == (10, {0: 60, 1: 49}, 10)
    assert "above the store's floor 10" in " ".join(start.notes)


def test_a_topic_made_anew_begins_at_its_start() -> None:
    start = decide(stamp=OURS._replace(topic_id="id-0"), cursors={}, floor=None, log_start=0)
    assert (start.offset, start.cursors) == (0, {0: -1, 1: -1})
    assert "made anew" in " ".join(start.notes)
    again = decide(stamp=OURS._replace(topic_id="id-0"), cursors={0: 3, 1: -1}, floor=0, log_start=5)
    assert (again.offset, again.cursors, again.gap) == (5, {0: 3, 1: -1}, (0, 4))


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"stamp": OURS._replace(cluster="other")}, "Kafka cluster 'other', this one is 'cluster'"),
        ({"stamp": OURS._replace(store="other")}, "store 'other', this one is 'store'"),
        ({"cursors": {}}, "records of topic[0] are gone"),
    ],
)
def test_what_belongs_elsewhere_is_refused_until_adopted(changes: dict[str, Any], named: str) -> None:
    with pytest.raises(Refused, match="--adopt") as refused:
        decide(**changes)
    assert named in str(refused.value)
    start = decide(adopt=True, **changes)
    assert start.offset == 50
    assert min(start.cursors.values()) >= 49
    above = decide(adopt=True, committed=70, **changes)  # trusted whatever this store's floor says
    assert (above.offset, above.cursors, above.floor) == (70, {0: 69, 1: 69}, 70)


def test_a_truncated_log_is_refused() -> None:
    with pytest.raises(Refused, match="ends at offset 60, but offset 60 is applied"):
        decide(log_end=60)
    with pytest.raises(Refused, match="ends at offset 54, but offset 54"):
        decide(committed=55, stamp=None, log_end=54, cursors={}, floor=None)


def test_a_log_that_ends_before_the_position_is_refused_though_its_records_are_there() -> None:
    """Behind the last record was a transaction's marker, and it is gone."""
    with pytest.raises(Refused, match="ends at offset 99, but all below offset 100 is read"):
        decide(committed=100, floor=100, cursors={0: 98, 1: 97}, log_end=99)
    assert decide(committed=100, floor=100, cursors={0: 98, 1: 97}, log_end=100).offset == 100


def test_a_gap_is_found_once() -> None:
    """Below the floor all is applied, or noted as a gap, whatever the commit says that was not followed by another."""
    first = decide(log_start=55)
    assert (first.gap, first.floor) == ((50, 54), 55)
    again = decide(log_start=55, cursors=first.cursors, floor=first.floor)
    assert (again.offset, again.gap, again.notes) == (55, None, ())
    assert decide(log_start=58, cursors=first.cursors, floor=first.floor).gap == (55, 57)
    rewound = decide(committed=20, stamp=None, log_start=40)
    assert (rewound.offset, rewound.gap) == (40, None)  # 20 to 39 are applied


def test_a_commit_that_was_moved_with_its_metadata_is_not_ours() -> None:
    kept = decide(stamp=OURS.at(50))
    assert (kept.offset, kept.cursors, kept.notes) == (50, {0: 60, 1: 49}, ())
    moved = decide(committed=55, stamp=OURS.at(50))
    assert (moved.offset, moved.cursors) == (55, {0: 60, 1: 54})
    assert "moved from offset 50 to 55" in moved.notes[0]
    with pytest.raises(Refused, match="belongs to Kafka cluster 'other'"):
        decide(committed=1, stamp=OURS.at(50)._replace(cluster="other"))  # MirrorMaker's


def test_what_is_gone_from_kafka_is_a_gap() -> None:
    start = decide(log_start=55)
    assert (start.offset, start.gap) == (55, (50, 54))
    assert "offsets 50 to 54 are gone" in " ".join(start.notes)
    assert decide(log_start=50).gap is None


def test_without_a_commit_the_store_knows_the_gap_as_long_as_it_has_cursors() -> None:
    start = decide(committed=None, stamp=None, log_start=55)
    assert (start.offset, start.gap) == (55, (50, 54))
    assert decide(committed=None, stamp=None, log_start=55, cursors={}).gap is None


def test_the_floor_never_falls() -> None:
    assert decide(committed=20).floor == 50


def test_stamps_are_packed_and_told_from_others() -> None:
    assert unpack_stamp(OURS.pack()) == OURS
    assert unpack_stamp(OURS.at(7).pack()) == OURS.at(7)
    for other in (None, "", "text", "[]", "{}", '{"cluster": 1}', "null"):
        assert unpack_stamp(other) is None
