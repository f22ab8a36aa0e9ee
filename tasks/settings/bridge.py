"""Settings of the bridge and of the batches that it sends."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from tasks.settings.kinds import AlsoNamed, Section


class BridgeSettings(Section):
    """Lanes, queues, batches, and how often the bridge does what; the tasks' time limit."""

    ingest_group: Annotated[str, Field(min_length=1)] = "ingestion-workers"
    """The consumer group; the stock workers' by default, so that it goes on at their offset."""
    ingest_lanes: Annotated[int, Field(ge=1, le=256)] = 8
    """Run-hashed lanes a partition. A changed number is adopted when the partition is drained next."""
    ingest_queues: Annotated[int, Field(ge=1, le=256)] = 8
    """Celery queues: lane modulo this. Bridge and workers must have the same number."""
    control_group: Annotated[str, Field(min_length=1)] = "control-workers"
    """The consumer group of the control topic; the stock workers' by default."""
    control_lanes: Annotated[int, Field(ge=1, le=256)] = 4
    """Lanes a partition of the control topic."""
    control_queues: Annotated[int, Field(ge=1, le=256)] = 4
    """Celery queues of the control topic. Bridge and workers must have the same number."""
    batch_records: Annotated[int, Field(ge=1, le=100_000), AlsoNamed("INGEST_BATCH_SIZE")] = 1_000
    """Most records in a batch."""
    batch_bytes: Annotated[int, Field(ge=1_000, le=8_000_000)] = 1_000_000
    """Most bytes in a batch; a single larger record travels alone."""
    linger_ms: Annotated[int, Field(ge=0, le=60_000), AlsoNamed("INGEST_BATCH_TIMEOUT_MS")] = 20
    """How long a record waits for company in an idle lane."""
    ingest_max_messages_per_txn: Annotated[int, Field(ge=1)] | None = None
    """Most records that a task applies in one transaction. Unset: a whole batch, and less where the store refuses."""
    ingest_max_txn_bytes: Annotated[int, Field(ge=1)] | None = None
    """Most bytes that a task writes in one transaction, as estimated from its records; one larger record goes alone.
    Unset: a whole batch, and less where the store refuses."""
    poll_ms: Annotated[int, Field(ge=1, le=1_000)] = 15
    """How often owner and cursors are read while something is in flight."""
    held_bytes: Annotated[int, Field(ge=1_000)] = 64_000_000
    """Bytes held in memory a partition, beyond which its reading pauses."""
    ahead_records: Annotated[int, Field(ge=1)] = 1_000_000
    """Records between the committable offset and the position, beyond which reading pauses."""
    commit_seconds: Annotated[float, Field(gt=0)] = 1.0
    """How often offsets are committed to Kafka."""
    stall_seconds: Annotated[float, Field(gt=0)] = 5.0
    """Without progress for so long, the store answering, a batch is sent again."""
    drain_seconds: Annotated[float, Field(ge=0)] = 20.0
    """How long SIGTERM and a revoke wait for what is in flight."""
    check_seconds: Annotated[float, Field(gt=0)] = 30.0
    """How often topic id and group are looked at again."""
    task_time_limit_seconds: Annotated[float, Field(ge=5)] = 30.0
    """A worker child that works on one batch for longer is killed; the batch is sent again."""
