"""Orphans: blobs that are still there though their run is deleted, or was never known.

The top level of the bucket is walked page by page, and each page's runs are looked up in the store together: as many
requests as there are runs with blobs, divided by a thousand, rather than one for each tombstone there ever was. What is
found becomes a cleanup in the ledger, which looks again before it deletes anything.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple

from storage.blob_names import UnsafeName, run_prefix
from storage.cleanup import Cleanup, CleanupState
from storage.encoding import pack_key, span
from storage.errors import Refused
from storage.handlers.run import RunKeys
from storage.listing import each_page

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from storage.blobs import BlobStore
    from storage.engine import Transaction
    from storage.jobs.order import JobOrder, Tally
    from storage.store import Store

# What nobody has heard of is only a run's where it looks like one: clients draw 24 or 32 hexadecimal digits, uuids or
# ULIDs. Anything else in the bucket is somebody's own.
_RUN_ID: Final = re.compile(
    r"[0-9a-f]{24}|[0-9a-f]{32}|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9A-HJKMNP-TV-Z]{26}"
)


class _Standing(NamedTuple):
    """What the store says about a run that has blobs and is not known to live."""

    run: str
    kind: str  # tombstoned or unknown
    cleanup: Cleanup | None


def sweep_orphans(
    order: JobOrder,
    *,
    blobs: BlobStore,
    unknown: bool,
    grace_hours: float,
    send_cleanup: Callable[[str], None],
) -> Tally:
    """Ask for cleanups of all runs that are deleted, or were never known, and have blobs.

    Runs whose cleanup is open are left to it, and runs whose cleanup has failed or is held to a person.

    Args:
        order: see there; the limit is of cleanups asked for.
        blobs: the blob store.
        unknown: also runs that were never known: no tombstone, no data, no index entry; an id that looks like a run's.
        grace_hours: of those, only where the newest blob is older, since blobs come before the run's first record.
        send_cleanup: sends the task of a run's cleanup.

    Raises:
        LockLost: somebody else has the job now; what was done is done.
        StorageUnavailable: the store did not answer.
        BlobError: the blob store did not, or refused.
        Refused: unknown runs are wanted of a store that knows none: it is the wrong one, or was just made.
    """
    if unknown:
        _check_store(order.store)
    kept = ("no safe name", "no run id", "too young", "cleanup under way", "left to a person")
    tally = dict.fromkeys(("folders", "tombstoned", "unknown", "asked", *kept), 0)
    cutoff = order.now - grace_hours * 3600

    def find() -> Iterator[str]:
        for page in each_page(blobs.names, "the bucket"):
            order.keep()
            tally["folders"] += len(page.names)
            for standing in _look_up(order.store, _take_safe(page.names, order, tally), unknown=unknown):
                tally[standing.kind] += 1
                reason = _find_reason(standing) or (
                    "too young" if standing.kind == "unknown" and _is_young(order, blobs, standing.run, cutoff) else ""
                )
                if reason:
                    tally[reason] += 1
                    order.tell(f"keep {standing.run!r} ({standing.kind}): {reason}")
                else:
                    yield standing.run

    for some in order.chunks(find()):
        asked = some if order.dry_run else _ask(order, some, unknown=unknown)
        tally["asked"] += len(asked)
        for run in asked:
            order.tell(f"{'would ask' if order.dry_run else 'ask'} for the cleanup of {run!r}")
            if not order.dry_run:
                send_cleanup(run)
    return tally


def _check_store(store: Store) -> None:
    """Refuse where every run would be unknown."""
    prefix = store.directories.indexes + pack_key("created_at")
    if not store.engine.read(lambda transaction: transaction.get_range(*span(prefix), limit=1).wait()):
        msg = (
            f"{store.engine.url} holds no run at all, so every run in the bucket would be unknown: "
            "look at STORAGE_URL, or leave --unknown (ORPHAN_UNKNOWN) off"
        )
        raise Refused(msg)


def _take_safe(page: Iterable[str], order: JobOrder, tally: Tally) -> list[str]:
    safe = []
    for run in page:
        try:
            run_prefix(run)
        except UnsafeName as error:
            tally["no safe name"] += 1
            order.tell(f"keep {run!r}: {error}")
        else:
            safe.append(run)
    return safe


def _find_reason(standing: _Standing) -> str:
    """Why a run's blobs are not this job's; empty if they are."""
    if standing.kind == "unknown" and not _RUN_ID.fullmatch(standing.run):
        return "no run id"
    if standing.cleanup is None or standing.cleanup.state is CleanupState.DONE:
        return ""
    return "cleanup under way" if standing.cleanup.is_open else "left to a person"


def _is_young(order: JobOrder, blobs: BlobStore, run: str, cutoff: float) -> bool:
    """Whether any of a run's blobs was written after the cutoff; one whose time is not known may have been."""
    prefix = run_prefix(run)
    for page in each_page(lambda after: blobs.page(prefix, after), repr(prefix)):
        if any(blob.modified > cutoff or not blob.modified for blob in page.blobs):
            return True
        order.keep()
    return False


def _look_up(store: Store, runs: Sequence[str], *, unknown: bool) -> list[_Standing]:
    return store.engine.read(lambda transaction: _find_standings(store, transaction, runs, unknown=unknown))


def _find_standings(store: Store, transaction: Transaction, runs: Sequence[str], *, unknown: bool) -> list[_Standing]:
    """Those that are tombstoned or, if asked for, unknown; all reads in flight together."""
    keys = [RunKeys(store.directories, run) for run in runs]
    tombstones = [transaction.get(key.tombstone) for key in keys]
    buried = {key.id for key, tombstone in zip(keys, tombstones, strict=True) if tombstone.wait() is not None}
    kinds = dict.fromkeys(buried, "tombstoned")
    if unknown:
        kinds |= _find_unknown(transaction, [key for key in keys if key.id not in buried])
    cleanups = store.cleanups.several(transaction, kinds)
    return [_Standing(run, kinds[run], cleanups.get(run)) for run in runs if run in kinds]


def _find_unknown(transaction: Transaction, keys: Sequence[RunKeys]) -> dict[str, str]:
    """The runs of which the store has nothing at all."""
    reads = [
        [transaction.get_range(*span(prefix), limit=1) for prefix in (key.data, key.reverse, key.tag_links)]
        for key in keys
    ]
    links = [transaction.get(key.experiment_link) for key in keys]
    return {
        key.id: "unknown"
        for key, some, link in zip(keys, reads, links, strict=True)
        if link.wait() is None and not any(read.wait() for read in some)
    }


def _ask(order: JobOrder, runs: Sequence[str], *, unknown: bool) -> list[str]:
    """Ask for cleanups, of those runs that still stand as they were found."""
    store = order.store

    def work(transaction: Transaction) -> list[str]:
        standings = _find_standings(store, transaction, runs, unknown=unknown)
        going = [one.run for one in standings if not _find_reason(one)]
        for run in going:
            store.cleanups.ask(transaction, run, source="orphans", now=order.now)
        return going

    return store.engine.transact(work)
