"""Apply recorded records without Kafka, in the order given, by the same code as the task."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from uuid import uuid4

from storage.apply import LATE_ATTEMPT, BatchApplier, Result, State
from storage.batch import Batch, Epoch, Record, Source
from storage.errors import Refused, StorageError
from storage.ledger import Owner
from storage.meaning import INGEST

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from storage.engine import Transaction
    from storage.recorded import Recorded
    from storage.store import Store

CLUSTER: Final = "replay"  # stands for the Kafka cluster in dead letters of replayed records
_LANE: Final = 0


class _OriginApplier(BatchApplier):
    """Keeps dead letters under the place that a record was recorded at, not under its number in the replay."""

    recorded: Sequence[Recorded]  # the records of the batch, in its order

    def origin(self, batch: Batch, record: Record) -> tuple[Source, int]:
        topic, partition, original = self.recorded[record.offset - batch.first]
        return Source(CLUSTER, topic, CLUSTER, partition), original.offset


class Replay:
    """One replay into a store: `apply` any number of batches, then `finish`.

    The records are numbered as they come and applied under a source of the replay's own, whose cursor moves with them
    and which is forgotten in the end. A replay of the same records again applies them again.

    Args:
        store: where to.
        route: what the records mean: runs' data, or control events.
    """

    def __init__(self, store: Store, route: str = INGEST) -> None:
        self._store = store
        self._applier = _OriginApplier(store.engine, store.ledger, store.meaning_of(route))
        self._source = Source(CLUSTER, CLUSTER, uuid4().hex, 0)
        self._epoch = Epoch(1, uuid4().hex)
        self._number = 0

        def work(transaction: Transaction) -> None:
            store.ledger.write_owner(transaction, self._source, Owner(self._epoch, CLUSTER, 1))
            store.ledger.write_cursor(transaction, self._source, _LANE, -1)

        store.engine.transact(work)

    def apply(self, recorded: Iterable[Recorded]) -> Result:
        """Apply some records as one batch.

        Raises:
            StorageUnavailable: the store did not answer.
            Refused: another process has meddled with the replay's own records.
        """
        self._applier.recorded = recorded = tuple(recorded)
        records = tuple(record._replace(offset=number) for number, (_, _, record) in enumerate(recorded, self._number))
        batch = Batch(self._source, _LANE, self._epoch, 1, self._number - 1, records)
        self._number += len(records)
        whole = Result()
        while True:
            try:
                result = self._applier.apply(batch)
            except StorageError:
                raise
            except Exception:  # a handler's bug; as behind the bridge, a late attempt finds the record and keeps it
                if batch.attempt >= LATE_ATTEMPT:
                    raise
                batch = batch.again()
                continue
            whole.applied += result.applied
            whole.dead += result.dead
            whole.dropped += result.dropped
            whole.transactions += result.transactions
            if result.state is State.UNFINISHED:
                continue  # out of its time budget between two parts; the cursor knows where
            if result.state not in {State.APPLIED, State.DUPLICATE}:
                msg = f"the replay's own cursor is gone ({result.state.value}): was the store cleared meanwhile?"
                raise Refused(msg)
            return whole

    def finish(self) -> None:
        """Forget the replay's own records."""
        self._store.engine.transact(lambda transaction: self._store.ledger.forget(transaction, self._source))
