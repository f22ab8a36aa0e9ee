"""Wrong rules, each in place of a right one: the simulation must find every one of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, cast
from unittest.mock import patch

from bridge.keeper import Keeper
from bridge.partition import Partition, Seen
from bridge.takeover import Found, Start, decide_start
from storage.apply import BatchApplier
from storage.batch import Batch, Source
from storage.judgement import Verdict, judge
from storage.ledger import Owner, Standing, order_source, raise_floor, unpack_offset
from tests.simulation.messages import CachedLedger
from tests.simulation.rules import Rules

if TYPE_CHECKING:
    from storage.engine import Read, Transaction
    from tests.simulation.bridge import SimBridge
    from tests.simulation.store import SimTransaction


class IgnoresEpoch(BatchApplier):
    """A task that applies whatever bridge sent it."""

    def judge(self, batch: Batch, owner: Owner | None, cursor: int | None, *, after: int, last: int) -> Verdict:
        epoch = owner.epoch if owner is not None else batch.epoch
        return judge(owner, cursor, epoch=epoch, after=after, last=last)


class SnapshotEpoch(CachedLedger):
    """The owner is read without a conflict range."""

    def read_owner(self, transaction: Transaction, source: Source) -> Read[bytes | None]:
        return cast("SimTransaction", transaction).get_without_conflict(self.key("owner", *order_source(source)))


class SnapshotCursor(CachedLedger):
    """The cursor is read without a conflict range."""

    def read_cursor(self, transaction: Transaction, source: Source, lane: int) -> Read[bytes | None]:
        key = self.key("cursor", *order_source(source), lane)
        return cast("SimTransaction", transaction).get_without_conflict(key)


class SnapshotReads(SnapshotEpoch, SnapshotCursor):
    """Both are."""


class CommitsPosition(Partition):
    """Kafka's offset is committed as far as was read, not as far as was applied."""

    def committable(self) -> int:
        return self.position


class CursorApart(BatchApplier):
    """The cursor is written after the records, in a transaction of its own."""

    def move_cursor(self, transaction: Transaction, batch: Batch, offset: int) -> None:
        """Not here."""

    def _apply_part(self, batch: Batch, *rest: Any) -> Any:
        part = super()._apply_part(batch, *rest)
        if part.verdict is Verdict.APPLY:
            end = rest[3]
            last = batch.records[end - 1].offset
            self.engine.transact(lambda tr: self.ledger.write_cursor(tr, batch.source, batch.lane, last))
        return part


class PartWritesLast(BatchApplier):
    """A part of a batch moves the cursor to the end of the whole batch."""

    def move_cursor(self, transaction: Transaction, batch: Batch, offset: int) -> None:
        super().move_cursor(transaction, batch, batch.last)


class FreesWithoutCursor(Partition):
    """A lane is free once its batch was handed to the broker."""

    def is_done(self, lane: Any) -> bool:
        return lane.batch is not None and lane.moved is not None


class SwitchesUndrained(Partition):
    """The number of lanes changes while batches are on their way."""

    @property
    def may_switch(self) -> bool:
        return self.caught_up


def start_at_minus_one(source: Source, found: Found, *, adopt: bool = False) -> Start:
    """New cursors are -1, not one below the commit."""
    start = decide_start(source, found, adopt=adopt)
    cursors = {lane: found.cursors.get(lane, -1) for lane in start.cursors}
    return replace(start, cursors=cursors)


class TrustsForeignEpoch(Partition):
    """A bridge that goes on with cursors it read under another bridge's epoch."""

    def observe(self, standing: Standing, now: float) -> Seen:
        if standing.owner is not None:
            standing = standing._replace(owner=replace(standing.owner, epoch=self.epoch))
        return super().observe(standing, now)


def start_without_floor(source: Source, found: Found, *, adopt: bool = False) -> Start:
    """A commit of ours is believed, whatever the store says."""
    return decide_start(source, replace(found, floor=found.committed), adopt=adopt)


class KeepsNoFloor(Keeper):
    """The floor is neither written nor looked at; only the epoch is checked before a commit."""

    def raise_floor(self, source: Source, epoch: Any, *, cursors: Mapping[int, int], offset: int) -> bool:
        owner = self.observe([source])[source].owner
        return owner is not None and owner.epoch == epoch


