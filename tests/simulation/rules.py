"""The rules that a simulation runs: the real ones, unless a planted bug replaces one of them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bridge.keeper import Keeper
from bridge.partition import Partition
from storage.apply import BatchApplier
from storage.ledger import Ledger
from tests.simulation.messages import CachedLedger

if TYPE_CHECKING:
    from tests.simulation.bridge import SimBridge
    from tests.simulation.kafka import Log


def assign_anew(bridge: SimBridge, partition: int) -> None:
    """Take a partition from the consumer and give it back: it reads again, whatever was with it."""
    bridge.broken.discard(partition)


@dataclass(frozen=True)
class Rules:
    """What to build the actors from.

    Attributes:
        partition: a bridge's view of a partition.
        keeper: a bridge's side of the store.
        applier: what a worker applies batches with.
        worker_ledger: the ledger that workers read.
        bridge_ledger: the ledger that bridges read.
        given: what a bridge's consumer does when the group gives it a partition.
        begin: what it does when it is decided where to begin.
        bounds: log end and where reading ends, as a bridge asks for them.
        patch: replaces a module's function for the time of a run.
    """

    partition: type[Partition] = Partition
    keeper: type[Keeper] = Keeper
    applier: type[BatchApplier] = BatchApplier
    worker_ledger: Callable[[], Ledger] = CachedLedger
    bridge_ledger: Callable[[], Ledger] = CachedLedger
    given: Callable[[SimBridge, int], None] = lambda _bridge, _partition: None
    begin: Callable[[SimBridge, int], None] = assign_anew
    bounds: Callable[[Log], tuple[int, int]] = lambda log: (log.end, log.readable)
    patch: Callable[[], AbstractContextManager[object]] = nullcontext


REAL = Rules()
