"""Jobs do what they say, change nothing in a dry run, stay within their limit, and leave what moved meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgpack
import pytest

from storage.blobs import Blob, BlobPage, NamePage, Refusal
from storage.cascades import CascadeKind, CascadeState
from storage.cleanup import Cleanup, CleanupState
from storage.encoding import pack_key
from storage.errors import LockLost, Refused
from storage.jobs.old_ledger import forget_old_entries
from storage.jobs.order import JobOrder, Tally, show_tally
from storage.jobs.orphans import sweep_orphans
from storage.jobs.stale_runs import finish_stale_runs
from storage.jobs.stalled import send_stalled_again
from storage.jobs.tombstones import clear_tombstones, each_tombstone
from storage.store import Store, assemble_store
from tests.conformance.vectors import State, dump
from tests.engines import open_kind
from tests.unit.matyan import INDEXES, RUNS, put, read, send

NOW = 1_800_000_000.0
HOUR = 3600.0


@pytest.fixture(params=["sqlite", "double"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    with assemble_store(open_kind(str(request.param), tmp_path, timeout=5.0), clock=lambda: NOW) as opened:
        yield opened


class Told(list[str]):
    """The lines that a job told."""

    def has(self, *parts: str) -> bool:
        return any(all(part in line for part in parts) for line in self)


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def order(store: Store, told: Told) -> JobOrder:
    return JobOrder(store, NOW, tell=told.append)


def everything(store: Store) -> State:
    """Matyan's directories and ours."""
    prefix = store.directories.bridge
    pairs = store.engine.read(lambda transaction: transaction.get_range(prefix, prefix + b"\xff").wait())
    return dump(store) | {("bridge", key): value for key, value in pairs}


def bury(store: Store, run: str, hours: float) -> None:
    """Delete a run, so many hours ago."""
    put(store, INDEXES, NOW - hours * HOUR, "_deleted", run)


def cleanup_of(store: Store, run: str) -> Cleanup | None:
    return store.engine.read(lambda transaction: store.cleanups.get(transaction, run))


def ask(store: Store, run: str, *, now: float = NOW, keys: tuple[str, ...] = ()) -> None:
    store.engine.transact(lambda transaction: store.cleanups.ask(transaction, run, source="event", keys=keys, now=now))


def begin(store: Store, run: str, *, now: float = NOW) -> Cleanup:
    begun = store.engine.transact(
        lambda transaction: store.cleanups.begin(transaction, run, task_id="t", token="w", now=now, lease=30.0)
    )
    assert begun is not None
    return begun


def finish(store: Store, run: str, *, now: float = NOW, keys: tuple[str, ...] = ()) -> None:
    ask(store, run, now=now, keys=keys)
    seen = begin(store, run, now=now).round
    store.engine.transact(lambda transaction: store.cleanups.finish(transaction, run, token="w", seen=seen, now=now))


def hold(store: Store, run: str) -> None:
    ask(store, run)
    store.engine.transact(lambda transaction: store.cleanups.hold(transaction, run, reason="by hand", now=NOW))


class Blobs:
    """A blob store: runs with the times of their blobs, two a page."""

    def __init__(self, **times: list[float]) -> None:
        self.times = times

    def names(self, after: str = "", *, limit: int = 3) -> NamePage:
        left = sorted(name for name in self.times if name > after)
        return NamePage(left[:limit], left[:limit][-1] if left else after, more=len(left) > limit)

    def page(self, prefix: str, after: str = "", *, limit: int = 2) -> BlobPage:
        start = int(after or 0)
        times = self.times.get(prefix.rstrip("/"), [])
        blobs = [Blob(f"{prefix}{number}", modified=time) for number, time in enumerate(times)][start : start + limit]
        return BlobPage(blobs, str(start + limit), more=start + limit < len(times))

    def find(self, keys: Sequence[str]) -> list[Blob]:
        pytest.fail("a job deletes nothing itself")

    def delete(self, blobs: Sequence[Blob]) -> list[Refusal]:
        pytest.fail("a job deletes nothing itself")

    def close(self) -> None:
        pass

    def has_any(self, run: str) -> bool:
        return bool(self.times.get(run))


