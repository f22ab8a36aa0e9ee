"""The cleanup task: one slice of one run's cleanup; see `storage.cleaner` for what that means.

The ledger knows what is to be done and when, so that a task which is lost, or comes twice, does no harm: beat sends
what is due, and what is not due, or another task works on, is passed over.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import structlog
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError
from structlog.contextvars import bound_contextvars

from storage.cleaner import Cleaner, Terms
from storage.errors import StorageError
from tasks.batches import choose_wait
from tasks.celeryconfig import cleanup_limit
from tasks.counting import count_cleanup
from tasks.metrics import CONTROL_ERRORS
from tasks.queues import CLEANUP_TASK
from tasks.tracing import annotate

if TYPE_CHECKING:
    from celery import Celery, Task

    from storage.cleaner import Cleaned
    from tasks.blob_stores import OpenedBlobs
    from tasks.meter import Meter
    from tasks.opened import OpenedStore
    from tasks.settings import Settings

log = structlog.get_logger("tasks.cleanup")

LEASE_SECONDS = 15.0  # beyond its slice, without a sign of life, until an execution is taken for dead


def make_terms(settings: Settings) -> Terms:
    """How cleanups are done, by the settings."""
    return Terms(
        tries=settings.cleanup_tries,
        backoff=settings.cleanup_backoff_seconds,
        requests=settings.cleanup_requests,
        slice=settings.cleanup_slice_seconds,
        lease=settings.cleanup_slice_seconds + LEASE_SECONDS,
        foreign_keys=settings.cleanup_foreign_keys,
    )


def register_cleanup(app: Celery, opened: OpenedStore, blobs: OpenedBlobs, meter: Meter, settings: Settings) -> Task:
    """Make the cleanup task of an application.

    Args:
        app: whose task it is.
        opened: the store of the process that runs it.
        blobs: the blob store of the process that runs it.
        meter: counts what is done.
        settings: tries, waits, limits.
    """
    terms = make_terms(settings)

    @app.task(
        shared=False,
        name=CLEANUP_TASK,
        bind=True,
        max_retries=None,
        acks_late=True,
        ignore_result=True,
        time_limit=cleanup_limit(settings),
    )
    def cleanup(self: Task, run: str) -> None:
        """Work on the cleanup of one run for a slice of time."""
        with bound_contextvars(run=run, task_id=str(self.request.id)):
            annotate(**{"matyan.run": run})
            execute(self, run)

    def execute(self: Task, run: str) -> None:
        began = time.monotonic()
        try:
            cleaned = Cleaner(opened.store(), blobs.blobs(), terms).clean(run, task_id=str(self.request.id))
        except StorageError as error:
            meter.count(CONTROL_ERRORS, 1, "fdb")
            wait = choose_wait(self.request.retries)
            log.warning("waiting for the store", run=run, error=str(error), retry_in=round(wait, 2))
            raise self.retry(exc=error, countdown=wait) from error
        count_cleanup(meter, cleaned)
        _log_cleaned(run, cleaned, time.monotonic() - began)
        if cleaned.again is None:
            return
        if not cleaned.worked:  # this very task came back while its own execution may still be alive
            raise self.retry(countdown=cleaned.again)
        send_cleanup(app, run, wait=cleaned.again)

    task: Task = cleanup
    return task


def send_cleanup(app: Celery, run: str, *, wait: float = 0.0) -> bool:
    """Send the task of a run's cleanup.

    Args:
        app: sends it.
        run: the run's id.
        wait: seconds until it is due.

    Returns:
        Whether Redis took it; otherwise beat will send it, since the ledger says when it is due.
    """
    eta = datetime.now(UTC) + timedelta(seconds=wait) if wait > 0 else None
    try:
        app.send_task(CLEANUP_TASK, (run,), retry=False, eta=eta)
    except (OperationalError, RedisError, OSError) as error:
        log.warning("a cleanup is left to beat: Redis did not take its task", run=run, error=str(error))
        return False
    return True


def _log_cleaned(run: str, cleaned: Cleaned, seconds: float) -> None:
    entry = cleaned.entry
    fields = {"run": run, "state": "none" if entry is None else str(entry.state), "seconds": round(seconds, 4)}
    if not cleaned.worked:
        log.info("cleanup passed over", **fields)
        return
    if entry is not None:
        fields |= {"attempts": entry.attempts, "total": entry.objects, "error": entry.error}
    log.info("cleanup", objects=cleaned.objects, bytes=cleaned.bytes, again_in=cleaned.again, **fields)
