"""Reads of a large delete are in flight together: one after the other they outlast a transaction's five seconds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from storage.batch import Record
from storage.encoding import pack_key
from storage.handlers.run import Run, RunKeys
from storage.handlers.runs import delete_run, shrink_run
from storage.overlay import Draft, View
from storage.recorded import Recorded
from storage.replay import Replay
from tests.engines import open_store_kind

RUN = "r" * 32
TAGS = 40


class Asked:
    """A transaction that says when a range below a prefix is asked for, and when somebody waits for one."""

    def __init__(self, transaction: Any, prefix: bytes) -> None:
        self._transaction = transaction
        self._prefix = prefix
        self.events: list[str] = []

    def get_range(self, begin: bytes, end: bytes, **options: Any) -> Any:
        pairs = self._transaction.get_range(begin, end, **options)
        if not begin.startswith(self._prefix):
            return pairs
        self.events.append("asked")
        return Waited(pairs, self.events)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transaction, name)


class Waited:
    def __init__(self, pairs: Any, events: list[str]) -> None:
        self._pairs = pairs
        self._events = events

    def wait(self) -> Any:
        self._events.append("waited")
        return self._pairs.wait()


def test_a_runs_tags_are_asked_for_before_the_first_is_waited_for(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("storage.handlers.runs._STEP_KEYS", TAGS // 2)
    with open_store_kind("double", tmp_path) as store:
        replay = Replay(store)
        replay.apply([recorded(0, "create_run", {})])
        replay.apply([recorded(1 + number, "add_tag", {"tag_name": f"tag {number}"}) for number in range(TAGS)])
        replay.finish()
        keys = RunKeys(store.directories, RUN)

        def work(transaction: Any) -> tuple[list[str], list[str]]:
            part = Asked(transaction, store.directories.system + pack_key("tags"))
            while shrink_run(part, keys, draft := Draft(View(part))):
                draft.keep()
                if part.events:
                    break
            whole = Asked(transaction, store.directories.system + pack_key("tags"))
            delete_run(Run(keys, Draft(View(whole)), 0.0), 0.0)
            return part.events, whole.events

        part, whole = store.engine.transact(work)
    assert part == ["asked"] * (TAGS // 2) + ["waited"] * (TAGS // 2)
    assert whole == ["asked"] * TAGS + ["waited"] * TAGS


def recorded(offset: int, kind: str, payload: dict[str, object]) -> Recorded:
    envelope = {"type": kind, "run_id": RUN, "timestamp": "2026-01-01T00:00:00Z", "payload": payload}
    return Recorded("data-ingestion", 0, Record(offset, 0, RUN.encode(), json.dumps(envelope).encode()))
