"""What became of a batch in one execution, and how much goes into one transaction."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Final, NamedTuple

from storage.errors import Poison
from storage.meaning import APPLIED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from storage.batch import Record
    from storage.envelope import Envelope
    from storage.meaning import FollowUp, Outcome

SHOWN: Final = 20  # dead letters of one batch that are told one by one
# What the stock worker takes a message to write, about; it errs on the high side.
_METRIC_BYTES: Final = 316
_OTHER_BYTES: Final = 500


class State(Enum):
    """How a batch ended."""

    APPLIED = "applied"
    SUPERSEDED = "superseded"
    DUPLICATE = "duplicate"
    EARLY = "early"
    UNFINISHED = "unfinished"  # out of time, or another execution has begun a record of it and may still be alive


class Refused(NamedTuple):
    """A record that became a dead letter, in short.

    Attributes:
        offset: its offset.
        run: its run id, as far as it has one.
        error: why it can never be applied.
    """

    offset: int
    run: str
    error: Poison


@dataclass(slots=True)
class Result:
    """What became of a batch in one execution. True of what is committed, also after an error.

    Attributes:
        state: how it ended; APPLIED when the cursor has reached the batch's last record and we moved it.
        applied: records applied, by message type.
        dropped: late records of deleted runs, by message type.
        dead: records dead-lettered, by reason.
        refused: the first of these, at most `SHOWN`.
        covered: records that an earlier execution had applied.
        transactions: transactions that moved the cursor.
        sizes: estimated bytes of each of those.
        splits: transactions that the store found too large, and that went on with less.
        follow_ups: what can be done now at once, in the order of the records.
    """

    state: State = State.APPLIED
    applied: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)
    dead: Counter[str] = field(default_factory=Counter)
    refused: list[Refused] = field(default_factory=list)
    covered: int = 0
    transactions: int = 0
    sizes: list[int] = field(default_factory=list)
    splits: int = 0
    follow_ups: list[FollowUp] = field(default_factory=list)

    def add(
        self, records: Sequence[Record], items: Sequence[Envelope | Poison], outcomes: Sequence[Outcome], covered: int
    ) -> None:
        """Add a transaction that moved the cursor.

        Args:
            records: those that it applied.
            items: the same, decoded.
            outcomes: what became of each.
            covered: records before them that the cursor had covered.
        """
        self.covered += covered
        self.transactions += 1
        self.sizes.append(sum(map(estimate, records, items)))
        for record, item, outcome in zip(records, items, outcomes, strict=True):
            if outcome is APPLIED and not isinstance(item, Poison):  # as most are
                self.applied[item.type] += 1
                continue
            if outcome.follow_up is not None:
                self.follow_ups.append(outcome.follow_up)
            if outcome.error is not None:
                self.dead[outcome.error.reason] += 1
                if len(self.refused) < SHOWN:
                    run = (record.key or b"").decode("utf-8", "replace") if isinstance(item, Poison) else item.run_id
                    self.refused.append(Refused(record.offset, run, outcome.error))
            elif isinstance(item, Poison):
                continue  # never: what could not be decoded is dead
            elif outcome.kind == "dropped":
                self.dropped[item.type] += 1
            else:
                self.applied[item.type] += 1


def estimate(record: Record, item: Envelope | Poison) -> int:
    """Bytes that a record writes, about."""
    if not isinstance(item, Poison) and item.type == "log_metric":
        return _METRIC_BYTES
    return _OTHER_BYTES + record.size


class Portion(NamedTuple):
    """How much of a batch goes into one transaction at most; None: all of it.

    Attributes:
        records: most records.
        bytes: most estimated bytes; a single larger record goes alone.
    """

    records: int | None = None
    bytes: int | None = None

    def end(self, records: Sequence[Record], items: Sequence[Envelope | Poison], begin: int, end: int) -> int:
        """Where the part that begins at ``begin`` ends, at most at ``end``."""
        if self.records is not None:
            end = min(end, begin + self.records)
        if self.bytes is not None:
            left = self.bytes
            for index in range(begin, end):
                left -= estimate(records[index], items[index])
                if left < 0:
                    return max(index, begin + 1)
        return end