# -- orphan blobs --------------------------------------------------------------------------------------------------


def sweep(order: JobOrder, blobs: Blobs, *, unknown: bool = False) -> tuple[Tally, list[str]]:
    sent: list[str] = []
    tally = sweep_orphans(order, blobs=blobs, unknown=unknown, grace_hours=24.0, send_cleanup=sent.append)
    return tally, sent


def hex_id(number: int) -> str:
    return f"{number:032x}"


def test_tombstoned_runs_with_blobs_get_cleanups(store: Store, order: JobOrder) -> None:
    for run in ("gone-1", "gone-2", "gone-3", "without-blobs"):
        bury(store, run, 1)
    send(store, "create_run", "lives")
    blobs = Blobs(**{run: [NOW] for run in ("gone-1", "gone-2", "gone-3", "lives", "never-known")})
    tally, sent = sweep(order, blobs)
    assert sent == ["gone-1", "gone-2", "gone-3"]
    assert (tally["folders"], tally["tombstoned"], tally["asked"], tally["unknown"]) == (5, 3, 3, 0)
    asked = list(store.cleanups.each(store.engine))
    assert [(cleanup.run, cleanup.state, cleanup.source) for cleanup in asked] == [
        (run, CleanupState.PENDING, "orphans") for run in sent
    ]


def test_cleanups_that_are_open_or_a_persons_are_left(store: Store, order: JobOrder, told: Told) -> None:
    for run in ("open", "held", "done"):
        bury(store, run, 1)
    ask(store, "open")
    hold(store, "held")
    finish(store, "done")
    tally, sent = sweep(order, Blobs(open=[1.0], held=[1.0], done=[1.0]))
    assert sent == ["done"], "late uploads: it is listed once more"
    assert (tally["cleanup under way"], tally["left to a person"]) == (1, 1)
    assert told.has("keep 'held'", "left to a person")
    again = cleanup_of(store, "done")
    assert again is not None
    assert (again.state, again.round) == (CleanupState.PENDING, 2)


def test_unknown_runs_only_where_asked_for_and_old(store: Store, order: JobOrder, told: Told) -> None:
    old, young, known, half, mine = (hex_id(number) for number in range(5))
    send(store, "create_run", known)
    send(store, "log_metric", half, name="m", value=1.0, step=0)  # no meta, and yet known
    put(store, RUNS, True, mine, "meta", "pending_deletion", "__leaf__")
    before = NOW - 25 * HOUR
    blobs = Blobs(
        **{
            old: [before, before - 5, before - 9],
            young: [before, before, NOW - 23 * HOUR],
            known: [before],
            half: [before],
            mine: [before],
            "backups": [before],
            "bad?name": [before],
        }
    )
    assert sweep(order, blobs)[1] == []
    tally, sent = sweep(order, blobs, unknown=True)
    assert sent == [old]
    assert (tally["unknown"], tally["too young"], tally["no run id"], tally["no safe name"]) == (3, 1, 1, 1)
    assert told.has("keep 'backups'", "no run id")
    assert told.has("keep 'bad?name'", "'?'")


def test_a_run_that_appears_between_look_and_ask_is_left(store: Store, order: JobOrder) -> None:
    run = hex_id(7)
    send(store, "create_run", "another")
    blobs = Blobs(**{run: [1.0]})
    page = blobs.page

    def page_and_appear(prefix: str, after: str = "", *, limit: int = 2) -> BlobPage:
        send(store, "create_run", run)
        return page(prefix, after, limit=limit)

    blobs.page = page_and_appear  # type: ignore[method-assign]
    assert sweep(order, blobs, unknown=True)[1] == []
    assert cleanup_of(store, run) is None


