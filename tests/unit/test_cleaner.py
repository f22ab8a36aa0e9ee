"""What one execution of a cleanup does, whatever the blob store, the truth and other executions do."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import fdb.tuple
import pytest

from storage.batch import Record
from storage.cleaner import Cleaned, Cleaner, Terms, choose_wait
from storage.cleanup import Cleanup, CleanupState
from storage.errors import BlobsRefused, StorageUnavailable
from storage.store import Store, assemble_store
from tests.conformance.vectors import apply
from tests.engines import double_database, open_kind
from tests.memory_blobs import MemoryBlobs

RUN = "0123456789abcdef0123456789abcdef"
TERMS = Terms(tries=3, backoff=1.0, requests=2, slice=60.0, lease=30.0, foreign_keys=False)


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(params=["sqlite", "double"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    with assemble_store(open_kind(str(request.param), tmp_path, timeout=5.0)) as opened:
        yield opened


class Desk:
    """A store, blobs, and a cleaner of them."""

    def __init__(self, store: Store, *keys: str) -> None:
        self.store = store
        self.blobs = MemoryBlobs(*keys)
        self.clock = Clock()

    def send(self, kind: str, run: str = RUN, **payload: Any) -> None:
        envelope = {"type": kind, "run_id": run, "timestamp": "2026-01-01T00:00:00Z", "payload": payload}
        outcomes = apply(self.store, [Record(0, 0, run.encode(), json.dumps(envelope).encode())], 1)
        assert outcomes[0].kind == "applied"

    def ask(self, run: str = RUN, *keys: str) -> None:
        self.store.engine.transact(
            lambda transaction: self.store.cleanups.ask(transaction, run, source="event", keys=keys, now=self.clock())
        )

    def change(self, name: str, **given: Any) -> Any:
        method = getattr(self.store.cleanups, name)
        return self.store.engine.transact(lambda transaction: method(transaction, RUN, **given))

    def clean(self, run: str = RUN, task: str = "task", terms: Terms = TERMS) -> Cleaned:
        return Cleaner(self.store, self.blobs, terms, clock=self.clock).clean(run, task_id=task)

    def entry(self, run: str = RUN) -> Cleanup:
        found = self.store.engine.read(lambda transaction: self.store.cleanups.get(transaction, run))
        assert found is not None
        return found

    def left(self) -> list[str]:
        return sorted(self.blobs.objects)


def many(count: int, run: str = RUN) -> list[str]:
    return [f"{run}/seq/{number:06}.png" for number in range(count)]


NEIGHBOURS = [f"{RUN}0/a", f"{RUN[:-1]}/a", "other/a", RUN]


def test_a_deleted_runs_blobs_go_and_its_neighbours_stay(store: Store) -> None:
    desk = Desk(store, *many(2_500), *NEIGHBOURS)
    desk.send("delete_run")
    desk.ask()
    cleaned = desk.clean()
    assert (cleaned.worked, cleaned.again, cleaned.objects, cleaned.bytes) == (True, None, 2_500, 10_000)
    assert desk.left() == sorted(NEIGHBOURS)
    entry = desk.entry()
    assert (entry.state, entry.objects, entry.bytes, entry.attempts) == (CleanupState.DONE, 2_500, 10_000, 0)
    # Requests are in flight together, so they may come in any order.
    assert sorted(count for what, _, count in desk.blobs.calls if what == "delete") == [500, 1_000, 1_000]
    assert desk.clean().worked is False, "once is enough"


def test_an_unknown_runs_blobs_go(store: Store) -> None:
    desk = Desk(store, *many(3))
    desk.ask()
    assert desk.clean().entry == desk.entry()
    assert (desk.entry().state, desk.left()) == (CleanupState.DONE, [])


def test_a_repeated_event_takes_late_uploads_too(store: Store) -> None:
    desk = Desk(store, *many(3))
    desk.ask()
    desk.clean()
    desk.blobs.objects[f"{RUN}/late"] = b"late"
    desk.ask()
    desk.clean()
    assert (desk.entry().state, desk.left(), desk.entry().objects) == (CleanupState.DONE, [], 4)


@pytest.mark.parametrize("kind", ["create_run", "log_metric"])
def test_a_living_runs_blobs_stay_until_it_is_deleted(store: Store, kind: str) -> None:
    desk = Desk(store, *many(3))
    desk.send(kind, name="loss", value=0.5)
    desk.ask()
    assert desk.clean().again is None
    entry = desk.entry()
    assert (entry.state, len(desk.left())) == (CleanupState.HELD, 3)
    assert entry.error.startswith("the run lives")
    desk.send("delete_run")
    assert desk.clean().worked is False, "nothing opens it but an event or a person"
    desk.ask()
    desk.clean()
    assert (desk.entry().state, desk.left()) == (CleanupState.DONE, [])


def test_pending_deletion_is_enough(store: Store) -> None:
    desk = Desk(store, *many(3))
    desk.send("create_run")
    key = store.directories.runs + _pack(RUN, "meta", "pending_deletion", "__leaf__")
    store.engine.transact(lambda transaction: transaction.set(key, b"\xc2"))
    desk.ask()
    desk.clean()
    assert desk.entry().state is CleanupState.HELD, "false is not true"
    store.engine.transact(lambda transaction: transaction.set(key, b"\xc3"))
    desk.ask()
    desk.clean()
    assert (desk.entry().state, desk.left()) == (CleanupState.DONE, [])


def _pack(*elements: Any) -> bytes:
    packed: bytes = fdb.tuple.pack(elements)
    return packed


def test_a_force_works_once(store: Store) -> None:
    desk = Desk(store, *many(3))
    desk.send("create_run")
    desk.ask()
    desk.clean()
    desk.change("requeue", now=desk.clock(), force=True)
    desk.clean()
    assert (desk.entry().state, desk.entry().forced, desk.left()) == (CleanupState.DONE, False, [])
    desk.blobs.objects = dict.fromkeys(many(3), b"blob")
    desk.ask()
    desk.clean()
    assert (desk.entry().state, len(desk.left())) == (CleanupState.HELD, 3)


def test_the_truth_is_looked_at_before_each_page(store: Store) -> None:
    """A run that comes to life in the middle keeps what it has from then on."""
    desk = Desk(store, *many(6_000))
    desk.ask()

    def come_to_life(blobs: Any) -> None:
        if blobs[0].key >= f"{RUN}/seq/001000":
            desk.blobs.before_delete = lambda _: None
            desk.send("create_run")

    desk.blobs.before_delete = come_to_life
    desk.clean(terms=replace(TERMS, requests=1))
    entry = desk.entry()
    assert (entry.state, entry.objects, len(desk.left())) == (CleanupState.HELD, 2_000, 4_000)


def test_refused_keys_do_not_keep_the_others(store: Store) -> None:
    desk = Desk(store, *many(2_500))
    bad = [f"{RUN}/seq/000007.png", f"{RUN}/seq/002001.png"]
    desk.blobs.refused = dict.fromkeys(bad, ("AccessDenied", False))
    desk.ask()
    for number in range(TERMS.tries):
        cleaned = desk.clean()
        assert desk.left() == bad
        assert f"AccessDenied: no (key {bad[1]!r}), and 1 others" == desk.entry().error
        if number < TERMS.tries - 1:
            assert (desk.entry().state, cleaned.again is not None) == (CleanupState.PENDING, True)
            assert desk.clean().worked is False, "not due yet"
            desk.clock.now += 10
    assert (desk.entry().state, cleaned.again) == (CleanupState.FAILED, None)
    desk.blobs.refused = {}
    desk.change("requeue", now=desk.clock())
    desk.clean()
    assert (desk.entry().state, desk.left(), desk.entry().error) == (CleanupState.DONE, [], "")


def test_what_passes_is_tried_again_at_once(store: Store) -> None:
    desk = Desk(store, *many(5))
    desk.blobs.refused = {f"{RUN}/seq/000003.png": ("SlowDown", True)}
    desk.blobs.away = 2
    desk.ask()
    desk.clean()
    assert (desk.entry().state, desk.left()) == (CleanupState.DONE, [])


def test_a_store_that_is_away_is_tried_again_later_and_not_for_ever(store: Store) -> None:
    desk = Desk(store, *many(5))
    desk.blobs.away = 10_000
    desk.ask()
    hurried = replace(TERMS, slice=0.5)  # the patience within one try ends with its time
    waits = []
    for _ in range(TERMS.tries):
        cleaned = desk.clean(terms=hurried)
        waits.append(cleaned.again)
        desk.clock.now += 60
    assert waits[0] is not None
    assert 0.5 <= waits[0] <= 1.0
    assert waits[1] is not None
    assert 1.0 <= waits[1] <= 2.0
    entry = desk.entry()
    assert (entry.state, entry.error, waits[2]) == (CleanupState.FAILED, "the server does not answer", None)
    assert desk.left() == many(5)


def test_a_bucket_that_is_not_there_is_said(store: Store) -> None:
    desk = Desk(store)

    def page(*_: Any, **__: Any) -> Any:
        msg = "NoSuchBucket: there is no bucket 'x': make it, or look at S3_BUCKET"
        raise BlobsRefused(msg)

    desk.blobs.page = page  # type: ignore[method-assign]
    desk.ask()
    desk.clean(terms=replace(TERMS, tries=1))
    assert (desk.entry().state, desk.entry().error[:12]) == (CleanupState.FAILED, "NoSuchBucket")


def test_the_unforeseen_counts_as_a_try_and_is_seen(store: Store) -> None:
    desk = Desk(store, *many(5))

    def explode(blobs: Any) -> None:
        del blobs
        msg = "a bug"
        raise ZeroDivisionError(msg)

    desk.blobs.before_delete = explode
    desk.ask()
    for _ in range(TERMS.tries):
        desk.clean()
        desk.clock.now += 60
    assert desk.entry().state is CleanupState.FAILED
    assert "ZeroDivisionError: a bug" in desk.entry().error


def test_a_store_that_lies_is_not_believed_for_ever(store: Store) -> None:
    desk = Desk(store, *many(5))
    desk.blobs.immortal = True
    desk.ask()
    desk.clean(terms=replace(TERMS, tries=1))
    assert (desk.entry().state, "still there after 5 passes" in desk.entry().error) == (CleanupState.FAILED, True)


def test_passes_are_counted_over_slices(store: Store) -> None:
    """Also where each pass takes several slices, a store that lies ends in failed."""
    desk = Desk(store, *many(3_000))
    desk.blobs.immortal = True
    desk.ask()
    for _ in range(100):
        if desk.entry().state is CleanupState.FAILED:
            break
        clean_a_page(desk, replace(TERMS, tries=1))
    assert "still there after 5 passes" in desk.entry().error


def clean_a_page(desk: Desk, terms: Terms = TERMS) -> Cleaned:
    """An execution whose time is up after its first page."""
    real = time.monotonic
    over = False

    def late(_: Any) -> None:
        nonlocal over
        over = True

    desk.blobs.before_delete = late
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "monotonic", lambda: real() + (1e6 if over else 0.0))
        cleaned = desk.clean(terms=replace(terms, requests=1))
    desk.blobs.before_delete = lambda _: None
    return cleaned


def test_a_long_one_goes_on_as_another_task_where_it_was(store: Store) -> None:
    desk = Desk(store, *many(3_500))
    desk.blobs.refused = {f"{RUN}/seq/000007.png": ("AccessDenied", False)}
    desk.ask()
    first = clean_a_page(desk)
    assert first.again == 0.0
    entry = desk.entry()
    assert (entry.state, entry.attempts, entry.refused) == (CleanupState.PENDING, 0, 1)
    assert entry.position >= f"{RUN}/seq/000999.png"
    assert 999 <= entry.objects < 3_499
    calls = len(desk.blobs.calls)
    desk.clean()
    assert ("delete", f"{RUN}/seq/000000.png", 1_000) not in desk.blobs.calls[calls:]
    assert desk.entry().error.startswith("AccessDenied"), "what the first slice could not delete is not forgotten"
    assert desk.left() == [f"{RUN}/seq/000007.png"]
    assert desk.entry().objects == 3_499


def test_a_worker_that_died_is_taken_over_after_its_lease(store: Store) -> None:
    desk = Desk(store, *many(5))
    desk.ask()
    desk.change("begin", task_id="dead", token="dead", now=desk.clock(), lease=30.0)
    assert desk.clean(task="other") == Cleaned(desk.entry(), False, None)
    assert desk.clean(task="dead").again == 30.0, "its own task, come back from Redis, waits for the lease to end"
    desk.clock.now += 30
    desk.clean(task="dead")
    assert (desk.entry().state, desk.left()) == (CleanupState.DONE, [])


def test_workers_that_die_again_and_again_end_in_failed(store: Store) -> None:
    desk = Desk(store, *many(5))
    desk.ask()
    for number in range(TERMS.tries):
        assert desk.change("begin", task_id="", token=f"dead-{number}", now=desk.clock(), lease=30.0) is not None
        desk.clock.now += 30
    desk.blobs.before_delete = lambda _: pytest.fail("it has had its tries")
    assert desk.clean().again is None
    assert desk.entry().state is CleanupState.FAILED
    assert "workers died" in desk.entry().error


@pytest.mark.parametrize("how", ["taken over", "held", "purged"])
def test_an_execution_stops_when_the_cleanup_is_not_its_own_any_more(store: Store, how: str) -> None:
    desk = Desk(store, *many(4_000))
    desk.ask()

    def interfere(blobs: Any) -> None:
        del blobs
        desk.blobs.before_delete = lambda _: None
        if how == "held":
            desk.change("hold", reason="not today", now=desk.clock())
        elif how == "purged":
            desk.change("purge")
        else:
            desk.clock.now += 31
            assert desk.change("begin", task_id="b", token="b", now=desk.clock(), lease=30.0) is not None

    desk.blobs.before_delete = interfere
    cleaned = desk.clean(terms=replace(TERMS, requests=1))
    assert cleaned.again is None
    assert len(desk.left()) == 3_000
    if how == "held":
        assert (desk.entry().state, desk.entry().error) == (CleanupState.HELD, "not today")
    elif how == "purged":
        assert cleaned.entry is None
    else:
        assert desk.entry().token == "b"


def test_an_event_meanwhile_makes_it_list_once_more(store: Store) -> None:
    desk = Desk(store, *many(5))
    desk.ask()
    desk.blobs.before_delete = lambda _: desk.ask()
    assert desk.clean().again == 0.0
    assert desk.entry().state is CleanupState.PENDING
    desk.blobs.before_delete = lambda _: None
    desk.clean()
    assert desk.entry().state is CleanupState.DONE


def test_named_keys_and_no_others(store: Store) -> None:
    keys = many(2_300)
    desk = Desk(store, *keys, f"{RUN}/kept", "elsewhere")
    desk.ask(RUN, *keys)
    desk.clean()
    assert desk.left() == sorted([f"{RUN}/kept", "elsewhere"])
    assert (desk.entry().state, desk.entry().named) == (CleanupState.DONE, 0)


@pytest.mark.parametrize("permission", ["none", "setting", "force"])
def test_keys_outside_of_the_prefix_only_with_permission(store: Store, permission: str) -> None:
    foreign = ["elsewhere/a", f"{RUN}/../other/a"]
    desk = Desk(store, f"{RUN}/a", *foreign)
    desk.ask(RUN, f"{RUN}/a", *foreign)
    desk.clean(terms=replace(TERMS, foreign_keys=permission == "setting"))
    if permission != "setting":
        entry = desk.entry()
        assert (entry.state, entry.named, desk.left()) == (CleanupState.HELD, 2, sorted(foreign))
        assert "outside of the run's prefix" in entry.error
    if permission == "force":
        desk.change("requeue", now=desk.clock(), force=True)
        desk.clean()
    if permission != "none":
        assert (desk.entry().state, desk.left()) == (CleanupState.DONE, [])


def test_named_keys_that_are_refused_fail_it(store: Store) -> None:
    desk = Desk(store, f"{RUN}/a", f"{RUN}/b")
    desk.blobs.refused = {f"{RUN}/b": ("AccessDenied", False)}
    desk.ask(RUN, f"{RUN}/a", f"{RUN}/b")
    desk.clean(terms=replace(TERMS, tries=1))
    entry = desk.entry()
    assert (entry.state, entry.named, desk.left()) == (CleanupState.FAILED, 1, [f"{RUN}/b"])
    assert entry.error == f"AccessDenied: no (key '{RUN}/b')"


def test_an_unsafe_run_id_reaches_no_store_even_from_the_ledger(store: Store) -> None:
    """As if a broken release had written it."""
    desk = Desk(store, "a/b", "c/d")
    desk.ask("x")

    def spoil(transaction: Any) -> None:
        key = store.ledger.key("cleanup", "x")
        transaction.set(store.ledger.key("cleanup", ""), transaction.get(key).wait())

    store.engine.transact(spoil)
    desk.clean("", terms=replace(TERMS, tries=1))
    assert (desk.entry("").state, desk.blobs.calls) == (CleanupState.FAILED, [])
    assert "the run id is empty" in desk.entry("").error


def test_a_store_that_is_away_raises(tmp_path: Path) -> None:
    with assemble_store(open_kind("double", tmp_path, timeout=1.0)) as store:
        desk = Desk(store, *many(5))
        desk.ask()
        faults = double_database(tmp_path).faults
        desk.blobs.before_delete = lambda _: faults.leave()
        with pytest.raises(StorageUnavailable):
            desk.clean()
        faults.come_back()
        desk.blobs.before_delete = lambda _: None
        assert desk.entry().state is CleanupState.RUNNING
        desk.clock.now += TERMS.lease
        desk.clean()
        assert (desk.entry().state, desk.left()) == (CleanupState.DONE, [])


def test_waits_double_with_jitter_up_to_a_minute() -> None:
    assert [choose_wait(number, 1.0, spread=1.0) for number in range(1, 9)] == [1, 2, 4, 8, 16, 32, 60, 60]
    assert choose_wait(3, 1.0, spread=0.0) == 2.0
    assert all(2.0 <= choose_wait(3, 1.0) <= 4.0 for _ in range(100))
