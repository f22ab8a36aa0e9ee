"""Names of tasks and queues: all that the bridge and the workers must agree on."""

from __future__ import annotations

from typing import Final

INGEST_TASK: Final = "matyan.ingest"
CONTROL_TASK: Final = "matyan.control"
CLEANUP_TASK: Final = "matyan.cleanup"
CASCADE_TASK: Final = "matyan.cascade"
OUTBOX_TASK: Final = "matyan.publish_outbox"
REQUEUE_CLEANUP_TASK: Final = "matyan.requeue_cleanup"
REQUEUE_DEAD_LETTER_TASK: Final = "matyan.requeue_dead_letter"
REQUEUE_MANY_TASK: Final = "matyan.requeue_many"
REQUEUE_TASKS: Final = (REQUEUE_CLEANUP_TASK, REQUEUE_DEAD_LETTER_TASK, REQUEUE_MANY_TASK)
CLEANUP_QUEUE: Final = "cleanup"
JOBS_QUEUE: Final = "jobs"
_INGEST: Final = "ingest"
_CONTROL: Final = "control"


def name_queue(route: str, lane: int, queues: int, prefix: str = "") -> str:
    """The queue of a lane, for example ``ingest.07``: lane modulo the number of queues, which workers know.

    Args:
        route: of the two.
        lane: which one.
        queues: how many the route has.
        prefix: QUEUE_PREFIX.
    """
    return f"{prefix}{route}.{lane % queues:02d}"


def ingest_queues(queues: int, prefix: str = "") -> list[str]:
    """All queues of the ingestion route."""
    return [ingest_queue(lane, queues, prefix) for lane in range(queues)]


def ingest_queue(lane: int, queues: int, prefix: str = "") -> str:
    """The queue of one lane of the ingestion route."""
    return name_queue(_INGEST, lane, queues, prefix)


def control_queues(queues: int, prefix: str = "") -> list[str]:
    """All queues of the control route."""
    return [control_queue(lane, queues, prefix) for lane in range(queues)]


def control_queue(lane: int, queues: int, prefix: str = "") -> str:
    """The queue of one lane of the control route."""
    return name_queue(_CONTROL, lane, queues, prefix)