def test_a_store_that_knows_no_run_makes_none_unknown(store: Store, order: JobOrder) -> None:
    with pytest.raises(Refused, match="holds no run at all"):
        sweep(order, Blobs(**{hex_id(1): [1.0]}), unknown=True)
    assert list(store.cleanups.each(store.engine)) == []


def test_sweep_keeps_to_its_limit(store: Store, order: JobOrder) -> None:
    blobs = Blobs(**{f"run-{number}": [1.0] for number in range(9)})
    for run in blobs.times:
        bury(store, run, 1)
    assert sweep(replace(order, limit=2), blobs)[1] == ["run-0", "run-1"]
    assert sweep(replace(order, limit=2), blobs)[1] == ["run-2", "run-3"], "those under way do not count"


# -- tombstones ----------------------------------------------------------------------------------------------------


def clear(order: JobOrder, blobs: Blobs | None = None) -> Tally:
    return clear_tombstones(order, older_than_hours=168, has_blobs=(blobs or Blobs()).has_any)


def buried(store: Store) -> list[str]:
    return [tombstone.run for tombstone in each_tombstone(store, page=2)]


def test_only_tombstones_whose_blobs_are_gone_go(store: Store, order: JobOrder, told: Told) -> None:
    for run in ("done", "open", "held", "without-cleanup", "without-cleanup-but-blobs", "named-keys", "a/b"):
        bury(store, run, 200)
    bury(store, "young", 100)
    finish(store, "done")
    finish(store, "young")
    finish(store, "named-keys", keys=("named-keys/a",))
    ask(store, "open")
    hold(store, "held")
    store.engine.transact(
        lambda tx: store.cleanups.progress(
            tx, "named-keys", token="w", total=(1, 1), position="", gone=["named-keys/a"], now=NOW, lease=1.0
        )
    )
    blobs = Blobs(**{run: [1.0] for run in ("without-cleanup-but-blobs", "named-keys", "done")})
    tally = clear(order, blobs)
    assert buried(store) == ["a/b", "held", "named-keys", "open", "without-cleanup-but-blobs", "young"]
    assert show_tally(tally) == "found 8, old 7, cleared 2, cleanup not done 2, has blobs 2, no safe name 1"
    assert told.has("keep 'open'", "cleanup not done")


def test_a_tombstone_renewed_meanwhile_stays(store: Store, order: JobOrder) -> None:
    for run in ("deleted-again", "asked-again", "as-it-was"):
        bury(store, run, 200)

    def has_blobs(run: str) -> bool:
        if run == "deleted-again":
            bury(store, run, 0)
        if run == "asked-again":
            ask(store, run)
        return False

    tally = clear_tombstones(order, older_than_hours=168, has_blobs=has_blobs)
    assert (buried(store), tally["cleared"]) == (["asked-again", "deleted-again"], 1)


def test_a_blob_store_that_is_away_keeps_all(store: Store, order: JobOrder) -> None:
    bury(store, "run", 200)

    def has_blobs(run: str) -> bool:
        raise ConnectionError("away")

    with pytest.raises(ConnectionError):
        clear_tombstones(order, older_than_hours=168, has_blobs=has_blobs)
    assert buried(store) == ["run"]


@pytest.mark.parametrize("count", [199, 200, 401])
def test_any_number_of_tombstones(store: Store, order: JobOrder, count: int) -> None:
    for number in range(count):
        bury(store, f"run-{number:04}", 200)
    assert clear(replace(order, limit=7))["cleared"] == 7
    assert clear(order)["cleared"] == count - 7
    assert buried(store) == []


YEARS = 10 * 8_766.0  # hours


