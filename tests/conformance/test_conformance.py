from __future__ import annotations

import json
from pathlib import Path

import pytest

from storage.store import assemble_store
from tests.conformance.differences import DIFFERENCES
from tests.conformance.vectors import CLOCK, SHARED, apply, differences, dump, find_cases, load, load_case
from tests.engines import KINDS, open_kind, own_directory

CASES = find_cases()


@pytest.mark.parametrize("size", [1, 7, 1_000_000], ids=["one-by-one", "by-7", "one-batch"])
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "binding"])
@pytest.mark.parametrize("path", CASES, ids=[path.stem for path in CASES])
def test_leaves_the_expected_bytes(path: Path, kind: str, size: int, tmp_path: Path) -> None:
    case = load_case(path)
    for changes in DIFFERENCES.get(case.name, {}).values():
        for change in changes:
            change(case.expected)
    engine = open_kind(kind, tmp_path)
    with (
        own_directory(kind, engine, "conformance") as under,
        assemble_store(engine, under=under, clock=lambda: CLOCK) as store,
    ):
        load(store, case.initial)
        outcomes = apply(store, case.records, size)
        left = dump(store)
        events = [json.loads(put.event) for put in store.outbox.each(store.engine)]
    assert len(outcomes) == len(case.records)
    assert differences(case, left) == []
    assert all(event["type"] == "run_deleted" and list(event["payload"]) == ["run_id"] for event in events)
    if case.deleted is not None:
        assert sorted(event["payload"]["run_id"] for event in events) == case.deleted


def test_every_shared_case_is_run() -> None:
    if not SHARED.is_dir():
        pytest.skip(f"the shared conformance files are not at {SHARED}: set MATYAN_CONFORMANCE")
    assert len(list(SHARED.glob("[rs][0-9]*.json"))) == 67
    assert {path.stem for path in CASES} >= DIFFERENCES.keys()
