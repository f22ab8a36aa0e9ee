"""The tasks of the routes: one batch of records into the store, then what follows from them.

What the infrastructure is to blame for is retried, a bounded number of times; what the records are to blame for becomes
a dead letter inside `storage.apply`. Whatever else fails is logged and left, as are tries that come to their end: the
bridge sends the batch again, for as long as it takes.
"""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING, Any, Final

import structlog
from structlog.contextvars import bound_contextvars

from storage.apply import Result, State
from storage.batch import Batch, pack_batch, unpack_batch
from storage.errors import Fatal, Retryable
from tasks.counting import count_batch
from tasks.tracing import annotate
from tasks.tracing import describe_batch as describe_for_trace

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from celery import Celery, Task

    from storage.meaning import FollowUp
    from tasks.meter import Meter
    from tasks.opened import OpenedStore
    from tasks.settings import Settings

# An early batch has lost its predecessor by then; the bridge knows, and sends again. While the store is away these last
# longer than the bridge's longest patience, so that some copy of a batch is always there to find the store back.
_TRIES: Final = 20
_FIRST_WAIT: Final = 0.2  # seconds
_LONGEST_WAIT: Final = 15.0  # seconds; well below the visibility timeout, or Redis would hand the task out again

log = structlog.get_logger("tasks.batches")


def register_route(
    app: Celery,
    opened: OpenedStore,
    meter: Meter,
    name: str,
    route: str,
    follow: Callable[[Sequence[FollowUp]], None],
) -> Task:
    """Make the task of a route.

    Args:
        app: whose task it is.
        opened: the store of the process that runs it.
        meter: counts what is done.
        name: the task's.
        route: the name of what the records mean (`storage.meaning.Meaning.route`).
        follow: does at once what follows from records that are committed; must not raise.
    """

    @app.task(shared=False, name=name, bind=True, max_retries=None, acks_late=True, ignore_result=True)
    def apply(self: Task, packed: bytes) -> None:
        """Apply one packed batch; see `storage.apply` for what that means."""
        batch = unpack_batch(packed)
        with bound_contextvars(task_id=str(self.request.id), **_bind(batch)):
            annotate(**describe_for_trace(batch))
            execute(self, batch)

    def execute(self: Task, batch: Batch) -> None:
        retries: int = self.request.retries
        began, tried, result, failure = time.monotonic(), opened.retries.mine(), Result(), "unknown"
        clock = time.time()  # before the store is opened: that may take long
        try:
            opened.batch_applier(route).apply(batch, token=(str(self.request.id), retries), into=result, began=clock)
            failure = ""
        except (Retryable, Fatal) as error:
            failure, wait = "fdb", wait_for(retries, opened.settings)
            if not may_try_again(retries, result):
                log.warning(
                    "given up: the bridge sends it again", batch=str(batch), error=str(error), tries=retries + 1
                )
                return
            log.warning("waiting for the store", batch=str(batch), error=str(error), retry_in=round(wait, 2))
            raise self.retry(exc=error, countdown=wait, **_repeat(batch)) from error
        finally:
            seconds, tried = time.monotonic() - began, opened.retries.mine() - tried
            count_batch(meter, route, batch, result, seconds=seconds, retries=tried, failure=failure)
            _log_refused(result)
        _log_result(batch, route, result, seconds)
        annotate(**{"matyan.state": result.state.value, "matyan.applied": result.applied.total()})
        if result.follow_ups:
            follow(result.follow_ups)
        if result.state in {State.UNFINISHED, State.EARLY} and may_try_again(retries, result):
            raise self.retry(countdown=wait_for(min(retries, 4), opened.settings), **_repeat(batch))

    task: Task = apply
    return task


def may_try_again(retries: int, result: Result) -> bool:
    """Whether a task that did not get through asks for another try; without progress only so often.

    There may be several copies of a batch, and each that goes on holds a worker's slot from time to time.

    Args:
        retries: how often it has asked before.
        result: what it has done in this try.
    """
    return retries < _TRIES or result.transactions > 0


def wait_for(retries: int, settings: Settings) -> float:
    """Seconds until the next try of a task, with the settings' delays where they are set."""
    first = settings.fdb_retry_initial_delay_sec or _FIRST_WAIT
    return choose_wait(retries, first=first, longest=settings.fdb_retry_max_delay_sec or _LONGEST_WAIT)


def choose_wait(
    retries: int, *, spread: float | None = None, first: float = _FIRST_WAIT, longest: float = _LONGEST_WAIT
) -> float:
    """Seconds until the next try: doubling, with jitter.

    Args:
        retries: tries that failed so far, less one.
        spread: the jitter, 0 to 1; random if not given.
        first: seconds after the first try.
        longest: the most, in seconds; above 15 it counts as 15.
    """
    longest = min(_LONGEST_WAIT, longest, first * float(2 ** min(retries, 10)))
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


def _bind(batch: Batch) -> dict[str, Any]:
    """What stands in every line that is logged for a batch; the run where all of it is one run's."""
    keys = {record.key for record in batch.records}
    run = {"run": next(iter(keys), None)} if len(keys) == 1 else {}
    return {
        "topic": batch.source.topic,
        "partition": batch.source.partition,
        "lane": batch.lane,
        "first": batch.first,
        "last": batch.last,
        "attempt": batch.attempt,
        **{name: key.decode("utf-8", "replace") for name, key in run.items() if key is not None},
    }


def _log_refused(result: Result) -> None:
    for refused in result.refused:
        error = refused.error
        log.warning("dead letter", offset=refused.offset, run=refused.run, reason=error.reason, error=str(error))
    more = result.dead.total() - len(result.refused)
    if more:
        log.warning("more dead letters", count=more)


def _log_result(batch: Batch, route: str, result: Result, seconds: float) -> None:
    log.info(
        "batch",
        route=route,
        state=result.state.value,
        records=len(batch.records),
        applied=result.applied.total(),
        dropped=result.dropped.total(),
        dead=dict(result.dead),
        covered=result.covered,
        transactions=result.transactions,
        seconds=round(seconds, 4),
    )
