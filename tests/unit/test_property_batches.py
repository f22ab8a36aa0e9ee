"""However records are cut into batches, the store ends with the same bytes as record by record."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storage.application import Applier
from storage.batch import Record
from tests.conformance.vectors import State, apply, dump
from tests.engines import open_store_kind

RUNS = st.sampled_from(["r1", "r2", ""])
NAMES = st.sampled_from(["loss", "acc", "logs", "", "a\x00b", 1, True, 1.0])
STEPS = st.one_of(st.none(), st.integers(-3, 5), st.sampled_from([2**40, 2.5, True, "s", None]))
CONTEXTS = st.sampled_from([None, {}, {"subset": "train"}, {"a": 1, "b": 2}, {"b": 2, "a": 1}, {"a": 1.0}, [1]])
VALUES = st.one_of(st.floats(), st.integers(-5, 5), st.none(), st.sampled_from(["text", 2**64, [1, 2], {"a": 1}]))
TREES = st.recursive(
    st.one_of(st.integers(-2, 2), st.booleans(), st.none(), st.floats(allow_nan=False), st.sampled_from(["", "x"])),
    lambda inner: st.one_of(
        st.lists(inner, max_size=2),
        st.dictionaries(st.sampled_from(["hparams", "a", "b", "__leaf__"]), inner, max_size=3),
    ),
    max_leaves=5,
)
TIMES = st.sampled_from([None, "2025-01-01T00:00:00+00:00", "2025-01-02", "never", 5])
PROPERTIES = st.fixed_dictionaries(
    {},
    optional={
        "name": st.sampled_from(["n", None]),
        "description": st.just("d"),
        "archived": st.sampled_from([True, False, None]),
        "experiment": st.sampled_from(["e1", "e2", ""]),
    },
)

PAYLOADS: dict[str, st.SearchStrategy[Any]] = {
    "create_run": st.fixed_dictionaries({"client_datetime": TIMES, "force_resume": st.booleans()}),
    "log_metric": st.fixed_dictionaries(
        {"name": NAMES, "value": VALUES, "step": STEPS, "epoch": st.sampled_from([None, 0, 1.5]), "context": CONTEXTS},
        optional={"dtype": st.sampled_from(["float32", None, 3])},
    ),
    "log_custom_object": st.fixed_dictionaries({"name": NAMES, "value": TREES, "step": STEPS, "context": CONTEXTS}),
    "log_hparams": st.fixed_dictionaries({"value": TREES}),
    "finish_run": st.fixed_dictionaries({"client_datetime": TIMES}),
    "blob_ref": st.fixed_dictionaries({"s3_key": st.just("k"), "artifact_path": st.sampled_from(["p", "q/r"])}),
    "set_run_property": PROPERTIES,
    "add_tag": st.fixed_dictionaries({}, optional={"tag_name": st.sampled_from(["t1", "t2", "", "x" * 10_000])}),
    "remove_tag": st.fixed_dictionaries({"tag_name": st.sampled_from(["t1", "t2", "t3"])}),
    "log_terminal_line": st.fixed_dictionaries({"line": st.sampled_from(["l", "", 5]), "step": STEPS}),
    "log_record": st.fixed_dictionaries(
        {"message": st.just("m"), "level": st.just(20), "timestamp": st.just(1.0)},
        optional={"extra_args": TREES},
    ),
    "delete_run": st.just({}),
    "log_nothing": st.just({}),
}


@st.composite
def messages(draw: st.DrawFn) -> bytes:
    kind = draw(st.sampled_from(sorted(PAYLOADS)))
    if kind == "delete_run" and draw(st.integers(0, 3)):
        kind = "log_metric"  # deletes end a run's story: not too many
    envelope = {
        "type": kind,
        "run_id": draw(RUNS),
        "timestamp": 1_750_000_000 + draw(st.integers(0, 100)),
        "payload": draw(PAYLOADS[kind]),
    }
    return json.dumps(envelope).encode()


RECORDS = st.lists(st.one_of(messages(), messages(), messages(), st.just(b"bad")), max_size=25)


def result(folder: Path, kind: str, values: list[bytes], cuts: list[int]) -> tuple[State, list[str]]:
    """The state and outcomes after applying in batches of these sizes, with ids drawn in the order of need."""
    drawn = iter(range(10_000))
    records = [Record(offset, 0, None, value) for offset, value in enumerate(values)]
    with open_store_kind(kind, folder) as opened:
        applier = Applier(
            opened.directories,
            clock=lambda: 1.8e9,
            new_uuid=lambda: f"00000000-0000-4000-8000-{next(drawn):012}",
        )
        store = replace(opened, applier=applier)
        outcomes: list[str] = []
        for size in cuts:
            outcomes += [f"{o.kind} {o.error}" for o in apply(store, records[:size], max(size, 1))]
            records = records[size:]
        return dump(store), outcomes


@settings(max_examples=150, deadline=None)
@given(RECORDS, st.lists(st.integers(1, 8), min_size=1, max_size=8))
def test_cuts_change_nothing(values: list[bytes], sizes: list[int]) -> None:
    cuts: list[int] = []
    while sum(cuts) < len(values):
        cuts.append(sizes[len(cuts) % len(sizes)])
    with TemporaryDirectory() as one, TemporaryDirectory() as two, TemporaryDirectory() as three:
        singly = result(Path(one), "double", values, [1] * len(values))
        assert result(Path(two), "double", values, cuts) == singly
        assert result(Path(three), "double", values, [len(values)]) == singly


@settings(max_examples=10, deadline=None)
@given(RECORDS)
@pytest.mark.usefixtures("foundationdb_server")
def test_a_cluster_and_its_double_agree(values: list[bytes]) -> None:
    with TemporaryDirectory() as one, TemporaryDirectory() as two:
        assert result(Path(one), "cluster", values, [len(values)]) == result(Path(two), "double", values, [len(values)])


@settings(max_examples=25, deadline=None)
@given(RECORDS)
def test_engines_agree(values: list[bytes]) -> None:
    with TemporaryDirectory() as one, TemporaryDirectory() as two:
        assert result(Path(one), "sqlite", values, [len(values)]) == result(
            Path(two), "double", values, [1] * len(values)
        )
