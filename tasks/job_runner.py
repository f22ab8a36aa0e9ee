"""Does jobs under their locks: the same code for beat's tasks and for people."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from storage.blob_names import run_prefix
from storage.clocks import SAID
from storage.jobs.old_ledger import forget_old_entries
from storage.jobs.order import JobOrder, Tally, show_tally
from storage.jobs.orphans import sweep_orphans
from storage.jobs.stale_runs import finish_stale_runs
from storage.jobs.stalled import send_stalled_again
from storage.jobs.tombstones import clear_tombstones
from storage.listing import has_any
from tasks.cleanup import LEASE_SECONDS
from tasks.queues import CASCADE_TASK, CLEANUP_QUEUE, CLEANUP_TASK

if TYPE_CHECKING:
    from collections.abc import Callable

    from celery import Celery

    from storage.blobs import BlobStore
    from storage.store import Store
    from tasks.job_list import Job
    from tasks.outbox import OutboxPublisher
    from tasks.settings import Settings

_WAITING: Final = 1_000  # tasks in the cleanup queue beyond which none is sent again: what waits is not lost
_SENDING: Final = {"max_retries": 3, "interval_start": 0.2, "interval_step": 0.5, "interval_max": 2.0}


def _say_nothing(_: str) -> None:
    pass


@dataclass(frozen=True, slots=True)
class JobAsk:
    """What may be asked of a job beside that it be done.

    Attributes:
        dry_run: change nothing; say what would be done.
        limit: do so many at most; 0: all.
        unknown: orphan-blobs: also of runs that were never known; None: as the settings say.
        older_than_hours: tombstones, old-ledger, finish-stale: how old; orphan-blobs: the grace of runs never known;
            None: as the settings say.
        gap: seconds between two turns of beat: passed over where it was done within half of that; 0: never.
        tell: given one line for each thing done.
    """

    dry_run: bool = False
    limit: int = 0
    unknown: bool | None = None
    older_than_hours: float | None = None
    gap: float = 0.0
    tell: Callable[[str], None] = _say_nothing

    @property
    def is_whole(self) -> bool:
        """Whether beat's next turn may be passed over for it: beat's own, or all that the settings say."""
        narrowed = self.limit != 0 or self.unknown is not None or self.older_than_hours is not None
        return not self.dry_run and (self.gap > 0 or not narrowed)


class JobRunner:
    """Does jobs on the store of this process.

    Args:
        settings: what the jobs are told unless they are asked otherwise.
        app: sends tasks.
        store: gives the open store.
        blobs: gives the open blob store; called by the jobs that need it.
        publisher: publishes events.
        clock: Unix seconds.
    """

    def __init__(
        self,
        settings: Settings,
        app: Celery,
        *,
        store: Callable[[], Store],
        blobs: Callable[[], BlobStore],
        publisher: OutboxPublisher,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._settings = settings
        self._app = app
        self._store = store
        self._blobs = blobs
        self._publisher = publisher
        self._clock = clock

    def run(self, job: Job, ask: JobAsk) -> Tally:
        """Do a job, or say what it would do.

        Raises:
            LockHeld: somebody else does it, or has just done it.
            LockLost: it took longer than its lock lives, and somebody else does it now; what was done is done.
            StorageUnavailable: the store did not answer.
            BlobError: the blob store did not, or refused.
            kombu.exceptions.OperationalError: Redis did not answer.
        """
        store, began = self._store(), self._clock()
        locks = store.job_locks(clock=self._clock)
        since = began - ask.gap / 2 if ask.gap else None
        with locks.hold(job.lock, ttl=job.lock_ttl(self._settings), unless_done_since=since) as lock:
            order = JobOrder(store, began, ask.dry_run, ask.limit, ask.tell, lock.renew)
            tally = _DO[job.name](self, order, ask)
            if lock.overrode:
                ask.tell(
                    f"the lock {job.lock} was held until {lock.overrode:.0f} s from now, longer than any: it was taken"
                )
                tally[SAID] = tally.get(SAID, 0) + 1
            if ask.is_whole:
                lock.note_done(show_tally(tally))
        return tally

    # -- the jobs --------------------------------------------------------------------------------------------------

    def _sweep_orphans(self, order: JobOrder, ask: JobAsk) -> Tally:
        settings = self._settings
        return sweep_orphans(
            order,
            blobs=self._blobs(),
            unknown=settings.orphan_unknown if ask.unknown is None else ask.unknown,
            grace_hours=_choose(ask.older_than_hours, settings.orphan_grace_hours),
            send_cleanup=self._send_cleanup,
        )

    def _clear_tombstones(self, order: JobOrder, ask: JobAsk) -> Tally:
        blobs, hours = self._blobs(), self._settings.tombstone_cleanup_older_than_hours
        return clear_tombstones(
            order,
            older_than_hours=_choose(ask.older_than_hours, hours),
            has_blobs=lambda run: has_any(blobs, run_prefix(run)),
        )

    def _send_stalled(self, order: JobOrder, ask: JobAsk) -> Tally:
        del ask
        waiting = self._count_waiting()
        room = _WAITING - waiting
        if room <= 0:
            return {"waiting in the queue": waiting, "cleanups": 0, "cascades": 0}
        return send_stalled_again(
            replace(order, limit=min(order.limit or room, room)),
            stall_seconds=self._settings.cleanup_stall_seconds,
            lease=self._settings.cleanup_slice_seconds + LEASE_SECONDS,
            send_cleanup=self._send_cleanup,
            send_cascade=self._send_cascade,
        )

    def _publish_outbox(self, order: JobOrder, ask: JobAsk) -> Tally:
        if order.dry_run:
            return {"waiting": order.store.outbox.count(order.store.engine)}
        if ask.gap:
            published = self._publisher.publish_waiting(order.store, now=order.now, keep=order.keep)
        else:  # a person asks: all of it, also what a worker may be publishing at this moment (twice is harmless)
            published = self._publisher.publish_waiting(order.store, now=order.now, older=0.0, keep=order.keep)
        return {"sent": published.sent, "left": published.left}

    def _forget_old(self, order: JobOrder, ask: JobAsk) -> Tally:
        hours = _choose(ask.older_than_hours, self._settings.ledger_keep_hours)
        return forget_old_entries(order, older_than_hours=hours)

    def _finish_stale(self, order: JobOrder, ask: JobAsk) -> Tally:
        hours = _choose(ask.older_than_hours, self._settings.finish_stale_hours)
        return finish_stale_runs(order, older_than_hours=hours)

    # -- Redis -----------------------------------------------------------------------------------------------------

    def _send_cleanup(self, run: str) -> None:
        self._send(CLEANUP_TASK, run)

    def _send_cascade(self, kind: str, uuid: str) -> None:
        self._send(CASCADE_TASK, kind, uuid)

    def _send(self, task: str, *names: str) -> None:
        self._app.send_task(task, names, retry=True, retry_policy=_SENDING)

    def _count_waiting(self) -> int:
        with self._app.connection_for_read() as connection:
            connection.ensure_connection(max_retries=1)
            client: Any = connection.default_channel.client
            return int(client.llen(self._settings.queue_prefix + CLEANUP_QUEUE))


_DO: Final[dict[str, Callable[[JobRunner, JobOrder, JobAsk], Tally]]] = {
    "orphan-blobs": JobRunner._sweep_orphans,
    "tombstones": JobRunner._clear_tombstones,
    "stalled-cleanups": JobRunner._send_stalled,
    "outbox": JobRunner._publish_outbox,
    "old-ledger": JobRunner._forget_old,
    "finish-stale": JobRunner._finish_stale,
}


def _choose(given: float | None, setting: float) -> float:
    return setting if given is None else given