@pytest.mark.parametrize("hours", [-YEARS, 56 * 8_766.0])
def test_a_tombstone_of_a_wrong_clock_ages_since_it_was_seen(
    store: Store, order: JobOrder, told: Told, hours: float
) -> None:
    bury(store, "odd", hours)
    bury(store, "ahead-by-minutes", -0.5)
    before = everything(store)
    assert show_tally(clear(replace(order, dry_run=True))).startswith("found 2, old 0, cleared 0")
    assert everything(store) == before
    tally = clear(order)
    assert (tally["cleared"], tally["of a wrong clock"]) == (0, 1)
    assert told.has("keep 'odd'", "a wrong clock's")
    assert clear(replace(order, now=NOW + 167 * HOUR))["cleared"] == 0
    assert clear(replace(order, now=NOW + 169 * HOUR))["cleared"] == 2
    assert buried(store) == []
    assert "tombstone_seen" not in str(everything(store).keys())


def test_a_job_whose_own_clock_is_wrong_clears_nothing_too_soon(store: Store, order: JobOrder) -> None:
    bury(store, "young", 1)
    assert clear(replace(order, now=NOW - YEARS * HOUR))["cleared"] == 0
    assert clear(order)["cleared"] == 0, "the clock was set right: it is an hour old"
    assert clear(replace(order, now=NOW + 168 * HOUR))["cleared"] == 1


# -- stalled -------------------------------------------------------------------------------------------------------


def send_again(order: JobOrder) -> tuple[Tally, list[str], list[tuple[str, str]]]:
    cleanups: list[str] = []
    cascades: list[tuple[str, str]] = []
    tally = send_stalled_again(
        order,
        stall_seconds=120.0,
        lease=90.0,
        send_cleanup=cleanups.append,
        send_cascade=lambda kind, uuid: cascades.append((kind, uuid)),
    )
    return tally, cleanups, cascades


def test_what_has_not_moved_is_sent_again_once_in_a_while(store: Store, order: JobOrder) -> None:
    ask(store, "lost", now=NOW - 120)
    ask(store, "young", now=NOW - 119)
    finish(store, "done", now=NOW - 500)
    hold(store, "held")
    ask(store, "dead-worker", now=NOW - 500)
    begin(store, "dead-worker", now=NOW - 500)
    ask(store, "at-work", now=NOW - 500)
    begin(store, "at-work", now=NOW - 10)
    for kind, name, age in (("tag", "old", 121), ("experiment", "new", 5), ("project", "held", 999)):
        store.engine.transact(lambda tx: store.cascades.ask(tx, kind, name, NOW - age))  # noqa: B023 - run at once
    tally, cleanups, cascades = send_again(order)
    assert cleanups == ["lost", "dead-worker"]
    assert cascades == [("tag", "old")]
    assert (tally["open"], tally["cleanups"], tally["cascades"]) == (6, 2, 1)
    _, cleanups, cascades = send_again(replace(order, now=NOW + 60))
    assert (cleanups, cascades) == (["young", "dead-worker"], [])
    assert "lost" in send_again(replace(order, now=NOW + 120))[1]


@pytest.mark.parametrize("hours", [2, YEARS])
def test_what_a_clock_of_the_future_wrote_is_sent_again_once_in_a_while(
    store: Store, order: JobOrder, told: Told, hours: float
) -> None:
    ahead = NOW + hours * HOUR
    ask(store, "pending", now=ahead)
    ask(store, "running")
    begin(store, "running", now=ahead)
    store.engine.transact(lambda transaction: store.cascades.ask(transaction, "tag", "t", ahead))
    tally, cleanups, cascades = send_again(order)
    assert (sorted(cleanups), cascades, tally["of a wrong clock"]) == (["pending", "running"], [("tag", "t")], 3)
    assert told.has("the cleanup of 'pending'", "its times lie")
    assert send_again(replace(order, now=NOW + 100))[1:] == ([], [])
    assert sorted(send_again(replace(order, now=NOW + 130))[1]) == ["pending", "running"]


def test_clocks_that_differ_by_minutes_are_believed(store: Store, order: JobOrder) -> None:
    ask(store, "pending", now=NOW + 1_800)
    assert send_again(order)[1] == []
    assert send_again(replace(order, now=NOW + 2_000))[1] == ["pending"]


