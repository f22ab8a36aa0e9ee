"""The rules that a simulation runs: the real ones, unless a planted bug replaces one of them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

from bridge.keeper import Keeper
from bridge.partition import Partition
from storage.apply import BatchApplier
from storage.ledger import Ledger
from tests.simulation.messages import CachedLedger


@dataclass(frozen=True)
class Rules:
    """What to build the actors from.

    Attributes:
        partition: a bridge's view of a partition.
        keeper: a bridge's side of the store.
        applier: what a worker applies batches with.
        worker_ledger: the ledger that workers read.
        bridge_ledger: the ledger that bridges read.
        patch: replaces a module's function for the time of a run.
    """

    partition: type[Partition] = Partition
    keeper: type[Keeper] = Keeper
    applier: type[BatchApplier] = BatchApplier
    worker_ledger: Callable[[], Ledger] = CachedLedger
    bridge_ledger: Callable[[], Ledger] = CachedLedger
    patch: Callable[[], AbstractContextManager[object]] = nullcontext


REAL = Rules()
