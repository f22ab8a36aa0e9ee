"""One partition in one epoch: what was read, what is on its way, what may be committed. No I/O and no clock.

A lane's life:

    waiting ──due──▶ in flight ──cursor reaches the batch's last──▶ free again, `after` = that offset
                        │  ▲
                        └──┘ stalled: sent again, its attempt raised

Everything here belongs to one epoch and is thrown away with it. Times are seconds of any one monotonic clock.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from enum import Enum
from operator import attrgetter
from typing import TYPE_CHECKING, Final

from bridge.lanes import choose_lane
from storage.batch import Batch, Epoch, Record, Source

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from storage.ledger import Standing

_TRUSTING: Final = 3  # attempts that an empty queue is taken for a loss; later ones are more likely with the workers
_OFFSET: Final = attrgetter("offset")
_OVERHEAD: Final = 200  # bytes that Python holds for a record beside its key and value, about


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds and times of a partition.

    Attributes:
        batch_records: most records in a batch.
        batch_bytes: most bytes in a batch; a single larger record travels alone.
        linger: seconds that a record waits for company in an idle lane.
        held_bytes: bytes held, in flight included, beyond which reading pauses.
        ahead: records between the committable offset and the position beyond which reading pauses.
        stall: seconds without progress, the store answering, after which a batch counts as lost.
        stall_cap: the longest wait before a batch is sent again that may still be on its way.
    """

    batch_records: int = 1_000
    batch_bytes: int = 1_000_000
    linger: float = 0.02
    held_bytes: int = 64_000_000
    ahead: int = 1_000_000
    stall: float = 5.0
    stall_cap: float = 120.0


class Seen(Enum):
    """What an observation of the store means."""

    FINE = "fine"
    FENCED = "fenced"  # another epoch: use nothing of what was read
    WENT_BACK = "went back"  # a cursor is lower than it was: the store lost what it had told us


@dataclass(slots=True)
class _Lane:
    """One lane: records waiting, and at most one batch on its way."""

    cursor: int
    after: int
    waiting: deque[Record] = field(default_factory=deque)
    oldest: float = 0.0  # when the first of the waiting came
    batch: Batch | None = None
    moved: float | None = None  # last progress of the batch; None until it was handed to the broker
    patience: float = 0.0  # seconds until it is sent again even if its queue is not empty


