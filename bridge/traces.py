"""Which traces the records of a batch belong to: what their headers say, where anything is traced."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tasks.tracing import HEADER, is_tracing

if TYPE_CHECKING:
    from storage.batch import Batch


def find_parents(batch: Batch) -> list[str]:
    """The ``traceparent`` of a batch's records, each once, the first first; none where nothing is traced."""
    if not is_tracing():
        return []
    found = (
        value.decode("ascii", "replace")
        for record in batch.records
        for name, value in record.headers
        if name == HEADER and value is not None
    )
    return list(dict.fromkeys(found))
