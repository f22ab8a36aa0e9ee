"""What follows from records that were just committed, done at once: tasks sent, events published.

Best effort: all of it stands in the store, and beat does what this process does not get to.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from storage.errors import StorageError
from storage.meaning import CascadeAsked, CleanupAsked
from storage.outbox import OutboxEvent
from tasks.cleanup import send_cleanup
from tasks.queues import CASCADE_TASK

if TYPE_CHECKING:
    from collections.abc import Sequence

    from celery import Celery

    from storage.meaning import FollowUp
    from tasks.opened import OpenedStore
    from tasks.outbox import OutboxPublisher

log = structlog.get_logger("tasks.follow_ups")


class FollowUps:
    """Does follow-ups in a worker's child process.

    Args:
        app: sends the tasks.
        opened: this process' store.
        publisher: publishes events.
    """

    def __init__(self, app: Celery, opened: OpenedStore, publisher: OutboxPublisher) -> None:
        self._app = app
        self._opened = opened
        self._publisher = publisher

    def do(self, follow_ups: Sequence[FollowUp]) -> None:
        """Do them; what goes wrong is logged, and left to beat."""
        events = [event for event in follow_ups if isinstance(event, OutboxEvent)]
        if events:
            try:
                self._publisher.publish_soon(self._opened.store(), events)
            except StorageError as error:
                log.warning("events are left to beat", count=len(events), error=str(error))
        send_asked(self._app, follow_ups)


def send_asked(app: Celery, follow_ups: Sequence[FollowUp]) -> None:
    """Send the tasks of cleanups and cascades that were asked for; those that Redis does not take are left to beat."""
    for asked in dict.fromkeys(follow_ups):
        if isinstance(asked, CleanupAsked):
            taken = send_cleanup(app, asked.run)
        elif isinstance(asked, CascadeAsked):
            taken = _send_cascade(app, asked)
        else:
            continue
        if not taken:
            return  # each more would wait for Redis again


def _send_cascade(app: Celery, asked: CascadeAsked) -> bool:
    try:
        app.send_task(CASCADE_TASK, (asked.kind, asked.id), retry=False)
    except (OperationalError, RedisError, OSError) as error:
        log.warning("a cascade is left to beat: Redis did not take its task", id=asked.id, error=str(error))
        return False
    return True
