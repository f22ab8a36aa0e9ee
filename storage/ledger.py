"""Our own records in the directory ``("bridge",)``: who owns a partition, how far each lane is, what was committed.

Keys (tuple layer, behind the directory's prefix; ``source`` stands for cluster, topic, partition, topic id):

    ("store",)                     random id of this store, made once
    ("owner", *source)             epoch (number, id), group, lanes in force      every task reads it
    ("cursor", *source, lane)      offset of the last record applied              every task reads and writes it
    ("floor", *source)             highest offset that we were about to commit    a key of its own: written often
    ("mark", *source, lane)        the record that a third attempt has begun
    ("gap", *source, first)        records that Kafka dropped before we read them
    ("tombstone_seen", run)        when a job first saw a tombstone whose time cannot be

This module knows keys, values and what one transaction reads and writes; what follows from them is decided in
`storage.judgement` (tasks) and `bridge.takeover` (bridge).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import uuid4

import fdb.tuple
import msgpack

from storage.batch import Epoch, Source
from storage.errors import Refused

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from storage.engine import Engine, Read, Transaction


@dataclass(frozen=True, slots=True)
class Owner:
    """Who may apply records of a source: the bridge of this epoch, in this group, with so many lanes in force."""

    epoch: Epoch
    group: str
    lanes: int


class Mark(NamedTuple):
    """A record that a late attempt has begun.

    Attributes:
        offset: the record's.
        token: the execution's task id and number of retries.
        time: when it was begun, Unix seconds.
        deaths: earlier executions that began it, and were never heard of again.
    """

    offset: int
    token: tuple[str, int]
    time: float
    deaths: int = 0


class Gap(NamedTuple):
    """Offsets ``first`` to ``last`` were gone from Kafka before we read them; noticed at ``time`` (Unix seconds)."""

    source: Source
    first: int
    last: int
    time: float


class Standing(NamedTuple):
    """What the ledger says about one source."""

    owner: Owner | None
    cursors: dict[int, int]


def order_source(source: Source) -> tuple[str, str, int, str]:
    """The source as it stands in keys: topic ids of one name and partition lie side by side."""
    return (source.cluster, source.topic, source.partition, source.topic_id)


def _pack(value: Any) -> bytes:
    packed: bytes = msgpack.packb(value)
    return packed


class Ledger:
    """Reads and writes our records within transactions that the caller runs.

    Args:
        prefix: key prefix of the directory ``("bridge",)``.
    """

    def __init__(self, prefix: bytes) -> None:
        self.prefix = prefix

    def key(self, *elements: Any) -> bytes:
        """The whole key of a tuple in our directory."""
        packed: bytes = self.prefix + fdb.tuple.pack(elements)
        return packed

    def elements(self, key: bytes) -> tuple[Any, ...]:
        """The tuple of a whole key in our directory."""
        unpacked: tuple[Any, ...] = fdb.tuple.unpack(key[len(self.prefix) :])
        return unpacked

    def span(self, *elements: Any) -> tuple[bytes, bytes]:
        """Begin and end of the range of all keys that extend a tuple by at least one element."""
        key = self.key(*elements)
        return key + b"\x00", key + b"\xff"

    # -- the store's own name ------------------------------------------------------------------------------------

    def store_id(self, transaction: Transaction) -> str:
        """The random id of this store; made by the first transaction that asks for it."""
        key = self.key("store")
        value = transaction.get(key).wait()
        if value is None:
            made = uuid4().hex
            transaction.set(key, _pack(made))
            return made
        name: str = msgpack.unpackb(value)
        return name

    # -- owner -----------------------------------------------------------------------------------------------------

    def read_owner(self, transaction: Transaction, source: Source) -> Read[bytes | None]:
        """Start reading the owner; for `unpack_owner`."""
        return transaction.get(self.key("owner", *order_source(source)))

    def write_owner(self, transaction: Transaction, source: Source, owner: Owner) -> None:
        """Write the owner of a source."""
        value = _pack([owner.epoch.number, owner.epoch.id, owner.group, owner.lanes])
        transaction.set(self.key("owner", *order_source(source)), value)

    def owners(self, transaction: Transaction, cluster: str, topic: str, partition: int) -> dict[Source, Owner]:
        """The owners of every topic id that this name and partition ever had."""
        pairs = transaction.get_range(*self.span("owner", cluster, topic, partition)).wait()
        return {self._source(key): owner for key, value in pairs if (owner := unpack_owner(value)) is not None}

    def sources(self, transaction: Transaction) -> dict[Source, Owner]:
        """Every source that was ever taken over, with its owner."""
        pairs = transaction.get_range(*self.span("owner")).wait()
        return {self._source(key): owner for key, value in pairs if (owner := unpack_owner(value)) is not None}

    def _source(self, key: bytes) -> Source:
        _, cluster, topic, partition, topic_id = self.elements(key)[:5]
        return Source(cluster, topic, topic_id, partition)

    # -- cursors ---------------------------------------------------------------------------------------------------

    def read_cursor(self, transaction: Transaction, source: Source, lane: int) -> Read[bytes | None]:
        """Start reading one lane's cursor; for `unpack_offset`."""
        return transaction.get(self.key("cursor", *order_source(source), lane))

    def write_cursor(self, transaction: Transaction, source: Source, lane: int, offset: int) -> None:
        """Write one lane's cursor."""
        transaction.set(self.key("cursor", *order_source(source), lane), _pack(offset))

    def cursors(self, transaction: Transaction, source: Source, *, snapshot: bool = False) -> dict[int, int]:
        """All cursors of a source, by lane; with ``snapshot``, tasks that move them meanwhile are no conflict."""
        pairs = transaction.get_range(*self.span("cursor", *order_source(source)), snapshot=snapshot).wait()
        return self._cursors(pairs)

    def replace_cursors(self, transaction: Transaction, source: Source, cursors: Mapping[int, int]) -> None:
        """Delete the cursors of a source, and its marks, and write these."""
        transaction.clear_range(*self.span("cursor", *order_source(source)))
        transaction.clear_range(*self.span("mark", *order_source(source)))
        for lane, offset in cursors.items():
            self.write_cursor(transaction, source, lane, offset)

    def _cursors(self, pairs: Iterable[tuple[bytes, bytes]]) -> dict[int, int]:
        return {self.elements(key)[5]: msgpack.unpackb(value) for key, value in pairs}

    def standings(self, transaction: Transaction, sources: Iterable[Source]) -> dict[Source, Standing]:
        """Owner and cursors of several sources, all reads in flight together."""
        started = [
            (
                source,
                self.read_owner(transaction, source),
                transaction.get_range(*self.span("cursor", *order_source(source))),
            )
            for source in sources
        ]
        return {
            source: Standing(unpack_owner(owner.wait()), self._cursors(pairs.wait()))
            for source, owner, pairs in started
        }

    def forget(self, transaction: Transaction, source: Source) -> None:
        """Delete owner, cursors and marks of a source, as if it had never been taken over."""
        self.replace_cursors(transaction, source, {})
        transaction.clear(self.key("owner", *order_source(source)))

    # -- floor -----------------------------------------------------------------------------------------------------

    def floor(self, transaction: Transaction, source: Source) -> int | None:
        """The highest offset that we were about to commit; None before the first."""
        return unpack_offset(transaction.get(self.key("floor", *order_source(source))).wait())

    def write_floor(self, transaction: Transaction, source: Source, offset: int) -> None:
        """Write the floor."""
        transaction.set(self.key("floor", *order_source(source)), _pack(offset))

    # -- marks -----------------------------------------------------------------------------------------------------

    def mark(self, transaction: Transaction, source: Source, lane: int) -> Mark | None:
        """The record that a late attempt has begun in this lane."""
        value = transaction.get(self.key("mark", *order_source(source), lane)).wait()
        if value is None:
            return None
        offset, task, retries, time, deaths = msgpack.unpackb(value)
        return Mark(offset, (task, retries), time, deaths)

    def write_mark(self, transaction: Transaction, source: Source, lane: int, mark: Mark) -> None:
        """Write the mark of a lane."""
        value = _pack([mark.offset, *mark.token, mark.time, mark.deaths])
        transaction.set(self.key("mark", *order_source(source), lane), value)

    def clear_mark(self, transaction: Transaction, source: Source, lane: int) -> None:
        """Remove the mark of a lane."""
        transaction.clear(self.key("mark", *order_source(source), lane))

    # -- gaps ------------------------------------------------------------------------------------------------------

    def write_gap(self, transaction: Transaction, gap: Gap) -> None:
        """Keep a gap, for people to see."""
        transaction.set(self.key("gap", *order_source(gap.source), gap.first), _pack([gap.last, gap.time]))

    def gaps(self, transaction: Transaction) -> list[Gap]:
        """Every gap that was ever noticed."""
        pairs = transaction.get_range(*self.span("gap")).wait()
        return [Gap(self._source(key), self.elements(key)[5], *msgpack.unpackb(value)) for key, value in pairs]


