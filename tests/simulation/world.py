"""The scheduler of one seed: draws steps and faults, lets it come to rest, and keeps what the check needs to know."""

from __future__ import annotations

import random
from collections import Counter
from typing import TYPE_CHECKING
from unittest.mock import patch
from uuid import UUID

from bridge.progress import Progress, Sight
from bridge.takeover import unpack_stamp
from storage.errors import Refused, StorageUnavailable
from tests.simulation.bridge import SimBridge
from tests.simulation.broker import Broker
from tests.simulation.kafka import Kafka
from tests.simulation.profile import Profile
from tests.simulation.rules import REAL, Rules
from tests.simulation.stock import StockWorker
from tests.simulation.store import CERTAIN, Crash, Fate, SimStore, SimTransaction
from tests.simulation.truth import Truth, read_coverage
from tests.simulation.worker import Execution

if TYPE_CHECKING:
    from bridge.keeper import Taken
    from storage.batch import Batch, Source

QUIET_ROUNDS = 600
DEEPEST = 3


class Violation(AssertionError):
    """The promise was broken."""


class RightlyStopped(Exception):
    """A bridge has stopped, and should: a person has to decide."""


class ActorWeather:
    """What happens around one actor's transactions."""

    def __init__(self, world: World, actor: SimBridge | Execution) -> None:
        self._world = world
        self._actor = actor

    def note(self, event: str) -> None:
        self._world.note(event)

    def before(self) -> None:
        world = self._world
        if not self._actor.alive:
            raise Crash
        if world.chance("unavailable", 0.5):
            raise StorageUnavailable("no answer")
        if world.chance("crash", 0.3):
            self._kill()

    def between(self) -> None:
        world = self._world
        world.interleave()
        if not self._actor.alive:
            raise Crash
        if isinstance(self._actor, Execution) and world.now > self._actor.deadline:
            world.note("hard time limit")
            raise Crash

    def refuses(self, transaction: SimTransaction) -> bool:
        world = self._world
        if transaction.weight > world.profile.capacity:
            return True
        return len(transaction.appended) > 1 and world.chance("too large")

    def draw(self, transaction: SimTransaction) -> Fate:
        world = self._world
        if world.calm:
            return CERTAIN
        rng = world.rng
        if world.chance("unknown"):
            return Fate(happens=rng.random() < 0.5, seen="unknown")
        happens = rng.choice((True, False, None))
        if world.chance("unavailable", 0.5):
            return Fate(happens=happens, seen="unavailable")
        if world.chance("crash", 0.7):
            self._kill(raises=False)
            return Fate(happens=happens, seen="crash")
        return CERTAIN

    def _kill(self, *, raises: bool = True) -> None:
        self._actor.alive = False
        if raises:
            raise Crash


