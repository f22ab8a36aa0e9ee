"""What ours leaves otherwise than the peer, case by case, each change with its letter in docs/compatibility.md."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import fdb.tuple
import msgpack

from tests.conformance.vectors import State

Change = Callable[[State], None]

RUNS, INDEXES, SYSTEM = "data/runs", "data/indexes", "system"
ULID: Final = "01JQ00000000000000000000"
FIRST: Final = 1735689600.5  # envelope time of a case's first record; the others follow a second apart


def put(where: str, value: Any, *elements: Any) -> Change:
    """The key holds another value, or is there at all."""
    return lambda state: state.__setitem__((where, fdb.tuple.pack(elements)), msgpack.packb(value))


def gone(where: str, *elements: Any) -> Change:
    """The key is not there; it was."""
    return lambda state: state.__delitem__((where, fdb.tuple.pack(elements)))


def entry(run: str, *elements: Any) -> Change:
    """An index entry and its reverse are there; they were not."""

    def change(state: State) -> None:
        for key in (("_rev", run, *elements, run), (*elements, run)):
            packed = (INDEXES, fdb.tuple.pack(key))
            assert packed not in state
            state[packed] = b""

    return change


def no_entry(run: str, *elements: Any) -> Change:
    """An index entry and its reverse are not there; they were."""

    def change(state: State) -> None:
        for key in (("_rev", run, *elements, run), (*elements, run)):
            del state[INDEXES, fdb.tuple.pack(key)]

    return change


def metric(run: str, name: str, time: float, *, value: float = 1.0, step: int = 0) -> Change:
    """A metric of the empty context is there."""

    def change(state: State) -> None:
        put(RUNS, {}, run, "contexts", 0)(state)
        point = {"val": value, "step": step, "time": time}
        for kind, stored in point.items():
            put(RUNS, stored, run, "seqs", 0, name, kind, step)(state)
        trace = {"dtype": "float", "last": value, "last_step": step}
        for kind, kept in trace.items():
            put(RUNS, kept, run, "traces", 0, name, kind)(state)
        for key in (("_rev", run, "trace", name, run), ("trace", name, run)):
            state[INDEXES, fdb.tuple.pack(key)] = b""

    return change


def no_metric(run: str, name: str) -> Change:
    """A metric of the empty context, point and trace, is not there; it was."""

    def change(state: State) -> None:
        for kind in ("val", "step", "time"):
            gone(RUNS, run, "seqs", 0, name, kind, 0)(state)
        for kind in ("dtype", "last", "last_step"):
            gone(RUNS, run, "traces", 0, name, kind)(state)
        no_entry(run, "trace", name)(state)

    return change


def count_of(kind: str, name: str, count: int | None) -> Change:
    """The run count of the tag or experiment of this name; None: not written."""

    def change(state: State) -> None:
        (uuid,) = [
            fdb.tuple.unpack(key)[1]
            for (where, key), value in state.items()
            if where == SYSTEM
            and fdb.tuple.unpack(key)[0] == kind
            and fdb.tuple.unpack(key)[-1] == "name"
            and msgpack.unpackb(value) == name
        ]
        put(SYSTEM, count, kind, uuid, "run_count")(state)

    return change


def times_of(kind: str, time: float) -> Change:
    """The only tag or experiment was made at another time."""

    def change(state: State) -> None:
        for where, key in list(state):
            elements = fdb.tuple.unpack(key)
            if where == SYSTEM and elements[0] == kind and elements[-1] in {"created_at", "updated_at"}:
                state[where, key] = msgpack.packb(time)

    return change


_RUN: Final = ULID + "01"
_OF_ENVELOPE: Final = [
    # any text is a run id, taken as it is
    *[metric(run, f"bad{5 + i}", FIRST + 13 + i) for i, run in enumerate(("", "short", ULID[:-1] + "00I"))],
    metric("0123456789abcdef0123456789abcdef", "bad8", FIRST + 16),
    no_metric(_RUN, "ok0"),
    metric(_RUN.lower(), "ok0", FIRST + 33),
    no_metric(_RUN, "ok1"),
    metric(f" {_RUN}\n", "ok1", FIRST + 34),
    # project_id is nothing to us
    *[metric(_RUN, f"bad{9 + i}", FIRST + 17 + i) for i in range(6)],
]

DIFFERENCES: Final[dict[str, dict[str, list[Change]]]] = {
    "s14_recreate_without_resume": {
        "f": [
            no_entry(_RUN, "active", False),
            no_entry(_RUN, "archived", True),
            *[no_entry(_RUN, "created_at", FIRST + seconds) for seconds in (0, 4, 5)],
        ]
    },
    "s16_force_resume_edge": {"f": [no_entry(ULID + "06", "created_at", FIRST + 11)]},
    "s29_hparams_leaf_then_child": {"e": [gone(RUNS, _RUN, "attrs", "cfg", "a", "__leaf__")]},
    "s30_hparams_empty_then_key": {
        "e": [
            gone(RUNS, ULID + "02", "attrs", "hparams", "opt", "__empty_dict__"),
            put(RUNS, 1, ULID + "02", "attrs", "hparams", "opt", "lr", "__leaf__"),
            gone(RUNS, ULID + "02", "attrs", "other", "__empty_dict__"),
        ]
    },
    "s31_attrs_root_replace": {
        "f": [
            no_entry(_RUN, "hparam", "bs", 8),
            no_entry(_RUN, "hparam", "lr", 0.1),
            entry(_RUN, "hparam", "lr", 0.5),
            entry(_RUN, "hparam", "wd", 0.1),
        ]
    },
    "s32_hparams_root_scalar": {
        "f": [
            no_entry(ULID + run, "hparam", name, value)
            for run in ("01", "02", "03")
            for name, value in (("bs", 8), ("lr", 0.1))
        ]
    },
    "s39_tags": {"g": [count_of("tags", "best", 2), count_of("tags", "prod", 1)]},
    "s47_no_create_first": {"g": [count_of("tags", "t", 1)]},
    "s48_duplicates": {"g": [count_of("tags", "t", 1)]},
    "s49_interleave_three_runs": {"c": [times_of("experiments", FIRST + 19), times_of("tags", FIRST + 18)]},
    "s52_invalid_envelopes": {"i": _OF_ENVELOPE},
    "s58_odd_types": {"h": [no_metric(_RUN, "logs")]},
    "s59_poison_run_id": {"b": [metric(_RUN, "loss", FIRST + 2, value=2.0, step=1)]},
    "s60_poison_line": {"b": [metric(ULID + "03", "never", FIRST + 3)]},
    "s61_initial_pending_deletion": {"f": [no_entry(ULID + "02", "created_at", 1.7e9)]},
    "s63_initial_deleted_entities": {
        "g": [
            gone(SYSTEM, "experiments", "ffffffff-0000-4000-8eee-000000000000", "run_count"),
            count_of("tags", "old", 1),
        ]
    },
}
