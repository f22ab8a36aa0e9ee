"""Bridges and workers, one step at a time, around the real deciding code; and the stock worker."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bridge.keeper import Keeper, Taken
from bridge.partition import Limits, Partition, Seen
from storage.apply import BatchApplier, Result, State
from storage.batch import Batch, Source
from storage.errors import InvalidRecord, Poison, Refused, Retryable, StorageUnavailable
from tests.faults.kafka import CLUSTER, GROUP, TOPIC

if TYPE_CHECKING:
    from tests.faults.world import World

LIMITS = Limits(
    batch_records=4, batch_bytes=10_000, linger=0.5, held_bytes=8_000, ahead=60, stall=6.0, stall_cap=40.0
)
PATIENCE = 30.0


class Crash(BaseException):
    """The actor is killed here."""


@dataclass
class Wanted:
    """What a bridge was started with."""

    lanes: int
    group: str = GROUP


class SimBridge:
    """What `bridge.loop.Loop` does for one partition."""

    def __init__(self, world: World, lanes: int, *, drain: bool = False) -> None:
        self.world = world
        self.wanted = Wanted(lanes)
        self.drain = drain
        self.left = False
        self.source = Source(CLUSTER, TOPIC, world.kafka.topic_id(TOPIC), 0)
        self.keeper = Keeper(world.store, world.kafka, self.wanted, decide=world.rules.decide)
        self.state: Partition | None = None
        self.taken: Taken | None = None
        self.committed: int | None = None
        self.not_before = 0
        self.failures = 0

    def step(self) -> None:
        """Do one thing of a turn."""
        if self.left:
            return
        if self.source.topic_id != self.world.kafka.topic_id(TOPIC) and self.world.random.random() < 0.3:
            self._begin_anew()
        state = self.state
        try:
            if state is None:
                self._take_over()
                return
            chosen = self.world.random.choice((self._read, self._read, self._send, self._watch, self._commit, self._last))
            chosen(state)
        except StorageUnavailable:
            if state is not None:
                state.unanswered()

    def turn(self) -> None:
        """Do everything of a turn, as in calm weather."""
        if self.source.topic_id != self.world.kafka.topic_id(TOPIC):
            self._begin_anew()
        if self.state is None:
            self.not_before = 0
            self._take_over()
        for act in (self._read, self._send, self._watch, self._commit, self._last):
            if self.state is not None and not self.left:
                act(self.state)

    def _begin_anew(self) -> None:
        """A change of the topic's id means a new consumer and a new take-over."""
        self.source = self.source._replace(topic_id=self.world.kafka.topic_id(TOPIC))
        self.state = None

    def _take_over(self) -> None:
        if self.world.now < self.not_before:
            return
        try:
            taken = self.keeper.take_over(self.source)
        except Refused as error:
            self.world.refused(error)
            return
        if taken is None:
            self._drop()
            return
        if self.source.topic_id not in self.world.begun or taken.offsets.stamp is None:
            # A store without our records is refused, and what the stock worker did nobody can know who has lost it:
            # a store that goes back goes back to what we know.
            self.world.begun.add(self.source.topic_id)
            self.world.engine.protect()
        self.taken, self.failures = taken, 0
        self.committed = taken.offsets.committed if taken.offsets.stamp == taken.stamp else None
        self.state = self.world.rules.partition(
            taken.source, taken.owner.epoch, taken.start.cursors, taken.start.offset, LIMITS
        )

    def _drop(self) -> None:
        self.state = None
        self.not_before = self.world.now + min(2**self.failures, 30)
        self.failures += 1

    def _wants_lanes(self, state: Partition) -> bool:
        return state.lanes != self.wanted.lanes

    def _read(self, state: Partition) -> None:
        if self.source.topic_id != self.world.kafka.topic_id(TOPIC):
            return  # the old topic's records are gone
        if state.is_full() or (state.caught_up and (self.drain or self._wants_lanes(state))):
            return
        for record in self.world.kafka.fetch(state.position, self.world.random.randint(1, 8)):
            state.take(record, record.key or b"", self.world.now)

    def _send(self, state: Partition) -> None:
        for batch in state.due(self.world.now, drain=self.drain or self._wants_lanes(state)):
            self.world.broker.send(batch)
            if self.world.random.random() < 0.9:  # else the answer is lost, and it is sent again
                state.sent(batch, self.world.now)
            else:
                self.world.broker.send(batch)
                state.sent(batch, self.world.now)
        for batch in state.stalled(self.world.now):
            again = state.resend(batch, self.world.now, queue_is_empty=not self.world.broker.holds(batch.lane))
            if again is not None:
                self.world.count("sent again")
                self.world.broker.send(again)
                state.sent(again, self.world.now)

    def _watch(self, state: Partition) -> None:
        standing = self.keeper.observe([state.source])[state.source]
        self.world.pause("observed")
        if self.state is state and state.observe(standing, self.world.now) is not Seen.FINE:
            self.world.count("taken over again")
            self._drop()

    def _commit(self, state: Partition) -> None:
        offset = state.committable()
        if offset == self.committed or self.taken is None:
            return
        if not self.keeper.raise_floor(state.source, state.epoch, cursors=state.cursors, offset=offset):
            self._drop()
            return
        self.world.pause("between floor and commit")
        if self.state is state:
            self.world.kafka.commit(offset, self.taken.stamp.pack())
            self.committed = offset

    def _last(self, state: Partition) -> None:
        """Change lanes, or end a drain, when the moment has come."""
        if not state.may_switch:
            return
        if self.drain:
            if self.committed == state.committable() and self.world.kafka.committed is not None:
                if self.world.kafka.committed[0] != self.committed:
                    self.committed = None  # the real consumer waits for the commit's answer here
                    return
                self.keeper.leave([state.source])
                self.left = True
            return
        if self._wants_lanes(state):
            position = state.position
            owner = self.keeper.change_lanes(state.source, state.epoch, position)
            if owner is None:
                self._drop()
                return
            self.world.count("lanes changed")
            cursors = dict.fromkeys(range(owner.lanes), position - 1)
            self.state = self.world.rules.partition(state.source, owner.epoch, cursors, position, LIMITS)