def test_what_moves_between_look_and_send_is_left(store: Store, order: JobOrder) -> None:
    ask(store, "run", now=NOW - 500)

    def pick_up() -> None:
        begin(store, "run")

    assert send_again(replace(order, keep=pick_up))[1] == []


# -- old ledger entries --------------------------------------------------------------------------------------------


def test_only_what_was_done_long_ago_is_forgotten(store: Store, order: JobOrder) -> None:
    old = NOW - 721 * HOUR
    finish(store, "old", now=old)
    finish(store, "newer", now=NOW - 719 * HOUR)
    hold(store, "held")
    ask(store, "open", now=old)
    for name, state in (("old", CascadeState.DONE), ("failed", CascadeState.FAILED)):

        def work(transaction: Any) -> None:
            asked = store.cascades.ask(transaction, "tag", name, old)  # noqa: B023 - run at once
            store.cascades.write(transaction, asked, replace(asked, state=state))  # noqa: B023

        store.engine.transact(work)
    tally = forget_old_entries(order, older_than_hours=720)
    assert tally == {"cleanups": 1, "cascades": 1}
    assert [cleanup.run for cleanup in store.cleanups.each(store.engine)] == ["held", "newer", "open"]
    assert [cascade.uuid for cascade in store.cascades.each(store.engine)] == ["failed"]


# -- stale runs ----------------------------------------------------------------------------------------------------


def test_what_was_done_in_the_future_is_forgotten_as_if_done_now(store: Store, order: JobOrder, told: Told) -> None:
    finish(store, "ahead", now=NOW + YEARS * HOUR)
    before = everything(store)
    forget_old_entries(replace(order, dry_run=True), older_than_hours=720)
    assert everything(store) == before
    assert forget_old_entries(order, older_than_hours=720) == {"cleanups": 0, "cascades": 0, "of a wrong clock": 1}
    assert told.has("keep the cleanup of 'ahead'", "its age counts from now on")
    assert forget_old_entries(replace(order, now=NOW + 719 * HOUR), older_than_hours=720)["cleanups"] == 0
    assert forget_old_entries(replace(order, now=NOW + 721 * HOUR), older_than_hours=720)["cleanups"] == 1


def test_stale_runs_are_finished_and_nothing_else(store: Store, order: JobOrder) -> None:
    send(store, "create_run", "old", time="2026-01-01T00:00:00Z")
    send(store, "create_run", "ended", time="2026-01-01T00:00:00Z")
    send(store, "finish_run", "ended", time="2026-01-01T01:00:00Z")
    send(store, "create_run", "young", time="2027-01-15T00:00:00Z")
    ended = read(store, RUNS, "ended", "meta", "finalized_at", "__leaf__")
    tally = finish_stale_runs(order, older_than_hours=24)
    assert tally == {"active": 2, "finished": 1}
    assert read(store, RUNS, "old", "meta", "active", "__leaf__") is False
    assert read(store, RUNS, "old", "meta", "finalized_at", "__leaf__") == NOW
    assert read(store, RUNS, "ended", "meta", "finalized_at", "__leaf__") == ended
    assert read(store, RUNS, "young", "meta", "active", "__leaf__") is True


def test_a_run_that_ends_meanwhile_keeps_its_end(store: Store, order: JobOrder) -> None:
    send(store, "create_run", "run")
    ending = replace(order, keep=lambda: send(store, "finish_run", "run", time="2026-01-02T00:00:00Z"))
    assert finish_stale_runs(ending, older_than_hours=24)["finished"] == 0
    assert read(store, RUNS, "run", "meta", "finalized_at", "__leaf__") == 1_767_312_000.0


def test_a_run_deleted_meanwhile_is_not_raised(store: Store, order: JobOrder) -> None:
    send(store, "create_run", "run")
    deleting = replace(order, keep=lambda: send(store, "delete_run", "run"))
    assert finish_stale_runs(deleting, older_than_hours=24)["finished"] == 0
    assert [key for where, key in dump(store) if where == RUNS] == []


# -- all -----------------------------------------------------------------------------------------------------------

