"""A world of faults: one seed, one story, and the promise at its end."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch
from uuid import UUID

from bridge.partition import Partition
from bridge.takeover import Start, decide_start, unpack_stamp
from storage.apply import BatchApplier
from storage.dead_letters import DeadLetters
from storage.errors import Refused
from storage.ledger import Ledger
from tests.faults.actors import Crash, SimBridge, SimBroker, SimWorker, append, decode_simulated, log_key
from tests.faults.engine import SimEngine
from tests.faults.kafka import SimKafka

STEPS = 260
RUNS = 5
CALM_ROUNDS = 400


class BrokenPromise(AssertionError):
    """A record was lost, doubled, applied out of order, or nothing moves any more."""


@dataclass
class Rules:
    """The deciding code; a planted bug stands for one of them."""

    decide: Callable[..., Start] = decide_start
    partition: Callable[..., Partition] = Partition
    applier: Callable[..., BatchApplier] = BatchApplier
    plant: Callable[[World], None] = lambda world: None


class World:
    """Everything there is, for one seed."""

    def __init__(self, seed: int, rules: Rules) -> None:
        self.random = Random(seed)
        self.rules = rules
        self.now = 0
        self.calm = False
        self.counts: Counter[str] = Counter()
        self._depth = 0
        self.engine = SimEngine(self)
        self.store = SimpleNamespace(engine=self.engine, ledger=Ledger(b"bridge/"))
        self.kafka = SimKafka(self)
        self.broker = SimBroker(self)
        self.bridges: list[SimBridge] = []
        self.workers = [SimWorker(self) for _ in range(2)]
        self.produced: Counter[tuple[int, int]] = Counter()
        self.expected: dict[tuple[int, int], list[int]] = {}
        self.dead: set[tuple[int, int]] = set()  # life, offset
        self.lanes = self.random.choice((1, 2, 3))
        self.has_gone_back = False
        self.begun: set[str] = set()
        self.engine.found_store(self.store.ledger)
        rules.plant(self)

    # -- what goes wrong ---------------------------------------------------------------------------------------

    def count(self, what: str) -> None:
        self.counts[what] += 1

    def pause(self, where: str) -> None:
        """A point at which others act, and at which the one who got here may be killed."""
        if self.calm:
            return
        if self.random.random() < 0.02:
            self.count("killed " + where)
            raise Crash
        if self._depth < 2 and self.random.random() < 0.25:
            self._depth += 1
            try:
                for _ in range(self.random.randint(1, 4)):
                    self.act()
            finally:
                self._depth -= 1

    def draw_commit_fault(self, writes: dict[bytes, bytes | None], *, impatient: bool) -> str | None:
        if self.calm or not writes:
            return None
        chance = self.random.random()
        for limit, fault in ((0.03, "unknown, committed"), (0.06, "unknown, not committed"), (0.12, "too large")):
            if chance < limit:
                if fault == "too large" and (not impatient or sum(key.startswith(b"log/") for key in writes) < 2):
                    return None
                self.count(fault)
                return fault
        return None

    def refused(self, error: Refused) -> None:
        """A bridge stops where a person has to decide; here that is never right."""
        raise BrokenPromise(f"refused: {error}")

    # -- the story -----------------------------------------------------------------------------------------------

    def act(self) -> None:
        """One actor does one thing."""
        self.now += self.random.random() < 0.5
        self.kafka.land()
        actor = self.random.choice([*self.bridges, *self.workers])
        try:
            actor.step()
        except Crash:
            if isinstance(actor, SimBridge) and actor in self.bridges:
                self.bridges.remove(actor)
                self.count("bridge killed")
            else:
                self.count("worker killed")
        if not self.bridges:
            self.bridges.append(SimBridge(self, self.lanes))

    def happen(self) -> None:
        """Something that is not an actor's doing."""
        chance = self.random.random()
        if chance < 0.20:
            self.produce()
        elif chance < 0.23 and len(self.bridges) < 3:
            self.count("another bridge")
            self.bridges.append(SimBridge(self, self.lanes))
        elif chance < 0.24:
            self.broker.wipe()
        elif chance < 0.255:
            self.count("store away")
            self.engine.away = not self.engine.away
        elif chance < 0.265:
            self.lanes = self.random.choice((1, 2, 3))
        elif chance < 0.270:
            self.rewind()
        elif chance < 0.275:
            self.hand_over()
        elif chance < 0.2775 and (self.kafka.committed is None or self.kafka.committed[1]):
            # (a commit without our metadata that outlives its topic is believed: Kafka deletes such commits)
            self.count("topic made anew")
            self.kafka.make_anew()
        elif chance < 0.2825 and (self.kafka.committed is None or self.kafka.committed[1]):
            self.count("store went back")
            self.has_gone_back = True
            self.engine.go_back(self.random.randint(1, 12))

    def produce(self) -> None:
        for _ in range(self.random.randint(1, 6)):
            run = self.random.randrange(RUNS)
            place = (self.kafka.life, run)
            kind = self.random.choices(("good", "bad", "killer"), (96, 3, 0.5))[0]
            number = self.produced[place]
            self.produced[place] += 1
            self.kafka.produce(run, number, kind)
            if kind == "good":
                self.expected.setdefault(place, []).append(number)
            else:
                self.dead.add((self.kafka.life, self.kafka.end - 1))

    def rewind(self) -> None:
        """An operator sets the group back, without our metadata."""
        if self.has_gone_back:
            return  # a store that went back together with an offset set by hand is believed
        if self.kafka.committed is not None and self.kafka.committed[1] and self._is_of_this_life(self.kafka.committed[1]):
            self.count("group rewound")
            self.bridges.clear()
            self.kafka.late_commits.clear()
            self.kafka.committed = (self.random.randint(0, max(0, self.kafka.committed[0] - 1)), "")
            self.bridges.append(SimBridge(self, self.lanes))

    def _is_of_this_life(self, metadata: str) -> bool:
        """Whether a commit speaks of the topic's present life; one without our metadata does, here."""
        stamp = unpack_stamp(metadata)
        return stamp is None or stamp.topic_id == self.kafka.topic_id("")

    def hand_over(self) -> None:
        """Drain, then the stock worker goes on for a while, then we come back."""
        if self.engine.away or self.has_gone_back:
            return
        self.bridges[:] = [SimBridge(self, self.lanes, drain=True)]
        self.kafka.late_commits.clear()  # of bridges that were stopped: their consumers are closed
        before, self.calm = self.calm, True
        self._until(lambda: self.bridges[0].left, "drain")
        self._use_stock_worker()
        self.calm = before
        self.bridges[:] = [SimBridge(self, self.lanes)]

    def _use_stock_worker(self) -> None:
        committed = self.kafka.committed
        if committed is None:
            return
        self.count("handed over")
        some = self.kafka.fetch(committed[0], self.random.randint(0, 10))
        for record in some:
            fields = self._parse(record.value)
            if fields is not None and fields["kind"] == "good":
                self.engine.transact(lambda tr: append(tr, fields["life"], fields["run"], fields["number"]))  # noqa: B023
        if some:
            self.dead -= {(self.kafka.life, record.offset) for record in some}  # the stock worker drops them
            self.kafka.committed = (some[-1].offset + 1, "")

    def _parse(self, value: bytes | None) -> dict[str, Any] | None:
        try:
            fields: dict[str, Any] = json.loads(value or b"")
        except ValueError:
            return None
        return fields

    # -- the end ---------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Live through it, then come to rest, then check."""
        self.bridges.append(SimBridge(self, self.lanes))
        for _ in range(STEPS):
            self.happen()
            try:
                self.act()
            except Crash:
                self.count("killed")
            self.check_order()
        self.calm, self.engine.away = True, False
        if self.random.random() < 0.5:
            self.bridges[:] = [SimBridge(self, self.lanes)]
        else:
            self.bridges[:] = [self.random.choice(self.bridges)]  # the one that lives on knows old things
        self.kafka.late_commits.clear()
        self._until(self._is_done, "come to rest")
        self.check_order()

    def _until(self, found: Callable[[], bool], what: str) -> None:
        for _ in range(CALM_ROUNDS):
            self.now += 1
            for bridge in self.bridges:
                bridge.turn()
            for worker in self.workers:
                try:
                    worker.step()
                except Crash:
                    self.count("worker killed")
            if found():
                return
        raise BrokenPromise(f"stalled: {what} not within {CALM_ROUNDS} rounds; {self.difference()}")

    def _is_done(self) -> bool:
        return not self.difference() and self.kafka.committed is not None and self.kafka.committed[0] >= self.kafka.end

    def logs(self) -> dict[tuple[int, int], list[int]]:
        """What was applied, by life and run."""
        found = {}
        for place in self.expected:
            value = self.engine.data.get(log_key(*place))
            found[place] = json.loads(value) if value else []
        return found

    def difference(self) -> str:
        """What of the topic's present life is missing."""
        for place, numbers in self.logs().items():
            if place[0] == self.kafka.life and numbers != self.expected[place]:
                return f"run {place}: expected {self.expected[place]}, found {numbers}"
        letters = {
            (int(letter.source.topic_id.removeprefix("life-")), letter.offset)
            for letter in DeadLetters(self.store.ledger).each(self.engine)
        }
        wanted = {place for place in self.dead if place[0] == self.kafka.life}
        missing = wanted - letters
        return f"dead letters missing: {missing}" if missing else ""

    def check_order(self) -> None:
        """At any time, what was applied is the beginning of what was produced."""
        for place, numbers in self.logs().items():
            if numbers != self.expected[place][: len(numbers)]:
                raise BrokenPromise(f"run {place}: expected {self.expected[place]}, found {numbers}")
        if self.engine.away:
            return
        for letter in DeadLetters(self.store.ledger).each(self.engine):
            life = int(letter.source.topic_id.removeprefix("life-"))
            if life == self.kafka.life and (life, letter.offset) not in self.dead:
                raise BrokenPromise(f"a good record is a dead letter: {letter}")


def run_seed(seed: int, rules: Rules | None = None) -> Counter[str]:
    """One story; what happened in it.

    Raises:
        BrokenPromise: the promise did not hold.
    """
    world = World(seed, rules or Rules())
    uuids = Random(seed)
    with (
        patch("storage.ledger.uuid4", lambda: UUID(int=uuids.getrandbits(128))),
        patch("storage.apply.decode", decode_simulated),
    ):
        world.run()
    return world.counts