class SimBroker:
    """Redis: drops, doubles, reorders, delays, and is wiped."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.waiting: list[tuple[int, Batch, str]] = []
        self._names = 0

    def send(self, batch: Batch) -> None:
        chance = self.world.random.random()
        if not self.world.calm and chance < 0.06:
            self.world.count("task dropped")
            return
        self._put(batch)
        if not self.world.calm and chance > 0.94:
            self.world.count("task doubled")
            self._put(batch)

    def _put(self, batch: Batch) -> None:
        self._names += 1
        delay = 0 if self.world.calm or self.world.random.random() < 0.8 else self.world.random.randint(1, 40)
        self.waiting.append((self.world.now + delay, batch, f"task-{self._names}"))

    def again(self, batch: Batch, name: str) -> None:
        """A retry: to the tail."""
        self.waiting.append((self.world.now + 1, batch, name))

    def take(self) -> tuple[Batch, str] | None:
        ready = [entry for entry in self.waiting if entry[0] <= self.world.now]
        if not ready:
            return None
        entry = ready[0] if self.world.random.random() < 0.7 else self.world.random.choice(ready)
        self.waiting.remove(entry)
        return entry[1], entry[2]

    def holds(self, lane: int) -> bool:
        return any(batch.lane == lane for _, batch, _ in self.waiting)

    def wipe(self) -> None:
        self.world.count("broker wiped")
        self.waiting.clear()


class SimWorker:
    """Runs tasks, as `tasks.ingest` does."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.applier = world.rules.applier(
            world.engine,
            world.store.ledger,
            LogApplier(world),
            clock=lambda: float(world.now),
            patience=PATIENCE,
            budget=1e9,
        )

    def step(self) -> None:
        task = self.world.broker.take()
        if task is None:
            return
        batch, name = task
        try:
            result: Result = self.applier.apply(batch, token=(name, 0))
        except Retryable:
            self.world.broker.again(batch, name + "'")
            return
        except Crash:
            if self.world.random.random() < 0.5:
                self.world.broker.again(batch, name)  # not acknowledged: redelivered
            raise
        self.world.count(result.state.value)
        if result.state in {State.EARLY, State.UNFINISHED} and self.world.random.random() < 0.9:
            self.world.broker.again(batch, name + "'")


class LogApplier:
    """What messages mean here: each appends itself to its run's log."""

    def __init__(self, world: World) -> None:
        self.world = world

    def begin(self, transaction: Any, items: Any) -> Any:
        return LogApplication(self.world, transaction, list(items))

    def shrink(self, transaction: Any, envelope: Any) -> bool:
        return False


@dataclass
class LogApplication:
    world: World
    transaction: Any
    items: list[Any]

    def finish(self) -> list[Any]:
        from storage.application import Outcome

        outcomes = []
        for item in self.items:
            if isinstance(item, Poison):
                outcomes.append(Outcome("dead", item))
                continue
            if item.payload["kind"] == "killer":
                self.world.count("record kills worker")
                raise Crash
            append(self.transaction, item.payload["life"], item.payload["run"], item.payload["number"])
            outcomes.append(Outcome("applied"))
        return outcomes


def append(transaction: Any, life: int, run: int, number: int) -> None:
    """Add a record to its run's log."""
    key = log_key(life, run)
    present = transaction.get(key).wait()
    transaction.set(key, json.dumps([*json.loads(present or b"[]"), number]).encode())


def log_key(life: int, run: int) -> bytes:
    return f"log/{life}/{run}".encode()


def decode_simulated(record: Any) -> Any:
    """Stands for `storage.envelope.decode`."""
    from storage.envelope import Envelope

    try:
        fields = json.loads(record.value)
    except ValueError as error:
        raise InvalidRecord(str(error)) from error
    return Envelope("x", str(fields["run"]), 0.0, fields)