def unpack_owner(value: bytes | None) -> Owner | None:
    """The owner that a stored value stands for."""
    if value is None:
        return None
    number, name, group, lanes = msgpack.unpackb(value)
    return Owner(Epoch(number, name), group, lanes)


def unpack_offset(value: bytes | None) -> int | None:
    """The offset that a stored value stands for."""
    if value is None:
        return None
    offset: int = msgpack.unpackb(value)
    return offset


def raise_epoch(engine: Engine, ledger: Ledger, source: Source, *, group: str, lanes: int) -> Owner:
    """First step of a take-over: fence every older task and bridge of this partition.

    Writes owner records alone, which every task reads: a busy cursor cannot starve it. Owners of older topic ids of
    the same name are raised too. The lanes in force stay what they are; they change at a drained moment only.

    Args:
        engine: the open store.
        ledger: our records in it.
        source: the partition to take over.
        group: the consumer group that takes it over.
        lanes: the number of lanes if the source was never taken over before.

    Raises:
        Refused: the partition belongs to another consumer group.
        StorageUnavailable: the store did not answer.
    """
    new_id = uuid4().hex

    def work(transaction: Transaction) -> Owner:
        owners = ledger.owners(transaction, source.cluster, source.topic, source.partition)
        for owner in owners.values():
            if owner.group != group:
                msg = (
                    f"{source} belongs to the consumer group {owner.group!r}, this bridge runs in {group!r}: "
                    "set the group back, or use another store"
                )
                raise Refused(msg)
        epoch = Epoch(1 + max((owner.epoch.number for owner in owners.values()), default=0), new_id)
        ours = owners.pop(source, None)
        mine = Owner(epoch, group, ours.lanes if ours else lanes)
        ledger.write_owner(transaction, source, mine)
        for older, owner in owners.items():
            ledger.write_owner(transaction, older, Owner(epoch, group, owner.lanes))
        return mine

    return engine.transact(work)


