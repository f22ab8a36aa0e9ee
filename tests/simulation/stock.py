"""The stock worker: applies record by record, commits without metadata, knows nothing of epochs and cursors.

It is stopped cleanly, as DESIGN asks of it; what a killed one applies twice is not our promise.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.simulation.kafka import Committed
from tests.simulation.store import SimTransaction

if TYPE_CHECKING:
    from tests.simulation.world import World


class StockWorker:
    """The stock workers of all partitions together."""

    def __init__(self, world: World) -> None:
        self._world = world
        kafka = world.kafka
        self._positions = {
            partition: committed.offset if (committed := kafka.commits.get(partition)) else log.start
            for partition, log in enumerate(kafka.logs)
        }

    def step(self) -> None:
        """Take the next record of some partition; commit now and then."""
        world = self._world
        partition = world.rng.randrange(world.profile.partitions)
        position = self._positions[partition]
        found = next((w for w in world.kafka.logs[partition].records if w.record.offset >= position), None)
        if found is not None:
            transaction = SimTransaction(world.store)
            if found.kind in {"good", "delete"}:
                transaction.append(found.run, found.identity)
            world.store.commit(transaction)
            world.truth.stock_did.add(found.identity)
            world.note("applied by stock")
            self._positions[partition] = found.record.offset + 1
        if world.rng.random() < 0.3:
            self._commit(partition)

    def stop(self) -> None:
        """Commit and leave."""
        for partition in self._positions:
            self._commit(partition)

    def _commit(self, partition: int) -> None:
        self._world.kafka.commits[partition] = Committed(self._positions[partition], None)
