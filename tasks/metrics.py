"""Every metric that we have, declared here and nowhere else; `tasks.meter` holds their values.

The first eleven are the stock workers' (CONTRACT 8.2): names, labels, buckets and meaning stay as they are, so that a
dashboard made for those goes on working. Where one process did it all there, here the bridge consumes and the workers
process: a sum over all processes says the same.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final, NamedTuple


class Kind(StrEnum):
    """What a metric is to Prometheus."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


class Role(StrEnum):
    """What a process is, and so which metrics it has.

    A worker that consumes no lanes is a cleaner where it does cleanups, and `jobs` where it does not.
    """

    BRIDGE = "bridge"
    WORKER = "worker"
    CLEANER = "cleaner"
    JOBS = "jobs"
    BEAT = "beat"


class Metric(NamedTuple):
    """One metric.

    Attributes:
        name: as Prometheus sees it.
        kind: what it is.
        roles: the processes that have it.
        meaning: a sentence, for people and as its HELP.
        labels: their names.
        known: values of the only label that are there from the start, at 0.
        buckets: of a histogram.
    """

    name: str
    kind: Kind
    roles: tuple[Role, ...]
    meaning: str
    labels: tuple[str, ...] = ()
    known: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()


_SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_BRIDGE: Final = (Role.BRIDGE,)
_WORKERS: Final = (Role.WORKER, Role.CLEANER, Role.JOBS)
_BEAT: Final = (Role.BEAT,)

# -- the stock workers', ingestion -------------------------------------------------------------------------------------

INGESTION_CONSUMED: Final = Metric(
    "matyan_ingestion_messages_consumed_total",
    Kind.COUNTER,
    _BRIDGE,
    "Records read from the ingestion topic, invalid ones and those that were applied before too.",
)
INGESTION_PROCESSED: Final = Metric(
    "matyan_ingestion_messages_processed_total",
    Kind.COUNTER,
    _WORKERS,
    "Records whose transaction is committed, late ones of deleted runs and those of unknown types (as `unknown`) too.",
    ("message_type",),
)
INGESTION_ERRORS: Final = Metric(
    "matyan_ingestion_processing_errors_total",
    Kind.COUNTER,
    _WORKERS,
    "`fdb`: executions that the store ended, to be tried again; `validation`: records dead-lettered for what they hold;"
    " `unknown`: those for a bug or for killing workers; `txn_too_large_split`: transactions that went on in halves.",
    ("error_type",),
    known=("fdb", "validation", "unknown", "txn_too_large_split"),
)
INGESTION_BATCH_SIZE: Final = Metric(
    "matyan_ingestion_batch_size",
    Kind.HISTOGRAM,
    _WORKERS,
    "Records in each batch that was applied.",
    buckets=(1, 5, 10, 25, 50, 100, 200, 500),
)
INGESTION_BATCH_SECONDS: Final = Metric(
    "matyan_ingestion_batch_processing_seconds",
    Kind.HISTOGRAM,
    _WORKERS,
    "Seconds that applying a batch took.",
    buckets=_SECONDS,
)
INGESTION_BYTES: Final = Metric(
    "matyan_ingestion_txn_estimated_bytes",
    Kind.HISTOGRAM,
    _WORKERS,
    "Estimated bytes of each committed transaction, by the stock worker's rule.",
    buckets=(100_000, 500_000, 1_000_000, 2_000_000, 4_000_000, 8_000_000, 10_000_000),
)
INGESTION_RETRIES: Final = Metric(
    "matyan_ingestion_fdb_retries_total",
    Kind.COUNTER,
    _WORKERS,
    "Transactions of ingestion batches that were tried again, each time.",
)

# -- the stock workers', control ---------------------------------------------------------------------------------------

CONTROL_CONSUMED: Final = Metric(
    "matyan_control_events_consumed_total",
    Kind.COUNTER,
    _BRIDGE,
    "Records read from the control topic, invalid ones and those that were applied before too.",
)
CONTROL_PROCESSED: Final = Metric(
    "matyan_control_events_processed_total",
    Kind.COUNTER,
    _WORKERS,
    "Control events whose transaction is committed, those of unknown types (as `unknown`) too.",
    ("event_type",),
)
CONTROL_ERRORS: Final = Metric(
    "matyan_control_processing_errors_total",
    Kind.COUNTER,
    _WORKERS,
    "`validation`: events dead-lettered for what they hold; `fdb`: executions that the store ended; `blob_storage`:"
    " tries of a cleanup that the blob store ended; `unknown`: a bug. All but the dead-lettered are tried again.",
    ("error_type",),
    known=("validation", "fdb", "blob_storage", "unknown"),
)
CONTROL_SECONDS: Final = Metric(
    "matyan_control_processing_duration_seconds",
    Kind.HISTOGRAM,
    _WORKERS,
    "Seconds that a control event took: its share of its batch. Blobs are deleted later, by a cleanup.",
    buckets=_SECONDS,
)

# -- ours: the bridge --------------------------------------------------------------------------------------------------

