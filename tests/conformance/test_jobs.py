"""The stock command-line jobs' files: ours leave the same keys. Where they differ, docs/compatibility.md says why."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from storage.blobs import Blob, BlobPage, NamePage, Refusal
from storage.cleanup import CleanupState
from storage.errors import LockHeld
from storage.jobs.order import JobOrder, Tally
from storage.jobs.orphans import sweep_orphans
from storage.jobs.stale_runs import finish_stale_runs
from storage.jobs.tombstones import clear_tombstones
from storage.store import Store, assemble_store
from tests.conformance.vectors import SHARED, State, dump, load, show
from tests.engines import KINDS, open_kind, own_directory

FILES = sorted(SHARED.glob("jobs/j*.json"))
ALWAYS_LOCKED = "j0c_lock_ignored"  # the stock default is no lock; ours always takes one


class EveryRunHasBlobs:
    """A blob store in which every tombstoned run still has blobs."""

    def __init__(self, content: dict[str, Any]) -> None:
        keys = [[element["v"] for element in row["key"]] for row in content["initial"]]
        self.runs = sorted(key[1] for key in keys if key[0] == "_deleted")

    def names(self, after: str = "", *, limit: int = 2) -> NamePage:
        left = [run for run in self.runs if run > after]
        return NamePage(left[:limit], left[:limit][-1] if left else after, more=len(left) > limit)

    def page(self, prefix: str, after: str = "", *, limit: int = 1) -> BlobPage:
        pytest.fail("only of runs that were never known")

    def find(self, keys: Sequence[str]) -> list[Blob]:
        pytest.fail("a job deletes nothing itself")

    def delete(self, blobs: Sequence[Blob]) -> list[Refusal]:
        pytest.fail("a job deletes nothing itself")

    def close(self) -> None:
        pass


def read_option(command: list[str], name: str, default: float) -> float:
    return float(command[command.index(name) + 1]) if name in command else default


def run_job(store: Store, content: dict[str, Any], sent: list[str]) -> Tally:
    command, now = content["command"], content["now"]
    limit = int(read_option(command, "--limit", 0))
    order = JobOrder(store, now, dry_run="--dry-run" in command, limit=limit)
    ttl = read_option(command, "--lock-ttl-seconds", 0) or 600.0
    if command[0] == "finish-stale":
        return finish_stale_runs(order, older_than_hours=read_option(command, "--timeout-hours", 24))
    with store.job_locks(clock=lambda: now).hold(command[0].replace("-", "_"), ttl=ttl):
        if command[0] == "cleanup-orphan-blobs":
            blobs = EveryRunHasBlobs(content)
            return sweep_orphans(order, blobs=blobs, unknown=False, grace_hours=24.0, send_cleanup=sent.append)
        hours = read_option(command, "--older-than-hours", 168)
        return clear_tombstones(order, older_than_hours=hours, has_blobs=lambda run: False)


def rows_of(content: dict[str, Any], field: str) -> State:
    return {(row["dir"], bytes.fromhex(row["key_hex"])): bytes.fromhex(row["value_hex"]) for row in content[field]}


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "binding"])
@pytest.mark.parametrize("path", FILES, ids=[path.stem for path in FILES])
def test_leaves_the_expected_bytes(path: Path, kind: str, tmp_path: Path) -> None:
    content = json.loads(path.read_text())
    refused = content["exit_code"] != 0 or content["name"] == ALWAYS_LOCKED
    expected = rows_of(content, "initial" if refused else "expected")
    engine = open_kind(kind, tmp_path)
    sent: list[str] = []
    with own_directory(kind, engine, "conformance") as under, assemble_store(engine, under=under) as store:
        load(store, rows_of(content, "initial"))
        if refused:
            with pytest.raises(LockHeld):
                run_job(store, content, sent)
            tally = {}
        else:
            tally = run_job(store, content, sent)
        left = dump(store)
        asked = [cleanup.run for cleanup in store.cleanups.each(engine, states=[CleanupState.PENDING])]
    assert [show(entry) for entry in sorted(expected.keys() ^ left.keys())] == []
    assert left == expected
    # The stock job deletes the blobs itself, ours asks for their cleanups.
    assert asked == sent == [prefix.rstrip("/") for _, prefix in content["blob_calls"]]
    said = content["stdout"].split()
    for word, ours in (("Cleared", "cleared"), ("Finished", "finished")):
        if word in said and ours in tally:
            assert tally[ours] == int(next(text for text in said[said.index(word) + 1 :] if text.isdigit()))


def test_every_shared_job_is_run() -> None:
    if not SHARED.is_dir():
        pytest.skip(f"the shared conformance files are not at {SHARED}: set MATYAN_CONFORMANCE")
    assert len(FILES) == 12
