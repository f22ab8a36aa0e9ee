"""Celery's configuration, the same for all who send and all who run tasks.

Nothing here is relied on for the promise (the cursor and the bridge's re-send are); these settings are for speed, and
for coming back by itself. Why each: docs/guarantees.md, "What Celery is trusted with".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from kombu import Queue

from tasks.broker import configure_broker
from tasks.queues import (
    CASCADE_TASK,
    CLEANUP_QUEUE,
    CLEANUP_TASK,
    JOBS_QUEUE,
    REQUEUE_TASKS,
    control_queues,
    ingest_queues,
)

if TYPE_CHECKING:
    from tasks.settings import Settings

SOFT_SHUTDOWN_SECONDS = 20.0
# Seconds between two tries to connect to Redis; kombu alone waits up to half a minute.
RECONNECT: Final = {"interval_start": 1, "interval_step": 1, "interval_max": 3}
CLEANUP_GRACE_SECONDS = 60.0


def cleanup_limit(settings: Settings) -> float:
    """The hard time limit of a cleanup's task in seconds: its slice, and the requests that are under way then."""
    return settings.cleanup_slice_seconds + CLEANUP_GRACE_SECONDS


def longest_limit(settings: Settings) -> float:
    """The hard time limit in seconds of whatever task may take longest in a queue that is redelivered."""
    return max(settings.task_time_limit_seconds, cleanup_limit(settings))


def find_queues(settings: Settings) -> list[str]:
    """All queues there are: what a worker consumes that is not told which."""
    prefix = settings.queue_prefix
    lanes = ingest_queues(settings.ingest_queues, prefix) + control_queues(settings.control_queues, prefix)
    return [*lanes, prefix + CLEANUP_QUEUE, prefix + JOBS_QUEUE]


def configure(settings: Settings) -> dict[str, Any]:
    """Celery's settings for ours."""
    limit = settings.task_time_limit_seconds
    longest = longest_limit(settings)
    broker = configure_broker(settings)
    cleanup, jobs = settings.queue_prefix + CLEANUP_QUEUE, settings.queue_prefix + JOBS_QUEUE
    return {
        **broker,
        # Whoever can write to Redis must not be able to run code in a worker: no pickle, ever.
        "accept_content": ["msgpack", "json"],
        "task_serializer": "msgpack",
        "result_backend": None,
        "task_ignore_result": True,  # the cursor is the result
        "task_acks_late": True,
        "task_reject_on_worker_lost": False,  # the bridge sends again, bounded
        "task_time_limit": limit,
        "task_queues": [Queue(name) for name in find_queues(settings)],
        # For all but batches, whose lane says it, and for Flower's API, which names a task and no queue. Never Celery's
        # own default queue: nobody reads it.
        "task_default_queue": jobs,
        "task_routes": {key: {"queue": jobs} for key in REQUEUE_TASKS}
        | {key: {"queue": cleanup} for key in (CLEANUP_TASK, CASCADE_TASK)},
        "result_expires": None,  # there are no results: beat is not to send a task a day that deletes them
        "worker_prefetch_multiplier": 1,
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        "beat_scheduler": "tasks.beat:WatchedScheduler",
        "beat_max_loop_interval": 5,  # the longest that beat is not heard of
        "worker_consumer": "tasks.consumer:WatchedConsumer",
        "worker_soft_shutdown_timeout": SOFT_SHUTDOWN_SECONDS,
        "worker_hijack_root_logger": False,
        "worker_redirect_stdouts": False,
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        "broker_transport_options": {
            **broker["broker_transport_options"],
            # Above the longest hard limit plus the soft shutdown, or a slow task would come back while it runs.
            "visibility_timeout": int(longest + SOFT_SHUTDOWN_SECONDS + 10),
            "unacked_restore_interval": 5,
            "unacked_restore_throttle": 1,
            "priority_steps": [0],  # one Redis list a queue; must be the same on both sides
            **RECONNECT,
        },
    }
