"""Cleanups and cascades whose task was lost: sent again. Redis loses tasks, and a killed worker's is one of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from storage.cascades import OPEN as OPEN_CASCADES
from storage.cascades import Cascade
from storage.cleanup import OPEN as OPEN_CLEANUPS
from storage.cleanup import Cleanup
from storage.clocks import SAID, is_impossible

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from storage.engine import Transaction
    from storage.jobs.order import JobOrder, Tally


def send_stalled_again(
    order: JobOrder,
    *,
    stall_seconds: float,
    lease: float,
    send_cleanup: Callable[[str], None],
    send_cascade: Callable[[str, str], None],
) -> Tally:
    """Send the tasks of what is open and has not moved again.

    What was sent counts as due now, so that it is sent once in ``stall_seconds`` and not at every look. A task that
    comes twice does no harm: the ledger decides.

    Args:
        order: see there; the limit is of tasks sent.
        stall_seconds: since it last changed, and since it was due.
        lease: seconds that the due time of one that is running, or waits for its next try, may lie ahead.
        send_cleanup: sends the task of a run's cleanup.
        send_cascade: sends the task of a cascade, given kind and uuid.

    Raises:
        LockLost: somebody else has the job now; what was done is done.
        StorageUnavailable: the store did not answer.
    """
    store, tally = order.store, {"open": 0, "cleanups": 0, "cascades": 0}

    def is_stalled(entry: Cleanup | Cascade) -> bool:
        tally["open"] += 1
        last = max(entry.updated, entry.due)
        if is_impossible(last, order.now, longest=lease):
            tally[SAID] = tally.get(SAID, 0) + 1
            order.tell(f"{_name(entry)}: its times lie {last - order.now:.0f} s ahead, it is sent again")
            return True
        return last <= order.now - stall_seconds

    def find_stalled() -> Iterator[Cleanup | Cascade]:
        yield from filter(is_stalled, order.scan(store.cascades.each(store.engine, states=OPEN_CASCADES)))
        yield from filter(is_stalled, order.scan(store.cleanups.each(store.engine, states=OPEN_CLEANUPS)))

    for some in order.chunks(find_stalled()):
        still = some if order.dry_run else _postpone(order, some)
        for entry in still:
            told = "would send" if order.dry_run else "send"
            if isinstance(entry, Cleanup):
                order.tell(f"{told} {_name(entry)}, {entry.state}, due at {entry.due:.0f}")
                tally["cleanups"] += 1
                if not order.dry_run:
                    send_cleanup(entry.run)
            else:
                order.tell(f"{told} {_name(entry)}, {entry.state}")
                tally["cascades"] += 1
                if not order.dry_run:
                    send_cascade(entry.kind, entry.uuid)
    return tally


def _name(entry: Cleanup | Cascade) -> str:
    if isinstance(entry, Cleanup):
        return f"the cleanup of {entry.run!r}"
    return f"the cascade of the {entry.kind} {entry.uuid!r}"


def _postpone(order: JobOrder, some: list[Cleanup | Cascade]) -> list[Cleanup | Cascade]:
    """Those that have not moved since they were looked at, marked as due now."""
    store = order.store

    def work(transaction: Transaction) -> list[Cleanup | Cascade]:
        still = list[Cleanup | Cascade]()
        cleanups = store.cleanups.several(transaction, [entry.run for entry in some if isinstance(entry, Cleanup)])
        for entry in some:
            if isinstance(entry, Cleanup):
                if cleanups.get(entry.run) == entry:
                    if is_impossible(max(entry.updated, entry.due), order.now):
                        store.cleanups.restamp(transaction, entry, now=order.now)
                    else:
                        store.cleanups.postpone(transaction, entry.run, due=order.now, now=order.now)
                    still.append(entry)
            elif store.cascades.get(transaction, entry.kind, entry.uuid) == entry:
                store.cascades.postpone(transaction, entry, due=order.now, now=order.now)
                still.append(entry)
        return still

    return store.engine.transact(work)
