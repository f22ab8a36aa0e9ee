"""The partitions that a loop holds: assigned to its consumer, and taken over or not yet."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import structlog
from confluent_kafka import Consumer, KafkaException, TopicPartition

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bridge.partition import Partition
    from bridge.takeover import Stamp
    from storage.batch import Batch

log = structlog.get_logger("bridge")

NO_EPOCH: Final = -1  # where the leader that something was read from is not known
_BACKOFF_CAP: Final = 30.0  # seconds


@dataclass(slots=True)
class Holding:
    """A partition that the group has given us: ``state`` is None until it is taken over, and then it is read."""

    number: int
    state: Partition | None = None
    stamp: Stamp | None = None
    paused: bool = False
    astray: bool = False  # the log does not have its position: nothing more is read, what was read is still ours
    began: float = 0.0  # when reading began
    leader_epoch: int = NO_EPOCH  # of what was read last: by it Kafka knows whether that is in its log still
    committed: int | None = None  # the last offset sent to Kafka with our stamp
    landed: int | None = None  # the last that Kafka has confirmed
    committing: bool = False
    switching: bool = False
    not_before: float = 0.0
    taking: bool = False
    failures: int = 0


class Holdings:
    """What one consumer holds of its topic, by partition.

    The group gives a partition; the consumer is told to read it when it is decided where to begin, and not before: an
    offset that the log does not have stops a partition for good, and no seek starts it again. One whose state is
    dropped is taken from the consumer too, and given to it anew.

    Whoever waits for an answer keeps the holding and the state that the question was about, and asks `is_current` when
    the answer comes: the partition may have gone or been dropped meanwhile.

    Args:
        consumer: told what to read.
        topic: its topic.
    """

    def __init__(self, consumer: Consumer, topic: str) -> None:
        self._consumer = consumer
        self._topic = topic
        self._holdings: dict[int, Holding] = {}

    def __iter__(self) -> Iterator[Holding]:
        """All that are held now; they may go while one is looked at."""
        return iter(list(self._holdings.values()))

    def get(self, number: int) -> Holding | None:
        """The holding of a partition; None where it is not ours."""
        return self._holdings.get(number)

    def add(self, number: int) -> None:
        """The group has given us a partition."""
        self._holdings[number] = Holding(number)

    def remove(self, number: int) -> None:
        """A partition has gone, if it was here."""
        self._holdings.pop(number, None)

    def clear(self) -> None:
        """All have gone."""
        self._holdings.clear()

    @property
    def states(self) -> dict[int, Partition | None]:
        """Every partition's state, by number; None for what is not taken over."""
        return {number: holding.state for number, holding in self._holdings.items()}

    def has(self, holding: Holding) -> bool:
        """Whether this is still the partition's holding: it has not gone, nor gone and come back."""
        return self._holdings.get(holding.number) is holding

    def is_current(self, holding: Holding, state: Partition) -> bool:
        """Whether it is still held, and this still its state."""
        return self.has(holding) and holding.state is state

    def state_of(self, batch: Batch) -> Partition | None:
        """The state that a batch belongs to, unless that has been dropped or replaced."""
        holding = self._holdings.get(batch.source.partition)
        state = holding.state if holding is not None else None
        return state if state is not None and state.epoch == batch.epoch else None

    def begin(self, holding: Holding, state: Partition, now: float, *, leader_epoch: int = NO_EPOCH) -> bool:
        """Read a partition that is taken over, from its state's position on; False: not now, try again.

        Args:
            holding: the partition.
            state: its state from now on.
            now: the time.
            leader_epoch: the one that goes with the position, or `NO_EPOCH`.
        """
        place = TopicPartition(self._topic, holding.number, state.position, leader_epoch=leader_epoch)
        try:
            self.release([place])
            if self._consumer.position([place])[0].offset >= 0:
                return False  # it has not stopped yet, and where it was would be taken for where it is
            self._consumer.incremental_assign([place])
            if leader_epoch != NO_EPOCH:
                self._consumer.seek(place)  # which takes the leader's epoch along; the assignment leaves it out
            self._consumer.resume([place])  # a pause outlives the assignment that it was made in
        except KafkaException as error:  # a rebalance has not settled yet
            log.warning("reading cannot begin yet", partition=holding.number, error=str(error))
            return False
        holding.state, holding.paused, holding.astray, holding.began = state, False, False, now
        holding.leader_epoch = leader_epoch
        return True

    def stray(self, holding: Holding) -> None:
        """The log does not have a partition's position: read no more of it, and keep what was read."""
        holding.astray = True
        self._stop(holding)

    def release(self, partitions: list[TopicPartition]) -> None:
        """Have the consumer not read these any more, those of them that it does.

        Raises:
            KafkaException: it refuses.
        """
        numbers = {place.partition for place in partitions}
        reading = [place for place in self._consumer.assignment() if place.partition in numbers]
        self._consumer.incremental_unassign([TopicPartition(place.topic, place.partition) for place in reading])

    def pause(self, holding: Holding) -> None:
        """Stop reading.

        What the client has fetched and not handed over is dropped by it; it is fetched again.
        """
        if not holding.paused:
            self._consumer.pause([TopicPartition(self._topic, holding.number)])
            holding.paused = True

    def resume(self, holding: Holding) -> None:
        """Go on reading."""
        if holding.paused:
            self._consumer.resume([TopicPartition(self._topic, holding.number)])
            holding.paused = False

    def drop(self, holding: Holding, now: float) -> None:
        """Forget what was read of a partition; it is taken over again after a pause that doubles."""
        if holding.state is not None:
            if holding.state.position > holding.state.start or now - holding.began > _BACKOFF_CAP:
                holding.failures = 0
            holding.state = None
            self._stop(holding)
        holding.not_before = now + min(0.05 * 2**holding.failures, _BACKOFF_CAP)
        holding.failures += 1

    def _stop(self, holding: Holding) -> None:
        try:
            self.release([TopicPartition(self._topic, holding.number)])
        except KafkaException as error:  # `begin` tries again
            log.warning("reading does not stop yet", partition=holding.number, error=str(error))
