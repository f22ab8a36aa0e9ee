"""Old entries of our ledgers: cleanups and cascades that were done long ago. What failed or is held stays."""

from __future__ import annotations

from typing import TYPE_CHECKING

from storage.cascades import Cascade, CascadeState
from storage.cleanup import Cleanup, CleanupState
from storage.clocks import SAID, is_impossible

if TYPE_CHECKING:
    from collections.abc import Iterator

    from storage.engine import Transaction
    from storage.jobs.order import JobOrder, Tally
    from storage.store import Store


def forget_old_entries(order: JobOrder, *, older_than_hours: float) -> Tally:
    """Delete entries of the ledgers that were done so long ago. What a clock of the future wrote counts from now on.

    Args:
        order: see there.
        older_than_hours: how long since they last changed.

    Raises:
        LockLost: somebody else has the job now; what was done is done.
        StorageUnavailable: the store did not answer.
    """
    store, cutoff = order.store, order.now - older_than_hours * 3600
    tally = {"cleanups": 0, "cascades": 0}

    def find_old() -> Iterator[Cleanup | Cascade]:
        for cleanup in order.scan(store.cleanups.each(store.engine, states=[CleanupState.DONE])):
            if cleanup.updated < cutoff or is_impossible(cleanup.updated, order.now):
                yield cleanup
        for cascade in order.scan(store.cascades.each(store.engine, states=[CascadeState.DONE])):
            if cascade.updated < cutoff or is_impossible(cascade.updated, order.now):
                yield cascade

    for some in order.chunks(find_old()):
        ahead = [entry for entry in some if is_impossible(entry.updated, order.now)]
        old = [entry for entry in some if entry not in ahead]
        for entry in ahead:
            tally[SAID] = tally.get(SAID, 0) + 1
            order.tell(f"keep {_describe(entry)}, which has not come yet: its age counts from now on")
        for entry in old:
            order.tell(f"{'would forget' if order.dry_run else 'forget'} {_describe(entry)}")
        if ahead and not order.dry_run:
            _restamp(order, ahead)
        done = old if order.dry_run else _forget(order.store, old)
        tally["cleanups"] += sum(isinstance(entry, Cleanup) for entry in done)
        tally["cascades"] += sum(isinstance(entry, Cascade) for entry in done)
    return tally


def _forget(store: Store, some: list[Cleanup | Cascade]) -> list[Cleanup | Cascade]:
    """Delete those that are still what they were."""

    def work(transaction: Transaction) -> list[Cleanup | Cascade]:
        done = list[Cleanup | Cascade]()
        cleanups = store.cleanups.several(transaction, [entry.run for entry in some if isinstance(entry, Cleanup)])
        for entry in some:
            if isinstance(entry, Cleanup):
                if cleanups.get(entry.run) == entry:
                    store.cleanups.purge(transaction, entry.run)
                    done.append(entry)
            elif store.cascades.get(transaction, entry.kind, entry.uuid) == entry:
                store.cascades.purge(transaction, entry.kind, entry.uuid)
                done.append(entry)
        return done

    return store.engine.transact(work)


def _restamp(order: JobOrder, some: list[Cleanup | Cascade]) -> None:
    store = order.store

    def work(transaction: Transaction) -> None:
        for entry in some:
            if isinstance(entry, Cleanup):
                store.cleanups.restamp(transaction, entry, now=order.now)
            else:
                store.cascades.postpone(transaction, entry, due=order.now, now=order.now)

    store.engine.transact(work)


def _describe(entry: Cleanup | Cascade) -> str:
    if isinstance(entry, Cleanup):
        return f"the cleanup of {entry.run!r}, done at {entry.updated:.0f}"
    return f"the cascade of the {entry.kind} {entry.uuid!r}, done at {entry.updated:.0f}"
