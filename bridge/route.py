"""A route: one topic, its consumer group, and the task that its batches become."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bridge.lanes import find_run, find_subject
from bridge.partition import Limits
from tasks.batches import sending_options
from tasks.queues import CONTROL_TASK, INGEST_TASK, control_queue, ingest_queue

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from storage.batch import Batch, Record
    from tasks.settings import Settings


@dataclass(frozen=True, slots=True)
class Route:
    """What differs between topics; everything else of the bridge is the same for all.

    Attributes:
        topic: Kafka topic.
        group: consumer group.
        task: name of the Celery task.
        lanes: lanes wanted; those in force change at a drained moment.
        limits: bounds and times of each partition.
        find_run: the run id that orders a record.
        name_queue: the Celery queue of a lane.
        options: arguments of Celery's ``send_task`` for a batch.
        optional: whether there is nothing to drain where the topic does not exist.
    """

    topic: str
    group: str
    task: str
    lanes: int
    limits: Limits
    find_run: Callable[[Record], bytes]
    name_queue: Callable[[int], str]
    options: Callable[[Batch], dict[str, Any]]
    optional: bool = False


def find_routes(settings: Settings) -> list[Route]:
    """All routes."""
    return [ingest_route(settings), control_route(settings)]


def ingest_route(settings: Settings) -> Route:
    """The route of the topic ``data-ingestion``."""
    queues, prefix = settings.ingest_queues, settings.queue_prefix
    return Route(
        topic=settings.kafka_data_ingestion_topic,
        group=settings.ingest_group,
        task=INGEST_TASK,
        lanes=settings.ingest_lanes,
        limits=_limits(settings),
        find_run=find_run,
        name_queue=lambda lane: ingest_queue(lane, queues, prefix),
        options=lambda batch: sending_options(batch, ingest_queue(batch.lane, queues, prefix)),
    )


def control_route(settings: Settings) -> Route:
    """The route of the topic ``control-events``."""
    queues, prefix = settings.control_queues, settings.queue_prefix
    return Route(
        topic=settings.kafka_control_events_topic,
        group=settings.control_group,
        task=CONTROL_TASK,
        lanes=settings.control_lanes,
        limits=_limits(settings),
        find_run=find_subject,
        name_queue=lambda lane: control_queue(lane, queues, prefix),
        options=lambda batch: sending_options(batch, control_queue(batch.lane, queues, prefix)),
        optional=True,
    )


def _limits(settings: Settings) -> Limits:
    return Limits(
        batch_records=settings.batch_records,
        batch_bytes=settings.batch_bytes,
        linger=settings.linger_ms / 1_000,
        held_bytes=settings.held_bytes,
        ahead=settings.ahead_records,
        stall=settings.stall_seconds,
    )
