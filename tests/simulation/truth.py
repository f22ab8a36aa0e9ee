"""What must be true: each record that Kafka holds is applied exactly once in its run's order, or is a dead letter."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING

from bridge.lanes import choose_lane, find_run
from bridge.takeover import unpack_stamp
from storage.ledger import unpack_owner
from tests.simulation.messages import CachedLedger
from tests.simulation.store import Identity, SimStore, SimTransaction, Version

if TYPE_CHECKING:
    from storage.batch import Source
    from tests.simulation.kafka import Kafka, Written
    from tests.simulation.world import World

LEDGER = CachedLedger()
TROUBLE = {
    "invalid": {"invalid"},
    "unknown": {"unknown_type"},
    "bug": {"bug", "kills_workers"},
    "killer": {"kills_workers"},
}


class Truth:
    """What the simulation knows and the code under test does not."""

    def __init__(self) -> None:
        self.stock_did: set[Identity] = set()
        self.suspects: defaultdict[Source, set[int]] = defaultdict(set)  # offsets of late executions that broke off
        self.began: dict[Source, int] = {}  # where the first take-over of a source began to read
        self.went_back = False
        self._gone: defaultdict[Source, set[int]] = defaultdict(set)
        self._former: list[Written] = []  # records of former lives
        self._after_stock: set[int] = set()  # partitions not taken over since stock workers had them

    # -- what the store may go back to -----------------------------------------------------------------------------

    def stock_begins(self, partitions: int) -> None:
        self._after_stock = set(range(partitions))

    def is_after_stock(self, partition: int) -> bool:
        return partition in self._after_stock

    def stock_over(self, partition: int, store: SimStore) -> None:
        if partition in self._after_stock:
            self._after_stock.discard(partition)
            store.forget_past()

    def may_go_back_to(self, world: World, version: Version) -> bool:
        """Whether the promise covers going back there: see DESIGN, 'What is not promised' and the take-over table."""
        name = LEDGER.key("store")
        if self._after_stock or version.data.get(name) != world.store.version.data.get(name):
            return False
        for partition in range(world.profile.partitions):
            if _cursors(world, partition, world.store.version) and not _cursors(world, partition, version):
                return False  # a store without our records: a bridge asks what to do, rightly
            committed = world.kafka.commits.get(partition)
            candidates = [commit.committed for commit in world.kafka.under_way if commit.partition == partition]
            if committed is not None:
                candidates.append(committed)
            for candidate in candidates:
                stamp = unpack_stamp(candidate.metadata)
                if stamp is None and candidate.offset > read_coverage(world, partition, version):
                    return False
        return True

    def note_gap(self, world: World, source: Source, first: int, last: int) -> None:
        """A bridge has counted offsets as lost: once each, unless the store has forgotten that."""
        gone = set(range(first, last + 1))
        if gone & self._gone[source] and not self.went_back:
            world.fail(f"{source}: offsets {first} to {last} are counted as lost, and some of them were before")
        self._gone[source] |= gone

    def end_life(self, kafka: Kafka) -> None:
        """The topic is deleted: nobody is owed its records any more, but none may be applied twice."""
        for log in kafka.logs:
            self._former += log.records

    # -- the check -------------------------------------------------------------------------------------------------

    def check_so_far(self, world: World) -> None:
        """Nothing twice, nothing out of order."""
        for run, log in world.store.version.logs.items():
            if list(log) != sorted(set(log)):
                doubles = [identity for identity, count in Counter(log).items() if count > 1]
                what = f"applied twice: {doubles}" if doubles else "out of order"
                world.fail(f"{run} {what}: {[tuple(identity) for identity in log]}")

    def check(self, world: World) -> None:
        """The promise, when all has come to rest."""
        self.check_so_far(world)
        transaction = SimTransaction(world.store)
        dead = _read_dead(transaction)
        gaps = LEDGER.gaps(transaction)
        for partition, log in enumerate(world.kafka.logs):
            source = world.kafka.source(partition)
            ours = [gap for gap in gaps if gap.source == source]
            for written in log.records:
                offset = written.record.offset
                applied = written.identity in world.store.version.logs.get(written.run, ())
                reason = dead.get((source, offset))
                if applied and reason:
                    world.fail(f"{written.identity} applied and dead ({reason})")
                if applied or self._is_rightly_dead(source, written, reason):
                    continue
                if reason:
                    world.fail(f"{written.identity} ({written.kind}) is dead: {reason}")
                if written.identity in self.stock_did and written.kind not in {"good", "delete"}:
                    continue  # logged and left by the stock worker
                if offset in log.lost and (self.went_back or offset < self.began.get(source, log.end)):
                    continue  # gone before we were there; or the store may have forgotten that it noted the gap
                if offset in log.lost and any(gap.first <= offset <= gap.last for gap in ours):
                    world.note("record in a gap")
                    continue
                world.fail(f"{written.identity} ({written.kind}) of {written.run} is lost")

    def _is_rightly_dead(self, source: Source, written: Written, reason: str | None) -> bool:
        if reason is None:
            return False
        if reason in TROUBLE.get(written.kind, set()):
            return True
        return reason == "kills_workers" and written.record.offset in self.suspects[source]


def _read_dead(transaction: SimTransaction) -> dict[tuple[Source, int], str]:
    from storage.batch import Source
    from storage.dead_letters import _unpack_head

    dead = {}
    for key, value in transaction.get_range(*LEDGER.span("dead")).wait():
        _, cluster, topic, partition, topic_id, offset = LEDGER.elements(key)
        source = Source(cluster, topic, topic_id, partition)
        dead[source, offset] = _unpack_head(source, offset, value).reason
    return dead


def _cursors(world: World, partition: int, version: Version) -> dict[int, int]:
    transaction = SimTransaction(world.store)
    transaction.version = version
    return LEDGER.cursors(transaction, world.kafka.source(partition))


def read_coverage(world: World, partition: int, version: Version) -> int:
    """The first offset of a partition's log that its cursors do not cover in a version of the store."""
    transaction = SimTransaction(world.store)
    transaction.version = version
    source = world.kafka.source(partition)
    owner = unpack_owner(LEDGER.read_owner(transaction, source).wait())
    cursors = LEDGER.cursors(transaction, source)
    log = world.kafka.logs[partition]
    for written in log.records:
        offset = written.record.offset
        if owner is None or not cursors:
            return offset
        if offset > cursors.get(choose_lane(find_run(written.record), owner.lanes), -1):
            return offset
    return log.end
