"""A bridge of the simulation: the loop's I/O, one small step at a time, around the real Partition and Keeper.

It mirrors `bridge.loop` and what that calls: the main thread's steps are `step`; what the loop asks its store thread to
do waits in ``jobs`` until the scheduler runs one (`work_desk`), and its answer waits until a later step takes it. A
bridge that lost a partition without being told goes on as a zombie until it hears of it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from bridge.fresh import KafkaAway
from bridge.lanes import find_run
from bridge.lookup import Offsets
from bridge.partition import Limits, Partition, Seen
from bridge.route import Route
from bridge.takeover import unpack_stamp
from storage.batch import pack_batch
from storage.cascades import Cascades
from storage.cleanups import Cleanups
from storage.control import ControlApplier
from storage.dead_letters import DeadLetters
from storage.errors import Refused, StorageUnavailable
from storage.outbox import Outbox
from storage.store import Store
from tests.simulation.kafka import TOPIC, Committed, CommitUnderWay, OffsetOutOfRange, TopicGone
from tests.simulation.messages import DIRECTORIES, LogApplier
from tests.simulation.store import Crash, SimEngine

if TYPE_CHECKING:
    from bridge.keeper import Taken
    from bridge.lookup import Lookup
    from bridge.takeover import Stamp
    from storage.batch import Batch
    from storage.ledger import Owner
    from tests.simulation.world import World

T = TypeVar("T")
GROUP = "ingestion-workers"


class TopicChanged(Exception):
    """The topic was made anew."""


@dataclass(slots=True)
class Holding:
    """An assigned partition; ``state`` is None until it is taken over."""

    number: int
    state: Partition | None = None
    stamp: Stamp | None = None
    paused: bool = False
    astray: bool = False
    committed: int | None = None  # the last offset sent as a commit
    landed: int | None = None  # the last of them that Kafka has answered
    committing: bool = False
    switching: bool = False
    taking: bool = False
    not_before: float = 0.0


class SimLookup:
    """The bridge's questions to Kafka; others act while it waits for the answer."""

    def __init__(self, world: World, bridge: SimBridge) -> None:
        self._world = world
        self._bridge = bridge

    def topic_id(self, topic: str) -> str:
        self._wait()
        return self._world.kafka.topic_id

    def offsets(self, topic: str, partition: int) -> Offsets:
        self._wait()
        kafka = self._world.kafka
        log, committed = kafka.logs[partition], kafka.commits.get(partition)
        if committed is None:
            return Offsets(None, None, log.start, *self._world.rules.bounds(log))
        stamp = unpack_stamp(committed.metadata)
        return Offsets(committed.offset, stamp, log.start, *self._world.rules.bounds(log))

    def reach(self, topic: str, partition: int) -> None:
        """Nothing: that Kafka goes away between this and the next question is what the simulation plays."""

    def _wait(self) -> None:
        self._world.interleave()
        if not self._bridge.alive:
            raise Crash
        if self._world.chance("kafka away"):
            raise KafkaAway("no answer")