LAG_RECORDS: Final = Metric(
    "matyan_bridge_lag_records",
    Kind.GAUGE,
    _BRIDGE,
    "Records between the offset below which all is applied and the log's end.",
    ("topic", "partition"),
)
LAG_SECONDS: Final = Metric(
    "matyan_bridge_lag_seconds",
    Kind.GAUGE,
    _BRIDGE,
    "Age of the partition's oldest record that is not applied, by the time its producer gave it; 0 if there is none.",
    ("topic", "partition"),
)
OLDEST_UNAPPLIED: Final = Metric(
    "matyan_bridge_oldest_unapplied_seconds",
    Kind.GAUGE,
    _BRIDGE,
    "The highest of these ages among the partitions that this bridge has: what to scale workers by.",
    ("topic",),
)
IN_FLIGHT: Final = Metric(
    "matyan_bridge_batches_in_flight",
    Kind.GAUGE,
    _BRIDGE,
    "Batches that are sent and not seen applied; at most one a lane.",
    ("topic",),
)
PARTITIONS: Final = Metric(
    "matyan_bridge_partitions",
    Kind.GAUGE,
    _BRIDGE,
    "Partitions that this bridge has: `assigned` by Kafka, and of these `reading`: taken over.",
    ("topic", "state"),
)
STANDING_SECONDS: Final = Metric(
    "matyan_bridge_standing_seconds",
    Kind.GAUGE,
    _BRIDGE,
    "Seconds for which a partition has stood still though it could move: it is not taken over, not read or not"
    " committed, and nothing is away that it would have to wait for. Only those that do.",
    ("topic", "partition"),
)
RESENDS: Final = Metric(
    "matyan_bridge_resends_total",
    Kind.COUNTER,
    _BRIDGE,
    "Batches that were sent again because their cursor had not moved.",
    ("topic",),
)
SKIPPED: Final = Metric(
    "matyan_bridge_records_skipped_total",
    Kind.COUNTER,
    _BRIDGE,
    "Records that were read again and skipped, since their lane's cursor covers them.",
    ("topic",),
)
LOST: Final = Metric(
    "matyan_bridge_lost_offsets_total",
    Kind.COUNTER,
    _BRIDGE,
    "Offsets that were gone from Kafka before they were read: lost, and listed by `matyan-celery status`.",
    ("topic",),
)

# -- ours: the workers -------------------------------------------------------------------------------------------------

BATCHES: Final = Metric(
    "matyan_tasks_batches_total",
    Kind.COUNTER,
    _WORKERS,
    "Executions of batches by how they ended: `applied`; `superseded` (another epoch), `duplicate` and `early`, which"
    " change nothing; `unfinished` (goes on as another execution).",
    ("topic", "state"),
)
DEAD_LETTERS: Final = Metric(
    "matyan_dead_letters_total",
    Kind.COUNTER,
    _WORKERS,
    "Records that were put aside as dead letters, by reason.",
    ("topic", "reason"),
)
STORE_RETRIES: Final = Metric(
    "matyan_store_retries_total",
    Kind.COUNTER,
    _WORKERS,
    "Transactions of any kind that were tried again, each time.",
)
CLEANUPS_FINISHED: Final = Metric(
    "matyan_cleanups_finished_total",
    Kind.COUNTER,
    _WORKERS,
    "Cleanups that came to an end, by state: `done`, `failed`, `held`.",
    ("state",),
    known=("done", "failed", "held"),
)
BLOBS_DELETED: Final = Metric(
    "matyan_blobs_deleted_total",
    Kind.COUNTER,
    _WORKERS,
    "Objects that the blob store has deleted for us.",
)
BLOB_BYTES_DELETED: Final = Metric(
    "matyan_blob_bytes_deleted_total",
    Kind.COUNTER,
    _WORKERS,
    "Their bytes, as listed.",
)

# -- ours: what the store holds, read by beat --------------------------------------------------------------------------

CLEANUPS: Final = Metric(
    "matyan_cleanups",
    Kind.GAUGE,
    _BEAT,
    "Cleanups in the ledger, by state.",
    ("state",),
)
CASCADES: Final = Metric(
    "matyan_cascades",
    Kind.GAUGE,
    _BEAT,
    "Cascades in the ledger, by state: what pointed to a deleted experiment, tag or project and is to be cleared.",
    ("state",),
)
OUTBOX: Final = Metric(
    "matyan_outbox_events",
    Kind.GAUGE,
    _BEAT,
    "Events that are not published to Kafka yet.",
)
DEAD_LETTERS_KEPT: Final = Metric(
    "matyan_dead_letters",
    Kind.GAUGE,
    _BEAT,
    "Dead letters that wait for a person, by reason.",
    ("reason",),
)
LEDGER_AGE: Final = Metric(
    "matyan_ledger_age_seconds",
    Kind.GAUGE,
    _BEAT,
    "Seconds since beat last read these four; grows while the store is away.",
)

# -- ours: every process -----------------------------------------------------------------------------------------------

UP: Final = Metric("matyan_up", Kind.GAUGE, tuple(Role), "1, with what the process is.", ("role",))

REDIS_WAITING: Final = Metric(
    "matyan_redis_waiting",
    Kind.GAUGE,
    tuple(Role),
    "1 while the process waits for Redis, by why: `AWAY` (no connection, or no answer in time), or the word by which"
    " Redis refuses, such as `READONLY`.",
    ("code",),
)

METRICS: Final[tuple[Metric, ...]] = tuple(value for value in list(globals().values()) if isinstance(value, Metric))


def metrics_of(role: Role) -> list[Metric]:
    """The metrics that a process has."""
    return [metric for metric in METRICS if role in metric.roles]
