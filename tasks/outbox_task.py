"""The task that publishes what waits in the outbox; for beat, and for people."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import structlog

from tasks.queues import OUTBOX_TASK

if TYPE_CHECKING:
    from celery import Celery, Task

    from tasks.opened import OpenedStore
    from tasks.outbox import OutboxPublisher

log = structlog.get_logger("tasks.outbox")


def register_outbox(app: Celery, opened: OpenedStore, publisher: OutboxPublisher) -> Task:
    """Make the outbox task of an application. An error ends it: the events stay, and beat starts it again."""

    @app.task(shared=False, name=OUTBOX_TASK, acks_late=True, ignore_result=True)
    def publish_outbox() -> None:
        """Publish the events that have waited for some seconds."""
        done = publisher.publish_waiting(opened.store(), now=time.time())
        if done.sent or done.left:
            log.info("outbox", sent=done.sent, left=done.left)

    task: Task = publish_outbox
    return task
