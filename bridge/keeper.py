"""What the bridge reads and writes in the store, each as one blocking call. For the thread that talks to the store."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple, Protocol

from bridge.takeover import Found, Stamp, Start, decide_start
from storage.ledger import Gap, Owner, Standing, change_lanes, raise_epoch, raise_floor, unpack_owner
from storage.stalls import Stalls
from storage.standstills import Standstills

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from bridge.lookup import Offsets
    from storage.batch import Epoch, Source
    from storage.engine import Engine, Transaction
    from storage.ledger import Ledger
    from storage.stalls import Stall
    from storage.standstills import StandstillNote


class Taken(NamedTuple):
    """A partition that was taken over: who we are in it, where to begin, and the stamp of its commits."""

    source: Source
    owner: Owner
    start: Start
    stamp: Stamp
    offsets: Offsets


class OffsetLookup(Protocol):
    """What the keeper asks Kafka; `bridge.lookup.Lookup` is the real one."""

    def offsets(self, topic: str, partition: int) -> Offsets:
        """Commit and bounds of one partition."""
        ...

    def reach(self, topic: str, partition: int) -> None:
        """See whether `offsets` would be answered."""
        ...

    def topic_id(self, topic: str) -> str:
        """The topic's id."""
        ...


class Wanted(Protocol):
    """What the keeper needs of a route."""

    @property
    def group(self) -> str:
        """Consumer group."""
        ...

    @property
    def lanes(self) -> int:
        """Lanes wanted."""
        ...


class KeptStore(Protocol):
    """What the keeper needs of a store."""

    @property
    def engine(self) -> Engine:
        """The open engine."""
        ...

    @property
    def ledger(self) -> Ledger:
        """Our records."""
        ...


class Keeper:
    """The bridge's side of the ledger.

    Args:
        store: the open store.
        lookup: for the group's commit and the log's bounds.
        route: which group and how many lanes.
        adopt: trust commits that belong to another cluster or store.
        decide: where to begin; the simulation plants wrong ones.
    """

    def __init__(
        self,
        store: KeptStore,
        lookup: OffsetLookup,
        route: Wanted,
        *,
        adopt: bool = False,
        decide: Callable[..., Start] = decide_start,
    ) -> None:
        self._engine = store.engine
        self._ledger = store.ledger
        self._stalls = Stalls(store.ledger)
        self._standstills = Standstills(store.ledger)
        self._lookup = lookup
        self._route = route
        self._adopt = adopt
        self._decide = decide

    def take_over(self, source: Source) -> Taken | None:
        """Fence all others, then decide where to begin. None: somebody else did in between, or the topic changed.

        Raises:
            Refused: a person has to decide.
            StorageUnavailable, KafkaAway: no answer; try again.
        """
        self._lookup.reach(source.topic, source.partition)  # where Kafka does not answer, fence nobody
        owner = raise_epoch(self._engine, self._ledger, source, group=self._route.group, lanes=self._route.lanes)
        offsets = self._lookup.offsets(source.topic, source.partition)  # after the fence: no older commit is to come
        if self._lookup.topic_id(source.topic) != source.topic_id:
            return None  # made anew meanwhile: these offsets are another topic's

        def work(transaction: Transaction) -> Taken | None:
            now = unpack_owner(self._ledger.read_owner(transaction, source).wait())
            if now != owner:
                return None
            store_id = self._ledger.store_id(transaction)
            cursors = self._ledger.cursors(transaction, source)
            found = Found(
                committed=offsets.committed,
                stamp=offsets.stamp,
                log_start=offsets.log_start,
                log_end=offsets.log_end,
                lanes=owner.lanes,
                cursors=cursors,
                floor=self._ledger.floor(transaction, source),
                store=store_id,
            )
            start = self._decide(source, found, adopt=self._adopt)
            for lane, offset in start.cursors.items():
                if cursors.get(lane) != offset:
                    self._ledger.write_cursor(transaction, source, lane, offset)
            self._ledger.write_floor(transaction, source, start.floor)
            if start.gap is not None:
                self._ledger.write_gap(transaction, Gap(source, *start.gap, time.time()))
            return Taken(source, owner, start, Stamp(source.cluster, source.topic_id, store_id), offsets)

        return self._engine.transact(work)

    def look(self) -> None:
        """See whether the store answers.

        Raises:
            StorageUnavailable: it does not.
        """
        self._engine.read(lambda transaction: transaction.get(self._ledger.key("store")).wait())

    def observe(self, sources: Iterable[Source]) -> dict[Source, Standing]:
        """Owner and cursors of several sources in one read.

        Raises:
            StorageUnavailable: no answer.
        """
        wanted = list(sources)
        return self._engine.read(lambda transaction: self._ledger.standings(transaction, wanted))

    def raise_floor(self, source: Source, epoch: Epoch, *, cursors: Mapping[int, int], offset: int) -> bool:
        """Note what is about to be committed; False: do not commit, take over again.

        Raises:
            StorageUnavailable, KafkaAway: no answer.
            NoSuchTopic: the topic is gone.
        """
        if self._lookup.topic_id(source.topic) != source.topic_id:
            return False
        return raise_floor(self._engine, self._ledger, source, epoch, cursors=cursors, offset=offset)

    def change_lanes(self, source: Source, epoch: Epoch, *, cursors: Mapping[int, int], position: int) -> Owner | None:
        """Adopt the route's number of lanes at a drained moment; None: not now, take over again.

        Raises:
            StorageUnavailable: no answer.
        """
        return change_lanes(
            self._engine, self._ledger, source, epoch, cursors=cursors, position=position, lanes=self._route.lanes
        )

    def note_stall(self, stall: Stall) -> None:
        """Note, for people, a batch that does not move.

        Raises:
            StorageUnavailable: no answer.
        """
        self._stalls.note(self._engine, stall)

    def note_standstills(self, notes: Iterable[StandstillNote], gone: Iterable[Source]) -> None:
        """Note, for people, partitions that stand still though they could move, and forget those that move again.

        Raises:
            StorageUnavailable: no answer.
        """
        for note in notes:
            self._standstills.note(self._engine, note)
        for source in gone:
            self._standstills.forget(self._engine, source)

    def leave(self, sources: Iterable[Source]) -> None:
        """Raise the epochs behind us, so that nothing that is still queued anywhere applies.

        Raises:
            StorageUnavailable: no answer.
        """
        for source in sources:
            raise_epoch(self._engine, self._ledger, source, group=self._route.group, lanes=self._route.lanes)