class World:
    """One seed.

    Args:
        seed: decides everything.
        rules: the real ones, or with a planted bug.
        tell: told what happens, line by line.
    """

    def __init__(self, seed: int, rules: Rules = REAL, *, tell: bool = False) -> None:
        self.seed = seed
        self.rules = rules
        self.rng = random.Random(seed)
        self.tell = tell
        self.counts: Counter[str] = Counter()
        self.profile = Profile.draw(self.rng)
        self.now = 1_000.0
        self.calm = False
        self.store = SimStore()
        self.kafka = Kafka(self.profile.partitions)
        self.broker = Broker()
        self.truth = Truth()
        self.lanes_wanted = self.profile.lanes
        self.bridges: list[SimBridge] = []
        self.assigned: dict[int, SimBridge] = {}
        self.stock: StockWorker | None = None
        self.phase = "ours"  # "ours", "draining", "stock"
        self._progress = Progress(1.0)
        self._cuts: set[tuple[int, int]] = set()
        self._names = 0
        self._depth = 0
        self._written = 0

    # -- telling ---------------------------------------------------------------------------------------------------

    def note(self, event: str, number: int = 1) -> None:
        self.counts[event] += number

    def trace(self, line: str) -> None:
        if self.tell:
            print(f"{self.now:9.2f} {'  ' * self._depth}{line}")

    def fail(self, why: str) -> None:
        msg = f"seed {self.seed}: {why}"
        raise Violation(msg)

    def chance(self, name: str, share: float = 1.0) -> bool:
        """Whether a fault strikes now."""
        if self.calm:
            return False
        rate = self.profile.rates[name] * share
        if rate and self.rng.random() < rate:
            self.note(name)
            return True
        return False

    def weather(self, actor: SimBridge | Execution) -> ActorWeather:
        return ActorWeather(self, actor)

    # -- a whole seed ----------------------------------------------------------------------------------------------

    def run(self) -> Counter[str]:
        """The whole story; raises Violation where the promise is broken."""
        ids = random.Random(self.seed)
        with (
            patch("storage.ledger.uuid4", lambda: UUID(int=ids.getrandbits(128))),
            patch("storage.apply.STAGED", self.profile.staged),
            self.rules.patch(),
        ):
            if self.profile.stock_first:
                self.phase = "stock"
                self.stock = StockWorker(self)
            else:
                self.start_bridge()
            try:
                self._tell_story()
            except RightlyStopped:
                self.note("stopped rightly")
                self.truth.check_so_far(self)
            else:
                self.truth.check(self)
        return self.counts

    def _tell_story(self) -> None:
        for _ in range(self.profile.steps):
            self.step()
        self._calm_down()
        for _ in range(QUIET_ROUNDS):
            self._quiet_round()
            if self._is_done():
                return
        self.fail(f"stalled: {self._describe_rest()}")

    def step(self) -> None:
        """One random step of anybody."""
        self.now += self.rng.choice((0.0, 0.01, 0.05, 0.2))
        choices: list[tuple[float, str]] = [(14.0, "produce"), (22.0, "worker")]
        if self.phase == "stock":
            choices.append((10.0, "stock"))
        else:
            choices += [(40.0, "bridge"), (20.0, "desk")]
        if self.store.pending:
            choices.append((4.0, "late commit"))
        if self.kafka.under_way:
            choices.append((8.0, "late Kafka commit"))
        choices += [(weight, name) for name, weight in self.profile.rare.items()]
        names = [name for _, name in choices]
        name = self.rng.choices(names, [weight for weight, _ in choices])[0]
        getattr(self, "_do_" + name.lower().replace(" ", "_").replace("-", "_"))()

    def interleave(self) -> None:
        """Others act while somebody waits."""
        if self.calm or self._depth >= DEEPEST or self.rng.random() >= self.profile.interleaving:
            return
        self.note("interleaved")
        self._depth += 1
        try:
            for _ in range(self.rng.randint(1, 6)):
                self.step()
        finally:
            self._depth -= 1

    # -- ordinary steps --------------------------------------------------------------------------------------------

    def _do_produce(self) -> None:
        if self._written >= self.profile.records:
            return
        self._written += 1
        rng = self.rng
        run = rng.randrange(self.profile.runs)
        kind = "good"
        if rng.random() < self.profile.trouble:
            kind = rng.choice(("invalid", "unknown", "bug", "killer", "delete", "delete"))
        log = self.kafka.logs[run % self.profile.partitions]
        if log.cut:
            return
        transactional = log.open is not None and rng.random() < 0.5
        log.write(f"run-{run}", kind, rng.randint(1, 4), int(self.now * 1_000), transactional=transactional)
        self.trace(f"written {log.records[-1].identity} {log.records[-1].run} {kind}")

    def _do_worker(self) -> None:
        places = self.broker.places(self.now)
        if not places:
            return
        lane, index = self.rng.choice(places) if self.rng.random() < 0.3 else places[0]
        message = self.broker.queues[lane].pop(index)
        if self._depth:
            self.note("worker within another's transaction")
        Execution(self, message).run()

    def _do_bridge(self) -> None:
        if self.bridges:
            self._guard(self.rng.choice(self.bridges), SimBridge.step)

    def _do_desk(self) -> None:
        if self.bridges:
            self._guard(self.rng.choice(self.bridges), SimBridge.work_desk)

    def _do_stock(self) -> None:
        if self.stock is None:
            return
        self.stock.step()
        if self.rng.random() < 0.08:
            self._end_stock()

    def _do_late_commit(self) -> None:
        transaction = self.store.pending.pop(self.rng.randrange(len(self.store.pending)))
        self.note("late commit landed" if self.store.commit(transaction) else "late commit refused")

    def _do_late_kafka_commit(self) -> None:
        commit = self.kafka.land_one(self.rng)
        if self.rng.random() < 0.85:
            self.note("Kafka commit landed")
            self.trace(f"Kafka commit lands: [{commit.partition}] {commit.committed}")
            self.kafka.commits[commit.partition] = commit.committed
            commit.answer(True)
        else:
            self.note("Kafka commit lost")
            commit.answer(False)

    def _guard(self, bridge: SimBridge, act: object) -> None:
        try:
            act(bridge)  # type: ignore[operator]
        except Crash:
            self.bury(bridge)

    # -- bridges and their partitions ------------------------------------------------------------------------------

    def start_bridge(self, *, drain: bool = False) -> SimBridge:
        self._names += 1
        bridge = SimBridge(self, f"bridge-{self._names}", drain=drain)
        self.bridges.append(bridge)
        self._spread()
        return bridge

    def bury(self, bridge: SimBridge) -> None:
        """A bridge is gone; others get its partitions, or a new one starts."""
        bridge.alive = False
        if bridge not in self.bridges:
            return
        self.note("bridge died")
        self.trace(f"{bridge.name} died")
        self.bridges.remove(bridge)
        if self.phase == "draining":
            self.kafka.under_way.clear()  # as when the drain began: the stock workers would believe them
        if not [other for other in self.bridges if other.draining == bridge.draining]:
            self.start_bridge(drain=bridge.draining and self.phase == "draining")
        else:
            self._spread()

    def _spread(self) -> None:
        """Give partitions without a living owner to somebody."""
        for partition in range(self.profile.partitions):
            owner = self.assigned.get(partition)
            if owner is None or owner not in self.bridges:
                owner = self.assigned[partition] = self.rng.choice(self.bridges)
            owner.assign(partition)

    def _do_bridge_crash(self) -> None:
        if self.bridges:
            self.note("bridge crash")
            self.bury(self.rng.choice(self.bridges))

    def _do_bridge_stop(self) -> None:
        """SIGTERM: stop reading, and soon or when all is applied, commit and leave."""
        if self.phase != "ours" or not self.bridges:
            return
        bridge = self.rng.choice(self.bridges)
        if bridge.draining:
            self._leave(bridge)
        else:
            bridge.draining = True

    def _leave(self, bridge: SimBridge) -> None:
        self.note("bridge stop")
        self.trace(f"{bridge.name} leaves")
        try:
            bridge.leave()
        except Crash:
            self.note("died leaving")
        if bridge in self.bridges:
            self.bridges.remove(bridge)
        if not self.bridges:
            self.start_bridge()
        else:
            self._spread()

    def _rebalance(self, *, told: bool) -> None:
        if self.phase != "ours" or not self.bridges:
            return
        if len(self.bridges) < 2 or self.rng.random() < 0.2:
            if len(self.bridges) >= 4:
                return
            self.start_bridge()
        partition = self.rng.randrange(self.profile.partitions)
        old = self.assigned[partition]
        new = self.rng.choice(self.bridges)
        self.assigned[partition] = new
        if old is not new:
            self.note("rebalance told" if told else "rebalance untold")
            self.trace(f"[{partition}] goes from {old.name} to {new.name}, told {told}")
            if told:
                self._guard(old, lambda bridge: bridge.lose(partition, told=True))
        if new in self.bridges:
            new.assign(partition)

    def _do_rebalance_told(self) -> None:
        self._rebalance(told=True)

    def _do_rebalance_untold(self) -> None:
        self._rebalance(told=False)

    def _do_lanes_wanted(self) -> None:
        """Another setting; bridges started from now on have it."""
        self.lanes_wanted = self.rng.randint(1, 4)
        if self.phase == "ours" and self.bridges and self.rng.random() < 0.7:
            self._leave(self.rng.choice(self.bridges))

    # -- the broker's faults ---------------------------------------------------------------------------------------

    def _pick(self, event: str) -> tuple[int, int] | None:
        places = self.broker.places()
        if not places:
            return None
        self.note(event)
        return self.rng.choice(places)

    def _do_broker_drops(self) -> None:
        place = self._pick("broker drops")
        if place is not None:
            self.broker.queues[place[0]].pop(place[1])

    def _do_broker_doubles(self) -> None:
        place = self._pick("broker doubles")
        if place is not None:
            queue = self.broker.queues[place[0]]
            queue.append(queue[place[1]])

    def _do_broker_reorders(self) -> None:
        for queue in self.broker.queues.values():
            if len(queue) > 1:
                self.note("broker reorders")
                self.rng.shuffle(queue)

    def _do_broker_delays(self) -> None:
        place = self._pick("broker delays")
        if place is not None:
            queue = self.broker.queues[place[0]]
            message = queue.pop(place[1])
            later = max(message.not_before, self.now) + self.rng.choice((0.5, 3.0, 10.0))
            queue.append(type(message)(message.packed, message.task, message.retries, later))

    def _do_broker_wiped(self) -> None:
        if self.broker.places():
            self.note("broker wiped")
            self.broker.wipe()

    # -- the world's other faults ----------------------------------------------------------------------------------

    def _do_time_jump(self) -> None:
        self.note("time jump")
        self.now += self.rng.choice((0.5, 1.0, 3.0, 6.0))

    def _do_offset_gap(self) -> None:
        self.note("offset gap")
        log = self.rng.choice(self.kafka.logs)
        if not log.cut:
            log.end += self.rng.randint(1, 3)

    def _do_group_rewound(self) -> None:
        """An operator sets the group back: the commit loses its stamp. Never beyond what the store has."""
        partition = self.rng.randrange(self.profile.partitions)
        committed = self.kafka.commits.get(partition)
        if committed is None or self.phase == "stock" or self.truth.is_after_stock(partition):
            return  # what the stock workers did is in no cursor yet
        log = self.kafka.logs[partition]
        unapplied = read_coverage(self, partition, self.store.version)
        highest = min(committed.offset, unapplied)
        stamp = unpack_stamp(committed.metadata)
        if stamp is not None and stamp.topic_id != self.kafka.topic_id:
            return
        if highest < log.start:
            return
        offset = self.rng.randint(log.start, highest)
        self.note("group rewound")
        self.trace(f"[{partition}] rewound from {committed.offset} to {offset}")
        self.kafka.commits[partition] = type(committed)(offset, None)
        self.bury(self.assigned[partition])  # Kafka lets nobody set the offsets of a group that is running

    def _do_offsets_expire(self) -> None:
        """Kafka forgets the group's commit, as it does of a group that was empty for a week."""
        partition = self.rng.randrange(self.profile.partitions)
        if self.phase != "ours" or self.truth.is_after_stock(partition):
            return
        if self.kafka.commits.pop(partition, None) is not None:
            self.note("offsets expired")
            self.trace(f"[{partition}] the group's commit expires")

    def _do_transaction(self) -> None:
        """One begins or ends."""
        log = self.rng.choice(self.kafka.logs)
        if log.cut:
            return
        if log.open is None:
            self.note("transaction begun")
            log.open = log.end
        else:
            commit = self.rng.random() < 0.5
            self.note("transaction committed" if commit else "transaction aborted")
            log.end_transaction(commit=commit)
        self.trace(f"[{log.partition}] transaction open from {log.open}, log end {log.end}")

    def _do_log_cut(self) -> None:
        """An unclean election; nobody writes to it before a bridge has seen it."""
        log = self.rng.choice(self.kafka.logs)
        if self.phase != "ours" or log.end == log.start or log.cut:
            return
        self.note("log cut")
        log.cut_from(self.rng.randint(log.start, log.end))
        self._cuts.add((log.partition, log.end))
        self.trace(f"[{log.partition}] ends at {log.end} now")

    def refused(self, error: Refused) -> None:
        """A bridge stops. That is right where what was applied or read is not in the log any more."""
        for partition, end in self._cuts:  # of former lives too: it may be made anew while a bridge decides
            if f"[{partition}]: the log ends at offset {end}, but " in str(error):
                raise RightlyStopped

    def _do_topic_made_anew(self) -> None:
        if self.phase != "ours":
            return
        self.note("topic made anew")
        self.trace("topic made anew")
        self.truth.end_life(self.kafka)
        self.kafka.make_anew(self.rng)
        self._written = min(self._written, self.profile.records - 5)

    def _do_retention(self) -> None:
        if self.phase != "ours":
            return
        log = self.rng.choice(self.kafka.logs)
        if log.end > log.start:
            self.note("retention")
            log.drop_before(self.rng.randint(log.start, max(log.start, log.readable)))
            self.trace(f"[{log.partition}] begins at {log.start} now")

    def _do_store_goes_back(self) -> None:
        """A power cut or a backup: the last commits are gone, those of Kafka are not."""
        if self.phase != "ours":
            return
        fit = [version for version in self.store.past if self.truth.may_go_back_to(self, version)]
        if not fit:
            return
        version = self.rng.choice(fit[-25:])
        self.truth.check_so_far(self)
        self.note("store goes back")
        self.trace(f"store goes back from {self.store.version.number} to {version.number}")
        self.store.go_back(version)
        self.truth.went_back = True

    # -- stock workers ---------------------------------------------------------------------------------------------

    def _do_hand_over_to_stock(self) -> None:
        if self._depth:
            return
        if self.phase == "draining":
            drainer = self.bridges[0]
            if drainer.is_drained:
                self._begin_stock(drainer)
            return
        if self.phase != "ours":
            return
        self.note("drain begun")
        self.trace("all bridges stop; drain")
        for bridge in self.bridges:
            bridge.alive = False
        self.bridges.clear()
        self.kafka.under_way.clear()  # Kafka takes no commits of members that have left
        self.phase = "draining"
        self.start_bridge(drain=True)

    def _begin_stock(self, drainer: SimBridge) -> None:
        try:
            left = drainer.leave()
        except Crash:
            left = False
        self.bridges.clear()
        if not left:
            self.start_bridge(drain=True)
            return
        self.note("handed over to stock")
        self.trace(f"stock workers begin, commits {self.kafka.commits}")
        self.phase = "stock"
        self.store.forget_past()
        self.truth.stock_begins(self.profile.partitions)
        self.stock = StockWorker(self)

    def _end_stock(self) -> None:
        if self.stock is None:
            return
        self.stock.stop()
        self.note("handed back by stock")
        self.trace(f"stock workers end, commits {self.kafka.commits}")
        self.stock = None
        self.phase = "ours"
        self.truth.stock_begins(self.profile.partitions)
        self.start_bridge()

    def taken_over(self, source: Source, taken: Taken) -> None:
        """A take-over is through: from here on the store may go back to what it is."""
        if source.topic_id == self.kafka.topic_id:
            self.truth.stock_over(source.partition, self.store)
            self.truth.began.setdefault(source, taken.start.offset)
        if taken.start.gap is not None:
            self.truth.note_gap(self, source, *taken.start.gap)
        if taken.offsets.committed is None and taken.start.offset <= min(taken.start.cursors.values()):
            self.fail(f"{source}: reads again from {taken.start.offset} what is applied: {taken.start.cursors}")

    def ended_in_the_middle(self, batch: Batch) -> None:
        """An execution died, or lost the store, with a batch begun."""
        if batch.attempt >= 3:
            self.truth.suspects[batch.source] |= {record.offset for record in batch.records}

    # -- the quiet end ---------------------------------------------------------------------------------------------

    def _calm_down(self) -> None:
        """No more faults: what is under way lands or not, zombies hear of it, settings reach everybody."""
        self.trace("calm from here on")
        self.calm = True
        for transaction in list(self.store.pending):
            if self.rng.random() < 0.5:
                self.store.commit(transaction)
        self.store.pending.clear()
        while self.kafka.under_way:
            self._do_late_kafka_commit()
        for log in self.kafka.logs:
            if log.open is not None:
                log.end_transaction(commit=self.rng.random() < 0.5)
        if self.phase == "stock":
            self._end_stock()
        if self.phase == "draining":
            self._finish_draining()
        for bridge in list(self.bridges):
            if bridge.draining or bridge.route.lanes != self.lanes_wanted:
                self._leave(bridge)
        self._spread()
        for bridge in self.bridges:
            for partition in list(bridge.holdings):
                if self.assigned[partition] is not bridge:
                    bridge.lose(partition, told=False)

    def _finish_draining(self) -> None:
        for _ in range(QUIET_ROUNDS):
            self._quiet_round()
            if self.bridges[0].is_drained:
                self._begin_stock(self.bridges[0])
                for _ in range(5):
                    if self.stock is not None:
                        self.stock.step()
                self._end_stock()
                return
        self.fail("the drain never ends")

    def _quiet_round(self) -> None:
        self.now += 0.4
        for bridge in list(self.bridges):
            bridge.turn()
        for lane, queue in list(self.broker.queues.items()):
            ready = [message for message in queue if message.not_before <= self.now]
            self.broker.queues[lane] = [message for message in queue if message.not_before > self.now]
            for message in ready:
                Execution(self, message).run()
        self._look_for_standstills()

    def _look_for_standstills(self) -> None:
        """What a real bridge would say of itself, as all that it waits for is there."""
        for partition, log in enumerate(self.kafka.logs):
            holding = self.assigned[partition].holdings.get(partition)
            if holding is None:
                continue
            state = holding.state
            sight = Sight(
                position=None if state is None else state.position,
                committable=None if state is None else state.committable(),
                landed=None if state is None else holding.landed,
                resting=holding.paused or holding.astray,
                readable=log.readable,
                answered=True,
            )
            self._progress.look(partition, sight, self.now)

    def _is_done(self) -> bool:
        for partition, log in enumerate(self.kafka.logs):
            holding = self.assigned[partition].holdings.get(partition)
            state = holding.state if holding is not None else None
            if holding is None or state is None or not state.is_drained or state.lanes != self.lanes_wanted:
                return False
            if state.position != log.end or holding.landed != log.end:  # no lag is left
                return False
        return True

    def _describe_rest(self) -> str:
        rest = [still.describe("") for still in self._progress.find(self.now)]
        for partition, log in enumerate(self.kafka.logs):
            holding = self.assigned[partition].holdings.get(partition)
            state = holding.state if holding is not None else None
            if state is None:
                rest.append(f"[{partition}] not taken over")
            else:
                rest.append(
                    f"[{partition}] log {log.start}..{log.end} position {state.position} committable "
                    f"{state.committable()} lanes {list(state.lags())} wanted {self.lanes_wanted} "
                    f"commit {self.kafka.commits.get(partition)}"
                )
        return "; ".join(rest)