JOBS: dict[str, Callable[[JobOrder], Tally]] = {
    "orphan-blobs": lambda order: sweep(order, Blobs(buried=[1.0], second=[1.0]))[0],
    "tombstones": clear,
    "stalled-cleanups": lambda order: send_again(order)[0],
    "old-ledger": lambda order: forget_old_entries(order, older_than_hours=720),
    "finish-stale": lambda order: finish_stale_runs(order, older_than_hours=24),
}


@pytest.fixture
def full(store: Store) -> Store:
    """A store in which every job has two things to do."""
    for run in ("buried", "second"):
        bury(store, run, 200)
        ask(store, f"{run}-open", now=NOW - 500)
        finish(store, f"{run}-done", now=NOW - 721 * HOUR)
        send(store, "create_run", f"{run}-stale")
    return store


@pytest.mark.parametrize("job", JOBS)
def test_dry_run_tells_what_would_be_done_and_changes_nothing(
    job: str, full: Store, order: JobOrder, told: Told
) -> None:
    before = everything(full)
    dry = JOBS[job](replace(order, dry_run=True))
    assert everything(full) == before
    assert len([line for line in told if line.startswith("would ")]) == 2
    assert JOBS[job](order) == dry, "the same numbers as in earnest"
    assert everything(full) != before


@pytest.mark.parametrize("job", JOBS)
def test_limit(job: str, full: Store, order: JobOrder, told: Told) -> None:
    JOBS[job](replace(order, limit=1))
    assert len([line for line in told if not line.startswith("keep")]) == 1
    JOBS[job](replace(order, limit=1))
    assert len([line for line in told if not line.startswith("keep")]) == 2


@pytest.mark.parametrize("job", JOBS)
def test_a_lost_lock_ends_it(job: str, full: Store, order: JobOrder) -> None:
    def lose() -> None:
        raise LockLost("somebody else has it")

    before = everything(full)
    with pytest.raises(LockLost):
        JOBS[job](replace(order, keep=lose))
    assert everything(full) == before


def test_the_lock_is_kept_while_nothing_is_found(store: Store) -> None:
    count = 1_200
    runs = [f"run-{number:05d}" for number in range(count)]
    kept: list[int] = []
    order = JobOrder(store, NOW, keep=lambda: kept.append(1))

    def ask_for_all(transaction: Any) -> None:
        for run in runs:
            store.cleanups.ask(transaction, run, source="event", now=NOW)
            store.cascades.ask(transaction, "tag", run, NOW)

    def finish_all(transaction: Any) -> None:
        for run in runs:
            store.cleanups.begin(transaction, run, task_id="t", token="token", now=NOW, lease=9.0)
            store.cleanups.finish(transaction, run, token="token", seen=1, now=NOW)
            entry = store.cascades.get(transaction, CascadeKind.TAG, run)
            assert entry is not None
            store.cascades.write(transaction, entry, replace(entry, state=CascadeState.DONE))

    def bury_all(transaction: Any) -> None:
        for run in runs:
            key = store.directories.indexes + pack_key("_deleted", run)
            transaction.set(key, msgpack.packb(NOW - HOUR))

    store.engine.transact(ask_for_all)
    sent = send_stalled_again(order, stall_seconds=60.0, lease=90.0, send_cleanup=kept.append, send_cascade=kept.append)  # type: ignore[arg-type]
    assert (sent["open"], sent["cleanups"], sent["cascades"]) == (2 * count, 0, 0)
    assert kept == [1, 1, 1, 1], "twice among the cascades, twice among the cleanups"
    kept.clear()
    store.engine.transact(finish_all)
    assert forget_old_entries(order, older_than_hours=1.0) == {"cleanups": 0, "cascades": 0}
    assert kept == [1, 1, 1, 1]
    kept.clear()
    store.engine.transact(bury_all)
    assert clear_tombstones(order, older_than_hours=48.0, has_blobs=lambda _: False)["found"] == count
    assert kept == [1, 1]
