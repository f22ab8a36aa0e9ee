"""The cascade task: steps of one cascade, for as long as a task may last; then it goes on as another one."""

from __future__ import annotations

import time
import traceback
from typing import TYPE_CHECKING, Final

import structlog

from storage.cascades import CascadeKind, CascadeState
from storage.errors import Fatal, Retryable
from tasks.batches import choose_wait
from tasks.celeryconfig import cleanup_limit
from tasks.queues import CASCADE_TASK

if TYPE_CHECKING:
    from celery import Celery, Task

    from storage.cascades import Cascade
    from tasks.opened import OpenedStore
    from tasks.settings import Settings

_TRIES: Final = 5  # of one step that fails and is not the infrastructure's fault

log = structlog.get_logger("tasks.cascade")


def register_cascade(app: Celery, opened: OpenedStore, settings: Settings) -> Task:
    """Make the cascade task of an application; it works on the store of the process that runs it."""

    @app.task(
        shared=False,
        name=CASCADE_TASK,
        bind=True,
        max_retries=None,
        acks_late=True,
        ignore_result=True,
        time_limit=cleanup_limit(settings),
    )
    def cascade(self: Task, kind: str, uuid: str) -> None:
        """Clear what still points to a deleted experiment or tag."""
        what = CascadeKind(kind)
        retries: int = self.request.retries
        try:
            entry = _work(opened, what, uuid, str(self.request.id), settings.cleanup_slice_seconds)
        except (Retryable, Fatal) as error:
            wait = choose_wait(retries)
            log.warning("waiting for the store", kind=kind, id=uuid, error=str(error), retry_in=round(wait, 2))
            raise self.retry(exc=error, countdown=wait) from error
        except Exception as error:
            wait = choose_wait(retries + 3)
            log.exception("a step of a cascade failed", kind=kind, id=uuid)
            if _fail(opened, what, uuid, error, wait):
                raise self.retry(exc=error, countdown=wait) from error
            return
        if entry is None:
            log.warning("no such cascade", kind=kind, id=uuid)
            return
        log.info("cascade", kind=kind, id=uuid, state=str(entry.state), scanned=entry.scanned, changed=entry.changed)
        if entry.is_open:
            app.send_task(CASCADE_TASK, (kind, uuid))

    task: Task = cascade
    return task


def _work(opened: OpenedStore, kind: CascadeKind, uuid: str, task_id: str, seconds: float) -> Cascade | None:
    """Steps until there is nothing more to do, or the time is up."""
    steps = opened.store().cascade_steps()
    deadline = time.monotonic() + seconds
    while True:
        entry = steps.advance(kind, uuid, now=time.time(), task_id=task_id)
        if entry is None or not entry.is_open or time.monotonic() > deadline:
            return entry


def _fail(opened: OpenedStore, kind: CascadeKind, uuid: str, error: Exception, wait: float) -> bool:
    """Note a failed step; whether it is to be tried again."""
    store, now = opened.store(), time.time()
    words = "".join(traceback.format_exception(error))[-1_500:]
    entry = store.engine.read(lambda transaction: store.cascades.get(transaction, kind, uuid))
    if entry is None or not entry.is_open:
        return False
    failed = store.engine.transact(
        lambda transaction: store.cascades.fail(transaction, entry, error=words, tries=_TRIES, due=now + wait, now=now)
    )
    return failed is None or failed.state is CascadeState.PENDING
