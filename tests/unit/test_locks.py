"""The lock of jobs: one holder, stock jobs understand it, and nobody deletes a successor's."""

from __future__ import annotations

import struct
import threading
from collections.abc import Iterator
from pathlib import Path

import msgpack
import pytest

from storage.errors import LockHeld, LockLost
from storage.locks import JobLocks
from storage.store import Store, assemble_store
from tests.conformance.vectors import dump
from tests.engines import double_database, open_kind
from tests.fdb_double.fdb.faults import Fault
from tests.unit.matyan import SYSTEM, put, read

JOB = "cleanup_tombstones"
LOCK = ("job_lock", JOB)


class Clock:
    """Unix seconds that pass when told."""

    def __init__(self) -> None:
        self.now = 1_760_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(params=["sqlite", "double"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    with assemble_store(open_kind(str(request.param), tmp_path, timeout=5.0)) as opened:
        yield opened


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def locks(store: Store, clock: Clock) -> JobLocks:
    return store.job_locks(clock=clock)


def test_one_holder_at_a_time(locks: JobLocks) -> None:
    with locks.hold(JOB, ttl=60.0):
        with pytest.raises(LockHeld, match=r"held by .*, process \d+ since 0 s"), locks.hold(JOB, ttl=60.0):
            pytest.fail("two holders")
        with locks.hold("another", ttl=60.0):
            pass
        holder = locks.holder(JOB)
        assert holder is not None
        assert holder.until - holder.since == 60.0
    assert locks.holder(JOB) is None
    with locks.hold(JOB, ttl=60.0):
        pass


def test_leaves_nothing_behind(store: Store, locks: JobLocks) -> None:
    before = dump(store)
    with pytest.raises(RuntimeError, match="of the job"), locks.hold(JOB, ttl=60.0):
        raise RuntimeError("of the job")
    assert dump(store) == before


def test_stock_jobs_read_the_time_alone(store: Store, locks: JobLocks, clock: Clock) -> None:
    with locks.hold(JOB, ttl=60.0):
        key = next(value for (_, key), value in dump(store).items() if b"job_lock" in key)
        assert key == b"\xcb" + struct.pack(">d", clock.now + 60.0)


@pytest.mark.parametrize("value", [b"", b"\xc1", msgpack.packb("abc"), msgpack.packb(None), msgpack.packb([1.9e9])])
def test_what_is_no_time_is_free(store: Store, locks: JobLocks, value: bytes) -> None:
    put(store, SYSTEM, value, *LOCK)
    with locks.hold(JOB, ttl=60.0):
        assert isinstance(read(store, SYSTEM, *LOCK), float)
    assert read(store, SYSTEM, *LOCK) is None


@pytest.mark.parametrize(("ahead", "held"), [(0.5, True), (0.0, False), (-1.0, False)])
def test_a_stock_job_holds_it_until_its_time(
    store: Store, locks: JobLocks, clock: Clock, ahead: float, held: bool
) -> None:
    put(store, SYSTEM, clock.now + ahead, *LOCK)
    if held:
        with pytest.raises(LockHeld, match="a stock job"), locks.hold(JOB, ttl=60.0):
            pytest.fail("two holders")
        assert read(store, SYSTEM, *LOCK) == clock.now + ahead
    else:
        with locks.hold(JOB, ttl=60.0):
            pass
        assert read(store, SYSTEM, *LOCK) is None


@pytest.mark.parametrize("successor", ["ours", "stock"])
def test_one_that_outlives_its_time_leaves_the_successors_alone(
    store: Store, locks: JobLocks, clock: Clock, successor: str
) -> None:
    with locks.hold(JOB, ttl=60.0) as first:
        clock.now += 61.0
        if successor == "ours":
            with locks.hold(JOB, ttl=60.0):
                _lose(first)
                assert read(store, SYSTEM, *LOCK) == clock.now + 60.0
        else:
            put(store, SYSTEM, clock.now + 600.0, *LOCK)
            _lose(first)
            assert read(store, SYSTEM, *LOCK) == clock.now + 600.0


def _lose(lock: object) -> None:
    with pytest.raises(LockLost, match="ran out after 60 s"):
        lock.renew()  # type: ignore[attr-defined]
    lock.release()  # type: ignore[attr-defined]


def test_a_killed_holders_is_free_after_its_time(locks: JobLocks, clock: Clock) -> None:
    manager = locks.hold(JOB, ttl=10.0)
    manager.__enter__()  # and nobody ever leaves
    clock.now += 10.0
    with locks.hold(JOB, ttl=10.0):
        pass


def test_renewed_it_is_held_for_as_long_as_it_takes(store: Store, locks: JobLocks, clock: Clock) -> None:
    with locks.hold(JOB, ttl=60.0) as lock:
        for _ in range(20):
            clock.now += 20.0
            lock.renew()
            with pytest.raises(LockHeld), locks.hold(JOB, ttl=60.0):
                pytest.fail("two holders")
    assert locks.holder(JOB) is None


def test_renewing_is_cheap(store: Store, locks: JobLocks, clock: Clock) -> None:
    with locks.hold(JOB, ttl=60.0) as lock:
        before = read(store, SYSTEM, *LOCK)
        clock.now += 10.0
        lock.renew()
        assert read(store, SYSTEM, *LOCK) == before, "nothing is written before a quarter of its time"


def test_ran_out_but_nobody_took_it(locks: JobLocks, clock: Clock) -> None:
    with locks.hold(JOB, ttl=60.0) as lock:
        clock.now += 100.0
        lock.renew()
        with pytest.raises(LockHeld), locks.hold(JOB, ttl=60.0):
            pytest.fail("two holders")


def test_deleted_by_a_stock_job_it_is_taken_back(store: Store, locks: JobLocks, clock: Clock) -> None:
    with locks.hold(JOB, ttl=60.0) as lock:
        prefix = store.directories.system
        lost = [prefix + key for where, key in dump(store) if where == SYSTEM and b"job_lock" in key]
        store.engine.transact(lambda transaction: transaction.clear(lost[0]))
        clock.now += 20.0
        lock.renew()
        with pytest.raises(LockHeld), locks.hold(JOB, ttl=60.0):
            pytest.fail("two holders")


def test_what_was_just_done_is_not_done_again(locks: JobLocks, clock: Clock) -> None:
    assert locks.last_done(JOB) is None
    with locks.hold(JOB, ttl=60.0, unless_done_since=clock.now - 30.0) as lock:
        clock.now += 5.0
        lock.note_done("nothing to do")
    clock.now += 5.0
    done = locks.last_done(JOB)
    assert done is not None
    assert (done.ended - done.began, done.result) == (5.0, "nothing to do")
    with (
        pytest.raises(LockHeld, match=r"done 5 s ago by .*: nothing to do"),
        locks.hold(JOB, ttl=60.0, unless_done_since=clock.now - 30.0),
    ):
        pytest.fail("done twice")
    with locks.hold(JOB, ttl=60.0, unless_done_since=clock.now - 5.0), pytest.raises(LockHeld):
        locks.hold(JOB, ttl=60.0).__enter__()
    with locks.hold(JOB, ttl=60.0):
        pass


def test_many_try_and_one_has_it(store: Store) -> None:
    locks, inside, most, lock = store.job_locks(), 0, 0, threading.Lock()
    start, got = threading.Barrier(8), []

    def work() -> None:
        nonlocal inside, most
        start.wait()
        for _ in range(5):
            try:
                with locks.hold(JOB, ttl=60.0):
                    with lock:
                        inside += 1
                        most = max(most, inside)
                        got.append(1)
                    with lock:
                        inside -= 1
            except LockHeld:
                continue

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got
    assert most == 1


@pytest.mark.parametrize("committed", [True, False])
def test_a_commit_that_nobody_heard_of(tmp_path: Path, committed: bool) -> None:
    with assemble_store(open_kind("double", tmp_path)) as store:
        locks = store.job_locks()
        faults = double_database(tmp_path).faults.commits
        faults.append(Fault(1021, committed=committed))
        with locks.hold(JOB, ttl=60.0):
            assert locks.holder(JOB) is not None
            faults.append(Fault(1021, committed=committed))
        assert locks.holder(JOB) is None


HOUR, YEARS = 3_600.0, 10 * 365 * 86_400.0


@pytest.mark.parametrize("ahead", [3 * HOUR, YEARS])
def test_a_lock_that_is_held_for_longer_than_any_is_free(
    store: Store, locks: JobLocks, clock: Clock, ahead: float
) -> None:
    put(store, SYSTEM, clock.now + ahead, *LOCK)
    assert locks.holder(JOB) is None
    with locks.hold(JOB, ttl=60.0) as lock:
        assert lock.overrode == ahead
        with pytest.raises(LockHeld), locks.hold(JOB, ttl=60.0):
            pytest.fail("two holders")
    with locks.hold(JOB, ttl=60.0) as lock:
        assert lock.overrode == 0.0


def test_a_lock_of_a_clock_that_is_minutes_ahead_is_held(store: Store, locks: JobLocks, clock: Clock) -> None:
    put(store, SYSTEM, clock.now + 1.5 * HOUR, *LOCK)
    with pytest.raises(LockHeld), locks.hold(JOB, ttl=60.0):
        pytest.fail("two holders")


def test_a_lock_that_was_set_to_live_long_is_held(store: Store, locks: JobLocks, clock: Clock) -> None:
    put(store, SYSTEM, clock.now + 12 * HOUR, *LOCK)
    with pytest.raises(LockHeld), locks.hold(JOB, ttl=12 * HOUR):
        pytest.fail("two holders")


def test_a_holder_of_the_future_that_lives_after_all_sees_its_loss(store: Store, clock: Clock) -> None:
    fast = Clock()
    fast.now += YEARS
    with store.job_locks(clock=fast).hold(JOB, ttl=60.0) as theirs, store.job_locks(clock=clock).hold(JOB, ttl=60.0):
        fast.now += 30
        with pytest.raises(LockLost):
            theirs.renew()


@pytest.mark.parametrize(
    ("ahead", "done"), [(-40.0, False), (-20.0, True), (20.0, True), (40.0, False), (YEARS, False)]
)
def test_a_job_that_was_done_far_ahead_is_done(locks: JobLocks, clock: Clock, ahead: float, *, done: bool) -> None:
    clock.now += ahead
    with locks.hold(JOB, ttl=60.0) as lock:
        lock.note_done("ok")
    clock.now -= ahead
    if done:
        with pytest.raises(LockHeld, match="was done"), locks.hold(JOB, ttl=60.0, unless_done_since=clock.now - 30):
            pytest.fail("it was just done")
    else:
        with locks.hold(JOB, ttl=60.0, unless_done_since=clock.now - 30):
            pass


def test_a_clock_set_back_renews_at_once(locks: JobLocks, clock: Clock) -> None:
    with locks.hold(JOB, ttl=60.0) as lock:
        clock.now -= YEARS
        lock.renew()
        holder = locks.holder(JOB)
        assert holder is not None
        assert holder.until == clock.now + 60.0