def raise_floor(
    engine: Engine, ledger: Ledger, source: Source, epoch: Epoch, *, cursors: Mapping[int, int], offset: int
) -> bool:
    """Note that ``offset`` is about to be committed.

    The cursors that the offset rests on must still be there: a store that went back may have gone back to this very
    epoch, and a floor above what it holds would hide from the next take-over that records are missing.

    The cursors are read by snapshot: every task's commit writes one of them, and under load one comes between the reads
    and the commit nearly always. Nothing is lost by it. What may change a cursor between the two, with the owner as it
    was read?

    * A task, of the owner's epoch: it raises the cursor, and 'not lower than seen' stays true.
    * The second transaction of a take-over makes cursors or lifts them, and lowers none. Its first has written the
      owner, before our reads or after them, and the owner is read serializably. (It is not the one of this very epoch:
      a bridge commits once that is through, and one whose end is not known is followed by another take-over.)
    * A change of lanes, and `Ledger.forget`, write the owner in the same transaction.
    * A store that goes back does so as a whole. A backup that is restored writes owner and floor with the cursors, and
      a value that is written again is a conflict as well; after a power cut nothing that was under way is committed.

    The floor is read serializably as well, so that it never sinks.

    Args:
        engine: the open store.
        ledger: our records in it.
        source: the partition.
        epoch: the bridge's epoch.
        cursors: every lane's cursor as the bridge has seen it.
        offset: the offset.

    Returns:
        False where another bridge owns the source now, or a cursor is lower than it was: do not commit.

    Raises:
        StorageUnavailable: the store did not answer.
    """

    def work(transaction: Transaction) -> bool:
        owner_read = ledger.read_owner(transaction, source)
        stored = ledger.cursors(transaction, source, snapshot=True)
        owner = unpack_owner(owner_read.wait())
        if owner is None or owner.epoch != epoch:
            return False
        if _has_gone_back(stored, cursors):
            return False
        floor = ledger.floor(transaction, source)
        if floor is None or floor < offset:
            ledger.write_floor(transaction, source, offset)
        return True

    return engine.transact(work)


def _has_gone_back(stored: Mapping[int, int], seen: Mapping[int, int]) -> bool:
    """Whether the store has lost what it had told the bridge: a cursor is lower than it was, or gone."""
    return any((cursor := stored.get(lane)) is None or cursor < known for lane, known in seen.items())


def change_lanes(
    engine: Engine,
    ledger: Ledger,
    source: Source,
    epoch: Epoch,
    *,
    cursors: Mapping[int, int],
    position: int,
    lanes: int,
) -> Owner | None:
    """Adopt a new number of lanes at a drained moment: every new cursor is ``position - 1``, the epoch is raised.

    That the moment is drained is known from the cursors as the bridge has seen them, so they must still be there, as
    in `raise_floor`: in a store that has gone back since, the new ones would cover records that it does not hold.

    Args:
        engine: the open store.
        ledger: our records in it.
        source: the partition.
        epoch: the bridge's epoch.
        cursors: every lane's cursor as the bridge has seen it.
        position: the offset that is read next; all below it is applied.
        lanes: the new number.

    Returns:
        The new owner; None where another bridge owns the source now, a cursor is lower than it was, or one is not
        below ``position``.

    Raises:
        StorageUnavailable: the store did not answer.
    """
    new_id = uuid4().hex

    def work(transaction: Transaction) -> Owner | None:
        owner, stored = ledger.standings(transaction, [source])[source]
        if owner is None:
            return None
        if owner.epoch.id == new_id:  # an earlier try of this very transaction went through ("maybe committed")
            return owner
        if owner.epoch != epoch or max(stored.values(), default=-1) >= position:
            return None
        if _has_gone_back(stored, cursors):
            return None
        changed = Owner(Epoch(epoch.number + 1, new_id), owner.group, lanes)
        ledger.write_owner(transaction, source, changed)
        ledger.replace_cursors(transaction, source, dict.fromkeys(range(lanes), position - 1))
        return changed

    return engine.transact(work)
