"""Whether a run's blobs may go: the truth is in storage, whatever an event says."""

from __future__ import annotations

from typing import TYPE_CHECKING

from storage.encoding import TRUE, span
from storage.handlers.run import RunKeys

if TYPE_CHECKING:
    from storage.directories import Directories
    from storage.engine import Transaction


def find_obstacle(transaction: Transaction, directories: Directories, run: str) -> str | None:
    """Why a run's blobs must stay.

    Args:
        transaction: in which the answer holds.
        directories: key prefixes.
        run: the run's id.

    Returns:
        None where the run is deleted (a tombstone), about to be (``pending_deletion``), or unknown: no meta and no
        data of it. Otherwise the reason, for people.
    """
    keys = RunKeys(directories, run)
    tombstone = transaction.get(keys.tombstone)
    pending = transaction.get(keys.meta_field("pending_deletion"))
    meta = transaction.get_range(*span(keys.meta), limit=1)
    data = transaction.get_range(*span(keys.data), limit=1)
    if tombstone.wait() is not None or pending.wait() == TRUE or not data.wait():
        return None
    kind = "meta" if meta.wait() else "data, though no meta"
    return f"the run lives: it has {kind}, no tombstone, and is not about to be deleted"
