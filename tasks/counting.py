"""What an execution of a batch counts as. The rules of the stock workers (CONTRACT 8.2), and ours beside them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from storage import application, control
from storage.cleanup import CleanupState
from storage.errors import Bug, KillsWorkers, UnknownType
from storage.meaning import CONTROL, INGEST
from storage.result import State
from tasks.metrics import (
    BATCHES,
    BLOB_BYTES_DELETED,
    BLOBS_DELETED,
    CLEANUPS_FINISHED,
    CONTROL_ERRORS,
    CONTROL_PROCESSED,
    CONTROL_SECONDS,
    DEAD_LETTERS,
    INGESTION_BATCH_SECONDS,
    INGESTION_BATCH_SIZE,
    INGESTION_BYTES,
    INGESTION_ERRORS,
    INGESTION_PROCESSED,
    INGESTION_RETRIES,
    Metric,
)

if TYPE_CHECKING:
    from storage.batch import Batch
    from storage.cleaner import Cleaned
    from storage.result import Result
    from tasks.meter import Meter

_UNKNOWN: Final = "unknown"  # one label for all unknown types: they could be any number
_OURS: Final = {Bug.reason, KillsWorkers.reason}  # whose fault is not known to be the record's


class _Route(NamedTuple):
    processed: Metric
    errors: Metric
    kinds: frozenset[str]  # the message types that it knows


_ROUTES: Final = {
    INGEST: _Route(INGESTION_PROCESSED, INGESTION_ERRORS, application.TYPES),
    CONTROL: _Route(CONTROL_PROCESSED, CONTROL_ERRORS, control.TYPES),
}


def count_batch(
    meter: Meter, route: str, batch: Batch, result: Result, *, seconds: float, retries: int, failure: str
) -> None:
    """Count one execution.

    Args:
        meter: takes the counts.
        route: the name of what the records mean.
        batch: what was to be applied.
        result: what became of it, also before an error.
        seconds: how long it took.
        retries: transactions that were tried again.
        failure: what ended it early: ``fdb`` (the store), ``unknown`` (a bug); empty: nothing.
    """
    processed, errors, kinds = _ROUTES[route]
    for kind, records in (result.applied + result.dropped).items():
        meter.count(processed, records, kind if kind in kinds else _UNKNOWN)
    for reason, records in result.dead.items():
        meter.count(DEAD_LETTERS, records, batch.source.topic, reason)
        if reason == UnknownType.reason:
            meter.count(processed, records, _UNKNOWN)
        else:
            meter.count(errors, records, "unknown" if reason in _OURS else "validation")
    if failure:
        meter.count(errors, 1, failure)
    else:
        meter.count(BATCHES, 1, batch.source.topic, result.state.value)
    done = not failure and result.state is State.APPLIED
    if route == INGEST:
        _count_ingestion(meter, batch, result, seconds, retries, done=done)
    elif done:
        for _ in range(len(batch.records)):
            meter.observe(CONTROL_SECONDS, seconds / len(batch.records))


def count_cleanup(meter: Meter, cleaned: Cleaned) -> None:
    """Count one execution of a cleanup."""
    meter.count(BLOBS_DELETED, cleaned.objects)
    meter.count(BLOB_BYTES_DELETED, cleaned.bytes)
    entry = cleaned.entry
    if not cleaned.worked or entry is None:
        return
    if entry.state.value in CLEANUPS_FINISHED.known:
        meter.count(CLEANUPS_FINISHED, 1, entry.state.value)
    if entry.error and entry.state in {CleanupState.FAILED, CleanupState.PENDING}:
        meter.count(CONTROL_ERRORS, 1, "blob_storage")


def _count_ingestion(meter: Meter, batch: Batch, result: Result, seconds: float, retries: int, *, done: bool) -> None:
    for size in result.sizes:
        meter.observe(INGESTION_BYTES, size)
    if result.splits:
        meter.count(INGESTION_ERRORS, result.splits, "txn_too_large_split")
    if retries:
        meter.count(INGESTION_RETRIES, retries)
    if done:
        meter.observe(INGESTION_BATCH_SIZE, len(batch.records))
        meter.observe(INGESTION_BATCH_SECONDS, seconds)
