"""Control events become entries of the cleanup ledger, exactly once, and bad ones dead letters of their route."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from storage.apply import BatchApplier, Result, State
from storage.batch import Batch, Epoch, Record, Source
from storage.cleanups import Cleanup, CleanupState
from storage.control import make_run_deleted
from storage.dead_letters import DeadLetter
from storage.ledger import Owner
from storage.meaning import CascadeAsked, CleanupAsked
from storage.outbox import OutboxEvent
from storage.store import Store, assemble_store
from tests.conformance.vectors import SHARED, dump
from tests.engines import open_kind

SOURCE = Source("cluster", "control-events", "topic-1", 0)
EPOCH = Epoch(3, "e3")
RUN = "0123456789abcdef0123456789abcdef"
TIME = "2026-11-23T06:39:48.287461Z"


@pytest.fixture(params=["sqlite", "double"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    opened = assemble_store(open_kind(str(request.param), tmp_path, timeout=5.0), clock=lambda: 1_000.0)
    with opened:

        def work(transaction: Any) -> None:
            opened.ledger.write_owner(transaction, SOURCE, Owner(EPOCH, "control-workers", 1))
            opened.ledger.write_cursor(transaction, SOURCE, 0, -1)

        opened.engine.transact(work)
        yield opened


def event(kind: str, **payload: Any) -> bytes:
    return json.dumps({"type": kind, "timestamp": TIME, "payload": payload}).encode()


def batch(*values: bytes | None, first: int = 0, after: int = -1) -> Batch:
    records = tuple(Record(first + index, 5, None, value) for index, value in enumerate(values))
    return Batch(SOURCE, 0, EPOCH, 1, after, records)


def apply(store: Store, one: Batch) -> Result:
    return BatchApplier(store.engine, store.ledger, store.control).apply(one)


def cleanups(store: Store) -> dict[str, Cleanup]:
    return {entry.run: entry for entry in store.cleanups.each(store.engine)}


def letters(store: Store) -> dict[int, DeadLetter]:
    return {letter.offset: letter for letter in store.dead_letters.each(store.engine)}


def keys_of(store: Store, run: str) -> list[str]:
    return store.engine.read(lambda transaction: store.cleanups.keys(transaction, run))


def test_a_run_deleted_is_a_cleanup_once(store: Store) -> None:
    one = batch(event("run_deleted", run_id=RUN), event("run_archived", run_id=RUN, archived=True))
    before = dump(store)
    result = apply(store, one)
    assert result.applied == {"run_deleted": 1, "run_archived": 1}
    assert result.follow_ups == [CleanupAsked(RUN)]
    entry = cleanups(store)[RUN]
    assert (entry.state, entry.source, entry.round, entry.due) == (CleanupState.PENDING, "event", 1, 1_000.0)
    assert apply(store, one).state is State.DUPLICATE
    assert cleanups(store)[RUN] == entry
    assert dump(store) == before, "Matyan's own directories stay as they are"


def test_a_repeated_event_is_a_new_round_of_the_same_cleanup(store: Store) -> None:
    apply(store, batch(event("run_deleted", run_id=RUN), event("run_deleted", run_id=RUN)))
    assert [entry.round for entry in cleanups(store).values()] == [2]


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"nope", "invalid"),
        (b"{}", "invalid"),
        (None, "invalid"),
        (event("run_deleted").replace(b"{}", b"null"), "invalid"),
        (b'{"type":"run_deleted","payload":{"run_id":"a"}}', "invalid"),
        (event("run_deleted"), "invalid"),
        (event("run_deleted", run_id=""), "invalid"),
        (event("run_deleted", run_id=None), "invalid"),
        (event("run_deleted", run_id=5), "invalid"),
        (event("run_archived", archived=True), "invalid"),
        (event("run_unarchived", run_id=""), "invalid"),
        (event("experiment_deleted"), "invalid"),
        (event("tag_deleted", tag_id=""), "invalid"),
        (event("project_deleted", project_id=7), "invalid"),
        (event("run_deleted", run_id="a/b"), "unsafe_name"),
        (event("run_deleted", run_id=".."), "unsafe_name"),
        (event("run_deleted", run_id="."), "unsafe_name"),
        (event("run_deleted", run_id="a*"), "unsafe_name"),
        (event("run_deleted", run_id="a?"), "unsafe_name"),
        (event("run_deleted", run_id="a\0b"), "unsafe_name"),
        (event("run_deleted", run_id="a\n"), "unsafe_name"),
        (event("run_deleted", run_id="r" * 1_023), "unsafe_name"),
        (event("run_deleted", run_id=RUN, blob_keys="abc"), "invalid"),
        (event("run_deleted", run_id=RUN, blob_keys=[f"{RUN}/a", 7]), "invalid"),
        (event("run_deleted", run_id=RUN, blob_keys=[f"{RUN}/a", ""]), "unsafe_name"),
        (event("run_deleted", run_id=RUN, blob_keys=["k" * 1_025]), "unsafe_name"),
        (event("whatever"), "unknown_type"),
        (event("delete_run", run_id=RUN), "unknown_type"),
    ],
)
def test_what_can_never_be_applied_is_a_dead_letter(store: Store, value: bytes | None, reason: str) -> None:
    result = apply(store, batch(event("run_deleted", run_id="before"), value, event("run_deleted", run_id="after")))
    assert result.dead == {reason: 1}
    assert sorted(cleanups(store)) == ["after", "before"], "its neighbours apply, and nothing of it is left"
    letter = letters(store)[1]
    assert (letter.reason, letter.route) == (reason, "control")
    found = store.engine.read(lambda transaction: store.dead_letters.get(transaction, SOURCE, 1))
    assert found is not None
    assert found[1].value == value


def test_a_dead_letter_is_requeued_as_what_it_is(store: Store) -> None:
    """Not as an ingestion record: that would be dead for another reason."""
    apply(store, batch(event("whatever"), b"nope"))

    def rewrite(transaction: Any) -> None:
        """As if this release knew the event that an earlier one had not known."""
        letter, record = store.dead_letters.get(transaction, SOURCE, 0) or pytest.fail("it is gone")
        store.dead_letters.keep(transaction, letter, record._replace(value=event("run_deleted", run_id=RUN)))

    store.engine.transact(rewrite)
    for letter in letters(store).values():
        store.dead_letters.requeue(store.engine, store.meaning_of(letter.route), letter, now=9.0)
    assert sorted(cleanups(store)) == [RUN]
    assert {offset: (letter.reason, letter.requeues) for offset, letter in letters(store).items()} == {
        1: ("invalid", 1)
    }
    with pytest.raises(ValueError, match="'control' cannot be applied as one of 'ingest'"):
        store.dead_letters.requeue(store.engine, store.applier, letters(store)[1], now=9.0)


def test_named_keys(store: Store) -> None:
    named = [f"{RUN}/b", f"{RUN}/a", "elsewhere"]
    apply(store, batch(event("run_deleted", run_id=RUN, blob_keys=named)))
    entry = cleanups(store)[RUN]
    assert (entry.whole, entry.named) == (False, 3)
    assert keys_of(store, RUN) == [f"{RUN}/a", f"{RUN}/b", "elsewhere"]


def test_many_named_keys_in_one_event(store: Store) -> None:
    named = [f"{RUN}/{'k' * 900}/{number:05}" for number in range(2_000)]
    apply(store, batch(event("run_deleted", run_id=RUN, blob_keys=named)))
    assert cleanups(store)[RUN].named == 2_000


def test_deleted_entities_ask_for_cascades(store: Store) -> None:
    values = (
        event("experiment_deleted", experiment_id="e"),
        event("tag_deleted", tag_id="t"),
        event("project_deleted", project_id="p"),
    )
    result = apply(store, batch(*values))
    asked = [("experiment", "e"), ("tag", "t"), ("project", "p")]
    assert result.follow_ups == [CascadeAsked(kind, name) for kind, name in asked]
    states = {(str(entry.kind), entry.uuid): str(entry.state) for entry in store.cascades.each(store.engine)}
    assert states == dict(zip(asked, ["pending", "pending", "held"], strict=True))


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared conformance files are not here: set MATYAN_CONFORMANCE")
@pytest.mark.parametrize(
    ("case", "wanted", "dead"),
    [
        (
            "c01_control_events",
            {
                "01JQ0000000000000000009001": None,
                "01JQ0000000000000000009002": ["01JQ0000000000000000009002/a.png", "b"],
                "01JQ0000000000000000009003": None,
                "not-a-ulid": None,
            },
            {8: "unknown_type", 9: "invalid", 10: "invalid"},
        ),
        (
            "c02_control_errors",
            {
                "01JQ0000000000000000009001": None,
                "01JQ0000000000000000009002": None,
                "01JQ0000000000000000009003": None,
                "01JQ0000000000000000009005": None,
            },
            # The stock worker deletes the keys "a", "b", "c" for offset 5, and the prefix "5/" for offset 6.
            {0: "invalid", 3: "invalid", 5: "invalid", 6: "invalid", 7: "invalid", 8: "invalid"},
        ),
    ],
)
def test_the_peers_cases(store: Store, case: str, wanted: dict[str, list[str] | None], dead: dict[int, str]) -> None:
    content = json.loads((SHARED / "jobs" / f"{case}.json").read_text())
    apply(store, batch(*(raw.encode() for raw in content["raw"])))
    found = {run: None if entry.whole else keys_of(store, run) for run, entry in cleanups(store).items()}
    assert found == wanted
    assert {offset: letter.reason for offset, letter in letters(store).items()} == dead
    calls = {call[1].removesuffix("/") for call in content["blob_calls"] if call[0] == "delete_prefix"}
    assert calls - {"5"} == {run for run, keys in wanted.items() if keys is None}


def delete(run: str) -> bytes:
    return json.dumps({"type": "delete_run", "run_id": run, "timestamp": TIME, "payload": {}}).encode()


def test_a_delete_run_promises_its_event_in_the_same_transaction(store: Store) -> None:
    one = batch(delete(RUN), delete("läuft"), b"bad")
    applier = BatchApplier(store.engine, store.ledger, store.applier)
    result = applier.apply(one)
    events = list(store.outbox.each(store.engine))
    assert sorted(events) == sorted(put for put in result.follow_ups if isinstance(put, OutboxEvent))
    assert {put.run: json.loads(put.event) for put in events} == {
        run: {"type": "run_deleted", "timestamp": "1970-01-01T00:16:40Z", "payload": {"run_id": run}}
        for run in (RUN, "läuft")
    }
    assert applier.apply(one).state is State.DUPLICATE
    assert store.outbox.count(store.engine) == 2, "the cursor keeps it at one event a record"


def test_the_event_has_the_stock_workers_bytes() -> None:
    stock = (
        b'{"type":"run_deleted","timestamp":"2026-11-23T06:39:48.287461Z","payload":{"run_id":"' + RUN.encode() + b'"}}'
    )
    assert make_run_deleted(RUN, 1795415988.287461) == stock


def test_our_event_is_one_of_ours(store: Store) -> None:
    apply(store, batch(make_run_deleted("läuft", 1.5)))
    assert sorted(cleanups(store)) == ["läuft"]
