"""Requeueing as tasks, so that Flower's API can start it: ``POST /api/task/async-apply/matyan.requeue_cleanup``.

Arguments are plain JSON. What became of it is the task's result, which Flower shows; there is no result backend.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import structlog

from storage.choices import CleanupChoice, LetterChoice
from storage.cleanups import CleanupState
from storage.errors import Retryable
from tasks.batches import choose_wait
from tasks.celeryconfig import longest_limit
from tasks.queues import REQUEUE_CLEANUP_TASK, REQUEUE_DEAD_LETTER_TASK, REQUEUE_MANY_TASK
from tasks.requeue import Choice, Requeuer, find_letter

if TYPE_CHECKING:
    from celery import Celery, Task

    from tasks.opened import OpenedStore
    from tasks.settings import Settings

log = structlog.get_logger("tasks.requeue")


def register_requeues(app: Celery, opened: OpenedStore, settings: Settings) -> None:
    """Make the requeueing tasks of an application; they work on the store of the process that runs them."""
    options: dict[str, Any] = {"bind": True, "shared": False, "acks_late": True, "max_retries": None}

    @app.task(name=REQUEUE_CLEANUP_TASK, **options)
    def requeue_cleanup(self: Task, run: str, force: bool = False) -> str:
        """Begin a run's cleanup anew; with ``force`` also if the run lives."""
        _check(run=(run, str), force=(force, bool))
        try:
            words = Requeuer(opened.store(), app).requeue_cleanup(run, force=force).words
        except Retryable as error:
            raise self.retry(exc=error, countdown=choose_wait(self.request.retries)) from error
        log.info("requeued a cleanup", run=run, force=force, became=words)
        return f"{run}: {words}"

    @app.task(name=REQUEUE_DEAD_LETTER_TASK, **options)
    def requeue_dead_letter(self: Task, topic: str, partition: int, offset: int) -> str:
        """Apply a dead letter once more."""
        _check(topic=(topic, str), partition=(partition, int), offset=(offset, int))
        place = f"{topic}[{partition}] offset {offset}"
        try:
            store = opened.store()
            requeuer = Requeuer(store, app)
            letters = find_letter(store, topic, partition, offset)
            words = ", ".join(requeuer.requeue_letter(letter).words for letter in letters)
        except Retryable as error:
            raise self.retry(exc=error, countdown=choose_wait(self.request.retries)) from error
        words = words or "there is no such dead letter (any more)"
        log.info("requeued a dead letter", place=place, became=words)
        return f"{place}: {words}"

    # Killed at its limit it would not send the rest: one item may take long, so there is far more time than it takes.
    @app.task(name=REQUEUE_MANY_TASK, time_limit=longest_limit(settings), **options)
    def requeue_many(
        self: Task,
        what: str,
        choice: dict[str, str] | None = None,
        position: str | None = None,
        became: dict[str, int] | None = None,
    ) -> str:
        """Requeue all chosen cleanups or dead letters, for a while; the rest is another task of the same kind."""
        chosen = read_choice(what, choice or {})
        total = Counter(became or {})
        try:
            requeuer = Requeuer(opened.store(), app)
            progress = requeuer.requeue_many(chosen, position, seconds=settings.task_time_limit_seconds / 3)
        except Retryable as error:
            raise self.retry(exc=error, countdown=choose_wait(self.request.retries)) from error
        total += progress.became
        words = ", ".join(f"{count} {kind}" for kind, count in sorted(total.items())) or "nothing to requeue"
        if progress.position is not None:
            self.apply_async((what, choice or {}, progress.position, dict(total)))
            words += " so far"
        log.info("requeued many", what=what, choice=choice, became=words)
        return words


def read_choice(what: str, fields: dict[str, str]) -> Choice:
    """A choice from the arguments of `requeue_many`.

    Args:
        what: ``cleanups`` or ``dead_letters``.
        fields: of `CleanupChoice` or `LetterChoice`.

    Raises:
        ValueError: no such thing, field, or state.
    """
    if not isinstance(fields, dict) or not all(isinstance(value, str) for value in fields.values()):
        msg = f"choice={fields!r:.200}: give an object of texts"
        raise ValueError(msg)
    try:
        if what == "cleanups":
            return CleanupChoice(**(fields | {"state": CleanupState(fields.get("state", "failed"))}))  # type: ignore[arg-type]
        if what == "dead_letters":
            return LetterChoice(**fields)
    except TypeError as error:
        msg = f"choice={fields!r:.200}: {error}"
        raise ValueError(msg) from error
    msg = f"what={what!r:.100}: give 'cleanups' or 'dead_letters'"
    raise ValueError(msg)


def _check(**arguments: tuple[Any, type]) -> None:
    for name, (value, wanted) in arguments.items():
        if type(value) is not wanted:
            msg = f"{name}={value!r:.200}: give {wanted.__name__}, not {type(value).__name__}"
            raise TypeError(msg)
