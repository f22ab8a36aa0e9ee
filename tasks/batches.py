"""The tasks of the routes: one batch of records into the store, then what follows from them.

What the infrastructure is to blame for is retried for as long as it takes; what the records are to blame for becomes a
dead letter inside `storage.apply`. Whatever else fails is logged and left: the bridge sends the batch again.
"""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING, Any, Final

import structlog

from storage.apply import Result, State
from storage.batch import Batch, pack_batch, unpack_batch
from storage.errors import Fatal, Retryable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from celery import Celery, Task

    from storage.meaning import FollowUp
    from tasks.opened import OpenedStore

_EARLY_TRIES: Final = 20  # an early batch has lost its predecessor by then; the bridge knows, and sends again
_LONGEST_WAIT: Final = 15.0  # seconds; well below the visibility timeout, or Redis would hand the task out again

log = structlog.get_logger("tasks.batches")


def register_route(
    app: Celery, opened: OpenedStore, name: str, route: str, follow: Callable[[Sequence[FollowUp]], None]
) -> Task:
    """Make the task of a route.

    Args:
        app: whose task it is.
        opened: the store of the process that runs it.
        name: the task's.
        route: the name of what the records mean (`storage.meaning.Meaning.route`).
        follow: does at once what follows from records that are committed; must not raise.
    """

    @app.task(name=name, bind=True, max_retries=None, acks_late=True, ignore_result=True)
    def apply(self: Task, packed: bytes) -> None:
        """Apply one packed batch; see `storage.apply` for what that means."""
        batch = unpack_batch(packed)
        retries: int = self.request.retries
        began = time.monotonic()
        try:
            result = opened.batch_applier(route).apply(batch, token=(str(self.request.id), retries))
        except (Retryable, Fatal) as error:
            wait = choose_wait(retries)
            log.warning("waiting for the store", batch=str(batch), error=str(error), retry_in=round(wait, 2))
            raise self.retry(exc=error, countdown=wait, **_repeat(batch)) from error
        _log_result(batch, route, result, time.monotonic() - began)
        if result.follow_ups:
            follow(result.follow_ups)
        if result.state is State.UNFINISHED or (result.state is State.EARLY and retries < _EARLY_TRIES):
            raise self.retry(countdown=choose_wait(min(retries, 4)), **_repeat(batch))

    task: Task = apply
    return task


def choose_wait(retries: int, *, spread: float | None = None) -> float:
    """Seconds until the next try: doubling from 0.2 with jitter, at most 15.

    Args:
        retries: tries that failed so far, less one.
        spread: the jitter, 0 to 1; random if not given.
    """
    longest = min(_LONGEST_WAIT, 0.2 * float(2 ** min(retries, 10)))
    return longest * (0.5 + 0.5 * (random.random() if spread is None else spread))


def _repeat(batch: Batch) -> dict[str, Any]:
    """Options of a retry that keep it readable in Flower and logs."""
    return {"argsrepr": describe_batch(batch), "kwargsrepr": ""}


def describe_batch(batch: Batch) -> str:
    """What Flower and Celery's logs show in place of the packed records."""
    return f"({batch})"


def sending_options(batch: Batch, queue: str) -> dict[str, Any]:
    """The arguments of ``send_task`` for a batch."""
    return {
        "args": (pack_batch(batch),),
        "queue": queue,
        "argsrepr": describe_batch(batch),
        "kwargsrepr": "",
    }


def _log_result(batch: Batch, route: str, result: Result, seconds: float) -> None:
    log.info(
        "batch",
        route=route,
        state=result.state.value,
        topic=batch.source.topic,
        partition=batch.source.partition,
        lane=batch.lane,
        first=batch.first,
        last=batch.last,
        attempt=batch.attempt,
        records=len(batch.records),
        applied=sum(result.applied.values()),
        dropped=result.dropped,
        dead=dict(result.dead),
        covered=result.covered,
        transactions=result.transactions,
        seconds=round(seconds, 4),
    )
