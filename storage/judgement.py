"""Does a batch apply? The decision of DESIGN's rule 4, free of I/O.

The rules are the methods of a small class, so that a test can plant a wrong one and show that the simulation finds it.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from storage.batch import Epoch
    from storage.ledger import Owner


class Verdict(Enum):
    """What a task does with a batch."""

    APPLY = "apply"
    SUPERSEDED = "superseded"
    DUPLICATE = "duplicate"
    EARLY = "early"


def judge(owner: Owner | None, cursor: int | None, *, epoch: Epoch, after: int, last: int) -> Verdict:
    """Whether records up to ``last`` are applied now.

    Args:
        owner: the owner record of the batch's source, None if there is none.
        cursor: the lane's cursor, None if there is none. Only a take-over or a lane switch makes cursors.
        epoch: the epoch that the batch was cut in.
        after: the cursor that shows that the batch's turn has come.
        last: the offset of the last record.

    Returns:
        SUPERSEDED: another epoch is in force. DUPLICATE: applied before. EARLY: its turn has not come.
        APPLY: apply the records past the cursor.
    """
    if owner is None or owner.epoch != epoch or cursor is None:
        return Verdict.SUPERSEDED
    if cursor >= last:
        return Verdict.DUPLICATE
    if cursor < after:
        return Verdict.EARLY
    return Verdict.APPLY
