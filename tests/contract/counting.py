"""A counter in a store: what lost updates show in."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from storage.engine import Engine, Transaction


def count_up(engine: Engine, key: bytes, times: int) -> None:
    """Add 1 to the number under ``key``, ``times`` times, one transaction each."""

    def work(transaction: Transaction) -> None:
        transaction.set(key, b"%d" % (int(transaction.get(key).wait() or b"0") + 1))

    for _ in range(times):
        engine.transact(work)
