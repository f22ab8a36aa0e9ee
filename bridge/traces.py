"""Which traces the records of a batch belong to: noted as they are read, since records do not keep their headers."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Final

from tasks.tracing import HEADER, is_tracing

if TYPE_CHECKING:
    from confluent_kafka import Message

    from storage.batch import Batch

_KEPT: Final = 100_000  # some 20 MB; of older records the traces are forgotten


class RecordTraces:
    """The ``traceparent`` of records that were read and not sent for long. Used by the loop and the sending thread."""

    def __init__(self) -> None:
        self._on = is_tracing()
        self._parents: OrderedDict[tuple[int, int], str] = OrderedDict()

    def note(self, partition: int, offset: int, message: Message) -> None:
        """Keep a record's trace, if it has one. Does nothing where nothing is traced."""
        if not self._on:
            return
        headers: Any = message.headers()
        for name, value in headers or ():
            if name == HEADER and isinstance(value, bytes):
                self._parents[partition, offset] = value.decode("ascii", "replace")
                if len(self._parents) > _KEPT:
                    self._parents.popitem(last=False)
                return

    def of(self, batch: Batch) -> list[str]:
        """The traces of a batch's records, each once, the first first."""
        if not self._parents:
            return []
        partition = batch.source.partition
        found = (self._parents.get((partition, record.offset)) for record in batch.records)
        return list(dict.fromkeys(parent for parent in found if parent is not None))