class SimBridge:
    """One bridge process.

    Args:
        world: everything else.
        name: for traces and assignments.
        drain: read only what was applied before, as ``matyan-celery drain`` does.
    """

    def __init__(self, world: World, name: str, *, drain: bool = False) -> None:
        self.world = world
        self.name = name
        self.alive = True
        self.draining = drain
        self.busy = False  # a job of the desk is running
        self.topic_id = world.kafka.topic_id
        self.holdings: dict[int, Holding] = {}
        self.broken: set[int] = set()  # partitions that the consumer reads no more: it was told a wrong offset
        self.jobs: deque[tuple[Callable[[], Any], Callable[[Any], None], Callable[[Exception], None]]] = deque()
        self.answers: deque[Callable[[], None]] = deque()
        self.refused: list[Batch] = []
        self.observing = False
        self.limits = world.profile.limits
        self.route = Route(TOPIC, GROUP, "ingest", world.lanes_wanted, self.limits, find_run, str, lambda batch: {})
        ledger = world.rules.bridge_ledger()
        engine = SimEngine(world.store, world.weather(self))
        cleanups = Cleanups(ledger)
        store = Store(
            engine,
            DIRECTORIES,
            ledger,
            LogApplier(),
            DeadLetters(ledger),
            cleanups,
            Outbox(ledger),
            ControlApplier(cleanups, Cascades(ledger).ask),
        )
        lookup: Lookup = SimLookup(world, self)  # type: ignore[assignment]
        self.keeper = world.rules.keeper(store, lookup, self.route, adopt=False)

    # -- the two threads -------------------------------------------------------------------------------------------

    def ask(self, job: Callable[[], T], then: Callable[[T], None], failed: Callable[[Exception], None]) -> None:
        self.jobs.append((job, then, failed))

    def work_desk(self) -> None:
        """Do the desk's next job."""
        if not self.jobs or self.busy:
            return
        job, then, failed = self.jobs.popleft()
        self.busy = True
        try:
            result = job()
        except Exception as error:  # noqa: BLE001 - as the desk does: the loop decides
            caught = error
            self.answers.append(lambda: failed(caught))
        else:
            self.answers.append(lambda: then(result))
        finally:
            self.busy = False

    def answer(self) -> None:
        while self.answers:
            self.answers.popleft()()

    def step(self) -> None:
        """One random step of the main thread."""
        rng = self.world.rng
        try:
            if rng.random() < 0.8:
                self.answer()
            choice = rng.random()
            if choice < 0.35:
                self.poll()
            elif choice < 0.65:
                self.work()
            elif choice < 0.85:
                self.observe()
            elif choice < 0.97:
                self.commit()
            else:
                self.check()
        except TopicChanged:
            self.begin_anew()

    def turn(self) -> None:
        """All of it once, for the quiet end."""
        try:
            self.answer()
            self.poll()
            self.work()
            self.observe()
            self.commit()
            self.check()
            while self.jobs:
                self.work_desk()
            self.answer()
        except TopicChanged:
            self.begin_anew()

    def begin_anew(self) -> None:
        """A new loop for the topic's new life, in the same process: old jobs and answers are nobody's any more."""
        self.world.note("topic change noticed")
        for holding in list(self.holdings.values()):
            self.commit_now(holding)
        self.topic_id = self.world.kafka.topic_id
        self.jobs.clear()
        self.answers.clear()
        self.refused.clear()
        self.observing = False
        self.holdings = {number: Holding(number) for number in self.holdings}  # others may have gone meanwhile
        self.broken.clear()  # a consumer of its own

    def failed(self, error: Exception) -> None:
        """Wait where waiting helps."""
        if isinstance(error, (StorageUnavailable, KafkaAway)):
            return
        if isinstance(error, Refused):
            self.world.refused(error)
            self.world.fail(f"{self.name} stopped: {error}")
            return
        raise error

    # -- reading ---------------------------------------------------------------------------------------------------

    def poll(self) -> None:
        for holding in self._shuffled():
            state = holding.state
            if state is None or holding.paused or holding.astray or holding.number in self.broken:
                continue
            most = self.world.rng.randint(1, 8)
            try:
                records, is_end = self.world.kafka.fetch(self.topic_id, holding.number, state.position, most)
            except (OffsetOutOfRange, TopicGone) as error:
                self.world.note("fetch refused")
                holding.astray = True
                self.broken.add(holding.number)
                if isinstance(error, TopicGone):
                    self.check()
                continue
            for record in records:
                state.take(record, find_run(record), self.world.now)
            if is_end:
                state.reach(self.world.kafka.logs[holding.number].readable)  # behind what is no record

    def work(self) -> None:
        now = self.world.now
        for holding in self._shuffled():
            state = holding.state
            if state is None:
                self.take_over(holding)
                continue
            for batch in state.due(now, drain=self.draining or self.must_switch(state) or holding.astray):
                self.send(state, batch)
            if not holding.astray:
                self.switch_lanes(holding, state)
                hold = state.is_full() or (state.caught_up and (self.draining or self.must_switch(state)))
                if hold and not holding.paused:
                    self.world.note("paused")
                holding.paused = hold
            elif state.is_drained and holding.landed == state.committable():
                self.drop(holding)
                continue
            for batch in state.stalled(now):
                again = state.resend(batch, now, queue_is_empty=self.world.broker.is_empty(batch.lane))
                if again is not None:
                    self.world.note("resent")
                    self.send(state, again)
        refused, self.refused = self.refused, []
        for batch in refused:
            current = self.holdings.get(batch.source.partition)
            if current is not None and current.state is not None and current.state.epoch == batch.epoch:
                self.send(current.state, batch)

    def send(self, state: Partition, batch: Batch) -> None:
        world = self.world
        world.trace(f"{self.name} sends {batch} {[r.offset for r in batch.records]} after {batch.after}")
        if world.chance("redis away"):
            if world.rng.random() < 0.5:
                world.broker.send(batch.lane, pack_batch(batch))
            self.refused.append(batch)
            return
        world.broker.send(batch.lane, pack_batch(batch))
        state.sent(batch, world.now)

    def _shuffled(self) -> list[Holding]:
        holdings = list(self.holdings.values())
        if len(holdings) > 1 and self.world.rng.random() < 0.5:
            holdings.reverse()
        return holdings

    # -- take-over -------------------------------------------------------------------------------------------------

    def take_over(self, holding: Holding) -> None:
        if holding.taking or self.world.now < holding.not_before:
            return
        holding.taking = True
        source = self.world.kafka.source(holding.number)._replace(topic_id=self.topic_id)

        def then(taken: Taken | None) -> None:
            holding.taking = False
            if self.holdings.get(holding.number) is not holding:
                return
            if taken is None:
                self.world.note("take-over overtaken")
                self.drop(holding)
                return
            self.begin(holding, taken)

        def failed(error: Exception) -> None:
            holding.taking = False
            self.failed(error)
            self.drop(holding)

        def job() -> Taken | None:
            taken = self.keeper.take_over(source)
            if taken is not None:
                self.world.taken_over(source, taken)
            return taken

        self.ask(job, then, failed)

    def begin(self, holding: Holding, taken: Taken) -> None:
        start = taken.start
        self.world.rules.begin(self, holding.number)
        self.world.trace(f"{self.name} took {taken.source} over: {taken.owner} {start} commit {taken.offsets}")
        holding.state = self.world.rules.partition(
            taken.source, taken.owner.epoch, start.cursors, start.offset, self.limits
        )
        holding.stamp = taken.stamp
        is_ours = taken.offsets.stamp in {taken.stamp, taken.stamp.at(taken.offsets.committed)}
        holding.committed = taken.offsets.committed if is_ours else None
        holding.landed = holding.committed
        holding.switching = holding.committing = holding.paused = holding.astray = False

    def drop(self, holding: Holding) -> None:
        holding.state = None
        holding.not_before = self.world.now + 0.05

    # -- watching --------------------------------------------------------------------------------------------------

    def observe(self) -> None:
        states = {h.state.source: h.state for h in self.holdings.values() if h.state is not None}
        if self.observing or not states:
            return
        self.observing = True

        def then(standings: dict[Any, Any]) -> None:
            self.observing = False
            for source, state in states.items():
                holding = self.holdings.get(source.partition)
                if holding is None or holding.state is not state:
                    continue
                seen = state.observe(standings[source], self.world.now)
                if seen is not Seen.FINE:
                    self.world.note(f"seen: {seen.value}")
                    self.world.trace(f"{self.name} {source}: {seen.value}")
                    self.drop(holding)

        def failed(error: Exception) -> None:
            self.observing = False
            for state in states.values():
                state.unanswered()
            self.failed(error)

        self.ask(lambda: self.keeper.observe(states), then, failed)

    # -- committing ------------------------------------------------------------------------------------------------

    def commit(self) -> None:
        for holding in self._shuffled():
            self.commit_one(holding)

    def commit_one(self, holding: Holding) -> None:
        state = holding.state
        if state is None or holding.committing or holding.committed == state.committable():
            return
        offset = state.committable()
        holding.committing = True

        def then(ours: bool) -> None:
            holding.committing = False
            if self.holdings.get(holding.number) is not holding or holding.state is not state:
                return
            if not ours:
                self.world.note("commit refused")
                self.drop(holding)
                self.check()
                return
            self.to_kafka(holding, offset, at_once=False)

        def failed(error: Exception) -> None:
            holding.committing = False
            self.failed(error)

        self.ask(lambda: self.raise_floor(state, offset), then, failed)

    def raise_floor(self, state: Partition, offset: int) -> bool:
        return self.keeper.raise_floor(state.source, state.epoch, cursors=state.cursors, offset=offset)

    def to_kafka(self, holding: Holding, offset: int, *, at_once: bool) -> None:
        committed = Committed(offset, holding.stamp.at(offset).pack() if holding.stamp is not None else None)
        self.world.trace(f"{self.name} commits [{holding.number}] {offset}{'' if at_once else ' some time'}")
        holding.committed = offset

        def answer(landed: bool) -> None:
            if landed:
                holding.landed = offset
            elif holding.committed == offset:
                holding.committed = None  # sent again

        if at_once or self.world.calm:
            self.world.kafka.commits[holding.number] = committed
            answer(True)
        else:
            self.world.kafka.under_way.append(CommitUnderWay(self.name, holding.number, committed, answer))

    def commit_now(self, holding: Holding) -> None:
        """Commit what may be committed, waiting for it."""
        state = holding.state
        if state is None or holding.landed == state.committable():
            return
        offset = state.committable()
        try:
            ours = self.raise_floor(state, offset)
        except (StorageUnavailable, KafkaAway):
            return
        if ours and self.holdings.get(holding.number) is holding and holding.state is state:
            self.to_kafka(holding, offset, at_once=True)

    # -- lanes -----------------------------------------------------------------------------------------------------

    def must_switch(self, state: Partition) -> bool:
        return state.lanes != self.route.lanes

    def switch_lanes(self, holding: Holding, state: Partition) -> None:
        if not self.must_switch(state) or holding.switching or not state.may_switch:
            return
        if not holding.paused:
            return
        holding.switching = True
        position, seen = state.position, state.cursors

        def then(owner: Owner | None) -> None:
            holding.switching = False
            if self.holdings.get(holding.number) is not holding or holding.state is not state:
                return
            if owner is None:
                self.world.note("lane switch refused")
                self.drop(holding)
                return
            self.world.note("lanes switched")
            self.world.trace(f"{self.name} {state.source}: {owner.lanes} lanes from {position} on, epoch {owner.epoch}")
            cursors = dict.fromkeys(range(owner.lanes), position - 1)
            holding.state = self.world.rules.partition(state.source, owner.epoch, cursors, position, self.limits)

        def failed(error: Exception) -> None:
            holding.switching = False
            self.failed(error)

        self.ask(
            lambda: self.keeper.change_lanes(state.source, state.epoch, cursors=seen, position=position), then, failed
        )

    # -- the topic, the group, the end -----------------------------------------------------------------------------

    def check(self) -> None:
        if self.world.kafka.topic_id != self.topic_id:
            raise TopicChanged

    def assign(self, partition: int) -> None:
        if partition not in self.holdings:
            self.holdings[partition] = Holding(partition)
            self.world.rules.given(self, partition)

    def lose(self, partition: int, *, told: bool) -> None:
        """A partition goes: with a last commit (revoked), or without (lost)."""
        holding = self.holdings.get(partition)
        if holding is None:
            return
        if told:
            self.commit_now(holding)
        self.holdings.pop(partition, None)
        self.broken.discard(partition)

    @property
    def is_drained(self) -> bool:
        """Whether everything that was ever applied is read, applied and committed."""
        return bool(self.holdings) and all(
            holding.state is not None
            and holding.state.caught_up
            and holding.state.is_drained
            and holding.landed == holding.state.committable()
            for holding in self.holdings.values()
        )

    def leave(self) -> bool:
        """Commit, raise the epochs, leave the group; whether the epochs were raised."""
        for holding in list(self.holdings.values()):
            self.commit_now(holding)
        sources = [holding.state.source for holding in self.holdings.values() if holding.state is not None]
        self.alive = False
        try:
            self.alive = True
            self.keeper.leave(sources)
        except StorageUnavailable:
            return False
        finally:
            self.alive = False
        return True


__all__ = ["GROUP", "Limits", "SimBridge"]
