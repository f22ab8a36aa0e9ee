"""Old tombstones: what keeps late records from raising a deleted run again, no longer needed after some days."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final, NamedTuple

import msgpack

from storage.blob_names import UnsafeName, run_prefix
from storage.cleanup import Cleanup, CleanupState
from storage.clocks import FIRST, SAID, is_impossible
from storage.encoding import pack_key, pack_time, span, unpack_key
from storage.jobs.order import CHUNK, JobOrder, Tally

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from storage.engine import Transaction
    from storage.store import Store

_PAGE: Final = 2_000
_QUESTIONS: Final = 8  # to the blob store at once
_REASONS: Final = ("cleanup not done", "has blobs", "no safe name")


class Tombstone(NamedTuple):
    """That a run was deleted.

    Attributes:
        run: the run's id.
        time: when, Unix seconds; 0 where the value cannot be read or is no number, as stock jobs take it.
        value: its bytes.
    """

    run: str
    time: float
    value: bytes


def each_tombstone(store: Store, *, page: int = _PAGE) -> Iterator[Tombstone]:
    """All tombstones by run id, read in pages so that any number fits in memory."""
    prefix = store.directories.indexes + pack_key("_deleted")
    begin, end = span(prefix)
    while True:
        start = begin
        pairs = store.engine.read(lambda transaction: transaction.get_range(start, end, limit=page).wait())  # noqa: B023
        for key, value in pairs:
            yield Tombstone(unpack_key(key[len(prefix) :])[0], _read_time(value), value)
        if len(pairs) < page:
            return
        begin = pairs[-1][0] + b"\x00"


def _read_time(value: bytes) -> float:
    try:
        time = msgpack.unpackb(value, strict_map_key=False)
    except (ValueError, TypeError, RecursionError, msgpack.UnpackException):
        return 0.0
    return float(time) if isinstance(time, int | float) else 0.0


def clear_tombstones(order: JobOrder, *, older_than_hours: float, has_blobs: Callable[[str], bool]) -> Tally:
    """Delete tombstones that are old enough, of runs whose blobs are gone.

    A time that cannot be, of the future or from before 2020, is a wrong clock's, or ours is wrong: such a tombstone
    ages since a job first saw it. So it goes neither too soon nor never, whichever clock it was; Matyan's bytes stay.

    They are gone where the run's whole cleanup is done. Where there is none (stock workers deleted the run, or the
    entry is old and was deleted) the blob store is asked: without the tombstone nobody would know of orphans.

    Args:
        order: see there; the limit is of tombstones deleted.
        older_than_hours: only those whose time is further back.
        has_blobs: whether a run has any blob; called from several threads.

    Raises:
        LockLost: somebody else has the job now; what was done is done.
        StorageUnavailable: the store did not answer.
    """
    tally = dict.fromkeys(("found", "old", "cleared", *_REASONS), 0)
    cutoff = order.now - older_than_hours * 3600

    def find_old() -> Iterator[Tombstone]:
        odd: list[Tombstone] = []
        for tombstone in order.scan(each_tombstone(order.store)):
            tally["found"] += 1
            if _is_odd(tombstone, order.now):
                odd.append(tombstone)
                if len(odd) == CHUNK:
                    yield from find_aged(odd)
                    odd.clear()
            elif tombstone.time < cutoff:
                tally["old"] += 1
                yield tombstone
        yield from find_aged(odd)

    def find_aged(odd: list[Tombstone]) -> Iterator[Tombstone]:
        """Those of a wrong clock that were seen first so long ago."""
        seen = _note_seen(order, odd)
        for tombstone in odd:
            tally[SAID] = tally.get(SAID, 0) + 1
            if seen[tombstone.run] < cutoff:
                tally["old"] += 1
                yield tombstone
            else:
                order.tell(
                    f"keep {tombstone.run!r}, of {tombstone.time:.0f}: a wrong clock's, it ages since it was seen"
                )

    unlimited = JobOrder(order.store, order.now, keep=order.keep)
    with ThreadPoolExecutor(_QUESTIONS) as pool:
        for some in unlimited.chunks(find_old()):
            kept = _find_kept(order.store, some, lambda runs: dict(zip(runs, pool.map(has_blobs, runs), strict=True)))
            going = [tombstone for tombstone in some if tombstone.run not in kept]
            if order.limit:
                going = going[: order.limit - tally["cleared"]]
            for tombstone in going:
                order.tell(f"{'would clear' if order.dry_run else 'clear'} {tombstone.run!r}, of {tombstone.time:.0f}")
            for run, reason in kept.items():
                order.tell(f"keep {run!r}: {reason}")
                tally[reason] += 1
            tally["cleared"] += len(going) if order.dry_run else _clear(order.store, going)
            if order.limit and tally["cleared"] >= order.limit:
                break
    return tally


def _is_odd(tombstone: Tombstone, now: float) -> bool:
    """Whether its time cannot be. What is no time at all (0, or true as 1) is old, as for the stock job."""
    return is_impossible(tombstone.time, now) or 1.0 < tombstone.time < FIRST


def _note_seen(order: JobOrder, odd: list[Tombstone]) -> dict[str, float]:
    """When jobs first saw these tombstones; now, and noted so, where none has."""
    store = order.store

    def work(transaction: Transaction) -> dict[str, float]:
        keys = {one.run: store.ledger.key("tombstone_seen", one.run) for one in odd}
        reads = [(run, transaction.get(key)) for run, key in keys.items()]
        times = {run: _read_time(value) for run, read in reads if (value := read.wait()) is not None}
        seen = {run: time for run, time in times.items() if not is_impossible(time, order.now)}
        if not order.dry_run:
            for run in keys.keys() - seen.keys():
                transaction.set(keys[run], pack_time(order.now))
        return dict.fromkeys(keys, order.now) | seen

    return store.engine.transact(work) if odd else {}


def _find_kept(store: Store, some: list[Tombstone], ask: Callable[[list[str]], dict[str, bool]]) -> dict[str, str]:
    """The runs whose tombstones must stay, each with its reason."""
    cleanups = store.engine.read(lambda transaction: _read_cleanups(store, transaction, some))
    kept, unknown = {}, []
    for tombstone in some:
        cleanup = cleanups.get(tombstone.run)
        if not _may_go(cleanup):
            kept[tombstone.run] = "cleanup not done"
        elif not _is_safe(tombstone.run):
            kept[tombstone.run] = "no safe name"
        elif cleanup is None or not cleanup.whole:
            unknown.append(tombstone.run)
    return kept | {run: "has blobs" for run, there in ask(unknown).items() if there}


def _may_go(cleanup: Cleanup | None) -> bool:
    return cleanup is None or cleanup.state is CleanupState.DONE


def _is_safe(run: str) -> bool:
    try:
        run_prefix(run)
    except UnsafeName:
        return False
    return True


def _read_cleanups(store: Store, transaction: Transaction, some: list[Tombstone]) -> dict[str, Cleanup]:
    return store.cleanups.several(transaction, [tombstone.run for tombstone in some])


def _clear(store: Store, some: list[Tombstone]) -> int:
    """Delete tombstones that are still what they were, and whose runs nobody has asked a cleanup for since."""

    def work(transaction: Transaction) -> int:
        prefix = store.directories.indexes
        started = [(transaction.get(prefix + pack_key("_deleted", one.run)), one) for one in some]
        cleanups = _read_cleanups(store, transaction, some)
        count = 0
        for read, one in started:
            if read.wait() == one.value and _may_go(cleanups.get(one.run)):
                transaction.clear(prefix + pack_key("_deleted", one.run))
                transaction.clear(store.ledger.key("tombstone_seen", one.run))
                count += 1
        return count

    return store.engine.transact(work) if some else 0
