"""Committing to Kafka: only what every lane has applied, and first its floor to the store."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

if TYPE_CHECKING:
    from collections.abc import Callable

    from bridge.holdings import Holding, Holdings
    from bridge.keeper import Keeper
    from bridge.partition import Partition
    from bridge.store_desk import StoreDesk
    from bridge.topic_watch import TopicWatch

log = structlog.get_logger("bridge")


class Committer:
    """Commits the partitions' offsets, with our stamp.

    Args:
        consumer: what commits.
        topic: its topic.
        keeper: the store's side.
        desk: in whose thread the floor is raised.
        holdings: the partitions.
        topic_watch: told to look where a commit is refused.
        every: seconds between two commits of a partition.
        alive: called again and again while a commit is waited for.
        away: called where Kafka has not taken a commit.
    """

    def __init__(
        self,
        consumer: Consumer,
        topic: str,
        keeper: Keeper,
        desk: StoreDesk,
        holdings: Holdings,
        topic_watch: TopicWatch,
        *,
        every: float,
        alive: Callable[[], None],
        away: Callable[[], None],
    ) -> None:
        self._consumer = consumer
        self._topic = topic
        self._keeper = keeper
        self._desk = desk
        self._holdings = holdings
        self._topic_watch = topic_watch
        self._every = every
        self._alive = alive
        self._away = away
        self._committed_at = 0.0

    def look(self, now: float) -> None:
        """Commit all partitions, if it is time to."""
        if now - self._committed_at >= self._every:
            self._committed_at = now
            for holding in self._holdings:
                self.commit(holding)

    def commit(self, holding: Holding) -> None:
        """Write the floor, then commit, if there is something new to commit."""
        state = holding.state
        if state is None or holding.committing or holding.committed == state.committable():
            return
        offset = state.committable()
        holding.committing = True

        def then(ours: bool) -> None:
            holding.committing = False
            if not self._holdings.is_current(holding, state):
                return
            if not ours:
                self._topic_watch.look_at_once()
                self._holdings.drop(holding, time.monotonic())
                return
            self._consumer.commit(offsets=[self._place(holding, offset)], asynchronous=True)
            holding.committed = offset

        def failed(error: Exception) -> None:
            holding.committing = False
            self._desk.failed(error, "raising the floor before a commit")

        self._raise_floor(state, offset, then, failed)

    def answered(self, error: KafkaError | None, places: list[TopicPartition]) -> None:
        """Kafka's answer to a commit; one that failed is made again."""
        for place in places:
            holding = self._holdings.get(place.partition)
            failure = error or place.error
            if holding is None:
                continue
            if failure is None:
                holding.landed = place.offset
            elif holding.committed == place.offset:
                holding.committed = None
                self._away()
                log.warning("commit failed, trying again", partition=place.partition, error=failure.str())

    def commit_now(self, holding: Holding, deadline: float) -> None:
        """Commit what may be committed, waiting for it; for a partition that is about to go."""
        state = holding.state
        if state is None or holding.landed == state.committable():
            return
        offset = state.committable()
        answers: list[bool] = []

        def failed(error: Exception) -> None:
            self._desk.failed(error, "raising the floor before a commit")
            answers.append(False)

        self._raise_floor(state, offset, answers.append, failed)
        while not answers and time.monotonic() < deadline:
            self._alive()
            self._desk.answer()
            time.sleep(0.005)
        if answers != [True] or not self._holdings.is_current(holding, state):
            return
        try:
            self._consumer.commit(offsets=[self._place(holding, offset)], asynchronous=False)
            holding.committed = holding.landed = offset
        except KafkaException as error:
            log.warning(
                "not committed; the next bridge reads a little again", partition=holding.number, error=str(error)
            )

    def _raise_floor(
        self, state: Partition, offset: int, then: Callable[[bool], None], failed: Callable[[Exception], None]
    ) -> None:
        cursors = state.cursors
        self._desk.ask(
            lambda: self._keeper.raise_floor(state.source, state.epoch, cursors=cursors, offset=offset), then, failed
        )

    def _place(self, holding: Holding, offset: int) -> TopicPartition:
        metadata = holding.stamp.at(offset).pack() if holding.stamp is not None else ""
        return TopicPartition(self._topic, holding.number, offset, metadata, holding.leader_epoch)