class Partition:
    """The state of one source in one epoch.

    Args:
        source: which partition.
        epoch: the epoch in which it was taken over.
        cursors: every lane's cursor; their number is the lanes in force.
        start: the offset at which reading begins.
        limits: bounds and times.
    """

    def __init__(self, source: Source, epoch: Epoch, cursors: Mapping[int, int], start: int, limits: Limits) -> None:
        self.source = source
        self.epoch = epoch
        self.start = self.position = start
        self.held = 0
        self.skipped = 0
        self.resent = 0
        self._highest = max(cursors.values())
        self._limits = limits
        self._lanes = {number: _Lane(cursor, cursor) for number, cursor in cursors.items()}
        self._answered: float | None = None  # since when the store has been answering
        self._paused = False

    @property
    def lanes(self) -> int:
        """Lanes in force."""
        return len(self._lanes)

    @property
    def cursors(self) -> dict[int, int]:
        """Every lane's cursor, as last seen."""
        return {number: lane.cursor for number, lane in self._lanes.items()}

    # -- reading ---------------------------------------------------------------------------------------------------

    def take(self, record: Record, run: bytes, now: float) -> bool:
        """Take the next record of the log. One that its lane's cursor covers is skipped: it was applied before.

        Returns:
            Whether it was taken, and not skipped.
        """
        self.position = record.offset + 1
        lane = self._lanes[choose_lane(run, len(self._lanes))]
        if record.offset <= lane.cursor:
            self.skipped += 1
            return False
        if not lane.waiting:
            lane.oldest = now
        lane.waiting.append(record)
        self.held += record.size + _OVERHEAD
        return True

    def reach(self, offset: int) -> None:
        """All below an offset is read: behind the last record only what is none (markers and aborted transactions)."""
        self.position = max(self.position, offset)

    @property
    def caught_up(self) -> bool:
        """Whether everything that was ever applied has been read again: the position is beyond every cursor."""
        return self.position > self._highest

    def is_full(self) -> bool:
        """Whether reading should pause: too much held, or too far ahead of what may be committed."""
        part = 0.5 if self._paused else 1.0  # some way below the bound before reading goes on
        self._paused = (
            self.held > self._limits.held_bytes * part or self.position - self.committable() > self._limits.ahead * part
        )
        return self._paused

    # -- sending ---------------------------------------------------------------------------------------------------

    def due(self, now: float, *, drain: bool = False) -> list[Batch]:
        """Cut the batches whose time has come: one in flight a lane, after a linger (none when draining)."""
        batches = []
        for number, lane in self._lanes.items():
            if lane.batch is not None or not lane.waiting:
                continue
            full = len(lane.waiting) >= self._limits.batch_records
            if full or drain or now - lane.oldest >= self._limits.linger:
                batches.append(self._cut(number, lane, now))
        return batches

    def next_due(self, now: float) -> float | None:
        """Seconds until a lane's linger ends; None where no idle lane has records waiting."""
        waits = [
            lane.oldest + self._limits.linger - now
            for lane in self._lanes.values()
            if lane.batch is None and lane.waiting
        ]
        return max(min(waits), 0.0) if waits else None

    def _cut(self, number: int, lane: _Lane, now: float) -> Batch:
        records = [lane.waiting.popleft()]
        size = records[0].size
        while lane.waiting and len(records) < self._limits.batch_records:
            size += lane.waiting[0].size
            if size > self._limits.batch_bytes:
                break
            records.append(lane.waiting.popleft())
        lane.oldest = now
        lane.batch = Batch(self.source, number, self.epoch, 1, lane.after, tuple(records))
        lane.moved = None
        lane.patience = self._limits.stall
        return lane.batch

    def sent(self, batch: Batch, now: float) -> None:
        """The broker has taken a batch (as far as it says)."""
        lane = self._lanes.get(batch.lane)
        if batch.epoch == self.epoch and lane is not None and lane.batch == batch:
            lane.moved = now

    # -- watching --------------------------------------------------------------------------------------------------

    def observe(self, standing: Standing, now: float) -> Seen:
        """Learn owner and cursors, read together from the store."""
        if standing.owner is None or standing.owner.epoch != self.epoch:
            return Seen.FENCED
        if self._answered is None:
            self._answered = now
        for number, lane in self._lanes.items():
            cursor = standing.cursors.get(number)
            if cursor is None or cursor < lane.cursor:
                return Seen.WENT_BACK
            if cursor > lane.cursor:
                lane.cursor = cursor
                self._highest = max(self._highest, cursor)
                lane.patience = self._limits.stall
                if lane.moved is not None:
                    lane.moved = now
            if self.is_done(lane):
                self._free(lane)
        return Seen.FINE

    def unanswered(self) -> None:
        """The store did not answer: no batch can be called stalled until it has done so for a while."""
        self._answered = None

    def is_done(self, lane: _Lane) -> bool:
        """Whether a lane's batch is applied: its cursor has reached the last offset."""
        return lane.batch is not None and lane.cursor >= lane.batch.last

    def _free(self, lane: _Lane) -> None:
        if lane.batch is None:
            return
        self.held -= sum(record.size + _OVERHEAD for record in lane.batch.records)
        lane.after = lane.batch.last
        lane.batch = None

    @property
    def in_flight(self) -> int:
        """Batches on their way."""
        return sum(lane.batch is not None for lane in self._lanes.values())

    @property
    def is_drained(self) -> bool:
        """Whether nothing is waiting or on its way."""
        return all(lane.batch is None and not lane.waiting for lane in self._lanes.values())

    @property
    def may_switch(self) -> bool:
        """Whether the lanes may change now: all that was ever applied is read again, nothing is outstanding."""
        return self.caught_up and self.is_drained

    @property
    def stall(self) -> float:
        """Seconds without progress after which a batch is stalled."""
        return self._limits.stall

    # -- sending again ---------------------------------------------------------------------------------------------

    def stalled(self, now: float) -> list[Batch]:
        """Batches on their way without progress for the stall time, while the store was answering."""
        if self._answered is None:
            return []
        return [
            lane.batch
            for lane in self._lanes.values()
            if lane.batch is not None and now - self._still_since(lane, now) >= self._limits.stall
        ]

    def resend(self, batch: Batch, now: float, *, queue_is_empty: bool) -> Batch | None:
        """The batch for its next attempt, if it is to be sent again now.

        A queue that is empty has lost it, or a worker that died has it: the first attempts follow at once. After these,
        workers are more likely to hold it, and to wait for a store that takes no writes. There, and where the queue is
        not empty and it may be waiting its turn, the patience doubles each time, up to a cap, or without end there
        would be ever more copies. A duplicate is harmless.
        """
        lane = self._lanes[batch.lane]
        if lane.batch != batch:
            return None
        is_lost = queue_is_empty and batch.attempt < _TRUSTING
        if not is_lost and now - self._still_since(lane, now) < lane.patience:
            return None
        lane.patience = min(max(lane.patience, self._limits.stall) * 2, self._limits.stall_cap)
        lane.batch = batch.again()
        lane.moved = None
        self.resent += 1
        return lane.batch

    def _still_since(self, lane: _Lane, now: float) -> float:
        """Since when a batch has stood still, as far as the store's answers tell."""
        if lane.moved is None or self._answered is None:
            return now
        return max(lane.moved, self._answered)

    # -- committing ------------------------------------------------------------------------------------------------

    def committable(self) -> int:
        """The offset below which every lane has applied; with nothing outstanding, the position."""
        oldest = self.oldest()
        return self.position if oldest is None else oldest.offset

    def oldest(self) -> Record | None:
        """The first record that is read and not applied."""
        firsts = (_first(lane) for lane in self._lanes.values())
        return min((record for record in firsts if record is not None), key=_OFFSET, default=None)

    @property
    def unapplied(self) -> int:
        """Records that are read and not applied."""
        return sum(_count_unapplied(lane) for lane in self._lanes.values())

    def lags(self) -> Iterable[tuple[int, int, int]]:
        """Per lane: its number, cursor, and records held."""
        for number, lane in self._lanes.items():
            flying = len(lane.batch.records) if lane.batch else 0
            yield number, lane.cursor, len(lane.waiting) + flying


def _count_unapplied(lane: _Lane) -> int:
    flying = 0 if lane.batch is None else sum(record.offset > lane.cursor for record in lane.batch.records)
    return len(lane.waiting) + flying


def _first(lane: _Lane) -> Record | None:
    """The first record of a lane that is read and not applied."""
    if lane.batch is not None:
        return next((record for record in lane.batch.records if record.offset > lane.cursor), None)
    return lane.waiting[0] if lane.waiting else None
