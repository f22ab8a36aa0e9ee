"""Runs that are active for so long that whoever logged them must have died (CONTRACT 8.4, finish-stale)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from storage.clocks import SAID, is_impossible
from storage.encoding import pack_key, span, unpack_key, unpack_value
from storage.handlers.run import Run, RunKeys
from storage.overlay import Draft, View

if TYPE_CHECKING:
    from collections.abc import Iterator

    from storage.engine import Transaction
    from storage.jobs.order import JobOrder, Tally
    from storage.store import Store

_PAGE: Final = 500


def finish_stale_runs(order: JobOrder, *, older_than_hours: float) -> Tally:
    """Mark active runs that were created so long ago as finished now; their duration stays as it is.

    A run that is still being logged is finished too, if it was created before that: hence off unless asked for.

    Args:
        order: see there; the limit is of runs finished.
        older_than_hours: how long since they were created; a run without that time counts as of 1970, one of the
            future (its client's clock is wrong) stays active, and is counted.

    Raises:
        LockLost: somebody else has the job now; what was done is done.
        StorageUnavailable: the store did not answer.
    """
    tally = {"active": 0, "finished": 0}
    for run, created in _each_active(order.store):
        tally["active"] += 1
        order.keep()
        if is_impossible(created, order.now):
            tally[SAID] = tally.get(SAID, 0) + 1
            order.tell(
                f"keep {run!r}: it was created {created - order.now:.0f} s ahead of now, so its age is not known"
            )
        if not created < order.now - older_than_hours * 3600 or 0 < order.limit <= tally["finished"]:
            continue
        if order.dry_run or _finish(order, run, created):
            tally["finished"] += 1
            told = "would finish" if order.dry_run else "finish"
            order.tell(f"{told} {run!r}, created {order.now - created:.0f} s ago")
    return tally


def _each_active(store: Store) -> Iterator[tuple[str, float]]:
    """Runs that the index has as active, with their time of creation."""
    prefix = store.directories.indexes + pack_key("active", True)
    begin, end = span(prefix)
    while True:
        start = begin

        def work(transaction: Transaction) -> tuple[list[tuple[str, float]], bytes | None]:
            pairs = transaction.get_range(start, end, limit=_PAGE).wait()  # noqa: B023
            runs = [unpack_key(key[len(prefix) :])[0] for key, _ in pairs]
            reads = [transaction.get(RunKeys(store.directories, run).meta_field("created_at")) for run in runs]
            times = [_as_time(unpack_value(read.wait())) for read in reads]
            return list(zip(runs, times, strict=True)), pairs[-1][0] if len(pairs) == _PAGE else None

        some, last = store.engine.read(work)
        yield from some
        if last is None:
            return
        begin = last + b"\x00"


def _as_time(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else 0.0


def _finish(order: JobOrder, name: str, created: float) -> bool:
    """Finish a run, unless it was finished, deleted or made anew since it was looked at."""
    keys = RunKeys(order.store.directories, name)

    def work(transaction: Transaction) -> bool:
        view = View(transaction)
        draft = Draft(view)
        run = Run(keys, draft, order.now)
        active = keys.directories.indexes + pack_key("active", True) + keys.packed
        if draft.get(active) is None or _as_time(run.get("created_at")) != created:
            return False
        run.remove_entry("active", True)
        run.add_entry("active", False)
        run.put("active", False)
        run.put("finalized_at", order.now)
        run.touch()
        draft.keep()
        view.flush()
        return True

    return order.store.engine.transact(work)
