"""A worker of the simulation: one execution of one message, by the real BatchApplier, as `tasks.ingest` does it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from storage.apply import Result, State
from storage.batch import unpack_batch
from storage.errors import Retryable
from tasks.batches import may_try_again
from tests.simulation.messages import LogApplier
from tests.simulation.store import Crash, SimEngine

if TYPE_CHECKING:
    from storage.batch import Batch
    from tests.simulation.broker import Message
    from tests.simulation.world import World


class Execution:
    """One run of the ingest task in a process of its own."""

    def __init__(self, world: World, message: Message) -> None:
        self.world = world
        self.message = message
        self.alive = True
        self.name = f"{message.task}.{message.retries}"
        self.deadline = world.now + world.profile.time_limit

    def run(self) -> None:
        world = self.world
        batch = unpack_batch(self.message.packed)
        ledger = world.rules.worker_ledger()
        applier = world.rules.applier(
            SimEngine(world.store, world.weather(self)),
            ledger,
            LogApplier(),
            clock=lambda: world.now,
            patience=world.profile.time_limit * 4 / 3,
            budget=world.profile.time_limit / 2,
        )
        result = Result()
        try:
            applier.apply(batch, token=(self.message.task, self.message.retries), into=result)
        except Crash:
            self._die(batch)
        except Retryable as error:
            world.trace(f"{self.name} {batch}: {type(error).__name__}")
            world.note("task retried")
            world.ended_in_the_middle(batch)
            self._retry(batch, result)
        except RuntimeError:  # the bug in a handler: logged and left
            world.note("task failed by a bug")
        else:
            world.trace(f"{self.name} {batch}: {result.state.value} dead {dict(result.dead)}")
            world.note(f"batch {result.state.value}")
            if result.transactions > 1:
                world.note("batch in parts")
            for reason, number in result.dead.items():
                world.note(f"dead: {reason}", number)
            if result.state in {State.UNFINISHED, State.EARLY}:
                self._retry(batch, result)

    def _retry(self, batch: Batch, result: Result) -> None:
        if not may_try_again(self.message.retries, result):
            self.world.note("task gave up")
            return
        wait = min(2.0, 0.2 * 2 ** min(self.message.retries, 4))
        self.world.broker.push(batch.lane, self.message.retry(self.world.now + wait))

    def _die(self, batch: Batch) -> None:
        """The process is gone; the broker may give the message to another one, as it was."""
        world = self.world
        world.trace(f"{self.name} {batch}: died")
        world.note("worker died")
        world.ended_in_the_middle(batch)
        if not world.calm and world.rng.random() < 0.3:
            world.note("message redelivered")
            world.broker.push(batch.lane, self.message)