class SnapshotAll(SnapshotEpoch):
    """Owner and floor are read without a conflict range, where the cursors are."""

    def floor(self, transaction: Transaction, source: Source) -> int | None:
        key = self.key("floor", *order_source(source))
        return unpack_offset(cast("SimTransaction", transaction).get_without_conflict(key).wait())


class SnapshotFloor(Keeper):
    """Raising the floor reads nothing serializably, so that a store that goes back meanwhile is not noticed."""

    def raise_floor(self, source: Source, epoch: Any, *, cursors: Mapping[int, int], offset: int) -> bool:
        return raise_floor(self._engine, SnapshotAll(), source, epoch, cursors=cursors, offset=offset)


class ChangesLanesBlindly(Keeper):
    """Lanes change by what the bridge has seen, though the store may have gone back since."""

    def change_lanes(self, source: Source, epoch: Any, *, cursors: Mapping[int, int], position: int) -> Owner | None:
        return super().change_lanes(source, epoch, cursors={}, position=position)


def begin_by_seek(bridge: SimBridge, partition: int) -> None:
    """The consumer is told to seek: where it was once told a wrong offset it refuses, and nothing more is read."""


def assign_at_zero(bridge: SimBridge, partition: int) -> None:
    """A partition is assigned at offset 0 before it is decided where to begin."""
    if bridge.world.kafka.logs[partition].start > 0:
        bridge.broken.add(partition)


class CountsMarkers(Partition):
    """Behind the last record all that takes offsets is waited for, as if it were records."""

    def reach(self, offset: int) -> None:
        """Nothing is learnt."""


def start_at_log_start(source: Source, found: Found, *, adopt: bool = False) -> Start:
    """Where the group has no commit all is read again, whatever the store knows."""
    start = decide_start(source, found, adopt=adopt)
    return start if found.committed is not None else replace(start, offset=found.log_start)


def start_beyond_the_end(source: Source, found: Found, *, adopt: bool = False) -> Start:
    """A log that was cut is not noticed."""
    return decide_start(source, replace(found, log_end=1_000_000), adopt=adopt)


def start_finding_gaps_again(source: Source, found: Found, *, adopt: bool = False) -> Start:
    """A gap is found at each take-over until a commit lands that is behind it."""
    start = decide_start(source, found, adopt=adopt)
    if start.gap is None and found.committed is not None and found.committed < found.log_start:
        return replace(start, gap=(found.committed, found.log_start - 1))
    return start


def _deciding(decide: Any) -> Any:
    return lambda: patch.object(Keeper.__init__, "__kwdefaults__", {"adopt": False, "decide": decide})


PLANTED: Final[dict[str, Rules]] = {
    "ignores_epoch": Rules(applier=IgnoresEpoch),
    "snapshot_epoch": Rules(worker_ledger=SnapshotEpoch),
    "snapshot_reads": Rules(worker_ledger=SnapshotReads),
    "snapshot_cursor": Rules(worker_ledger=SnapshotCursor),
    "commits_position": Rules(partition=CommitsPosition),
    "cursor_apart": Rules(applier=CursorApart),
    "part_writes_last": Rules(applier=PartWritesLast),
    "frees_without_cursor": Rules(partition=FreesWithoutCursor),
    "switches_undrained": Rules(partition=SwitchesUndrained),
    "cursors_at_minus_one": Rules(patch=_deciding(start_at_minus_one)),
    "trusts_foreign_epoch": Rules(partition=TrustsForeignEpoch),
    "changes_lanes_blindly": Rules(keeper=ChangesLanesBlindly),
    "snapshot_floor": Rules(keeper=SnapshotFloor),
    "assigns_at_zero": Rules(given=assign_at_zero, begin=begin_by_seek),
    "seeks_where_the_offset_is_gone": Rules(begin=begin_by_seek),
    "counts_markers": Rules(partition=CountsMarkers),
    "log_end_from_the_open_transaction": Rules(bounds=lambda log: (log.readable, log.readable)),
    "reads_all_again_without_a_commit": Rules(patch=_deciding(start_at_log_start)),
    "takes_no_notice_of_a_cut_log": Rules(patch=_deciding(start_beyond_the_end)),
    "finds_gaps_again": Rules(patch=_deciding(start_finding_gaps_again)),
    "no_floor": Rules(keeper=KeepsNoFloor, patch=_deciding(start_without_floor)),
}
