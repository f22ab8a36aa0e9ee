"""Which partitions stand still though they could move. No I/O and no clock.

A partition may rest: with nothing to read, paused since enough is on its way, or waiting for a store or a Kafka that is
away. One that rests without such a reason is stuck, whatever the reason is, and somebody must be told; nothing else
would be: it holds no batch that stalls, and no call of it fails.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

TOLD_AFTER: Final = 40.0  # seconds; known by status, readiness, metrics and an alert within a minute
HUNG_AFTER: Final = 150.0  # seconds; then liveness has the bridge restarted


class Step(StrEnum):
    """What a partition does not do though it could."""

    TAKE_OVER = "take-over"
    READ = "read"
    COMMIT = "commit"


@dataclass(frozen=True, slots=True)
class Sight:
    """What is seen of a partition at one moment.

    Attributes:
        position: what is read next; None while it is not taken over.
        committable: below it all is applied.
        landed: the last commit that Kafka has confirmed.
        resting: whether reading waits for something: paused, or for what was read to be applied.
        readable: where reading would end now; None where Kafka has not said so lately.
        answered: whether the store answers.
    """

    position: int | None
    committable: int | None
    landed: int | None
    resting: bool
    readable: int | None
    answered: bool


@dataclass(frozen=True, slots=True)
class Standstill:
    """A partition that stands still.

    Attributes:
        partition: its number.
        step: what it does not do.
        seconds: for how long.
        at: the offset that it stands at; None where it is not taken over.
        end: the offset that it could go to.
    """

    partition: int
    step: Step
    seconds: float
    at: int | None
    end: int | None

    def describe(self, topic: str) -> str:
        """As a sentence."""
        which, long = f"{topic}[{self.partition}]", f"for {self.seconds:.0f} s"
        match self.step:
            case Step.TAKE_OVER:
                return f"{which}: a bridge has it and has not taken it over {long}, though store and Kafka answer"
            case Step.READ:
                return f"{which}: a bridge has it and has not read it {long}: it is at offset {self.at} of {self.end}"
            case Step.COMMIT:
                return (
                    f"{which}: all below offset {self.end} is applied and has not been committed {long}: the commit is "
                    f"{'none' if self.at is None else self.at}"
                )


class Progress:
    """Remembers since when each partition could have moved.

    Args:
        commit_every: seconds between two commits of a partition.
    """

    def __init__(self, commit_every: float) -> None:
        self._commit_after = max(TOLD_AFTER, 3 * commit_every)
        self._since: dict[tuple[int, Step], tuple[int | None, float]] = {}
        self._ends: dict[tuple[int, Step], int | None] = {}

    def look(self, partition: int, sight: Sight, now: float) -> None:
        """See a partition that we have; often, each some seconds at most."""
        could = {
            Step.TAKE_OVER: sight.position is None and sight.answered and sight.readable is not None,
            Step.READ: sight.position is not None
            and not sight.resting
            and sight.readable is not None
            and sight.readable > sight.position,
            Step.COMMIT: sight.committable != sight.landed and sight.answered and sight.readable is not None,
        }
        at = {Step.TAKE_OVER: None, Step.READ: sight.position, Step.COMMIT: sight.landed}
        end = {Step.TAKE_OVER: None, Step.READ: sight.readable, Step.COMMIT: sight.committable}
        for step in Step:
            key = (partition, step)
            if not could[step]:
                self._since.pop(key, None)
            elif key not in self._since or self._since[key][0] != at[step]:
                self._since[key] = (at[step], now)
            self._ends[key] = end[step]

    def keep(self, partitions: Iterable[int]) -> None:
        """Forget all but the partitions that we have."""
        kept = set(partitions)
        self._since = {key: since for key, since in self._since.items() if key[0] in kept}
        self._ends = {key: end for key, end in self._ends.items() if key[0] in kept}

    def find(self, now: float) -> list[Standstill]:
        """Those that stand still, in order of their numbers; of each what it lacks first."""
        found: dict[int, Standstill] = {}
        for (partition, step), (at, since) in sorted(self._since.items(), key=_order):
            after = self._commit_after if step is Step.COMMIT else TOLD_AFTER
            if now - since >= after:
                found.setdefault(partition, Standstill(partition, step, now - since, at, self._ends[partition, step]))
        return list(found.values())


def _order(item: tuple[tuple[int, Step], object]) -> tuple[int, int]:
    (partition, step), _ = item
    return partition, list(Step).index(step)
