"""The loop of one route: consume, cut, send, watch, commit. Thin I/O around `bridge.partition` and `bridge.takeover`.

What is done in a turn, at a rebalance and at the end, and in which order, stands here; how, in `bridge.ownership`
(take-over, lanes), `bridge.reader`, `bridge.verifier` and `bridge.sender`, `bridge.store_watch` and `bridge.committer`.
What they share are the `bridge.holdings`.

Three threads: this one consumes and decides and never waits for anything else; one desk talks to the store (and asks
Kafka about offsets and ids), one to Redis. So a store or a Redis that is away can neither stop the polling of Kafka,
nor lose the partitions.

A partition's life here:

    ours, not read ──take-over──▶ reading ──▶ revoked: waits a little for what is in flight, commits, leaves
           ▲                        │
           └── fenced, store went back, offset gone (when all that was read is applied), lanes changed
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import structlog

from bridge.committer import Committer
from bridge.group_watch import GroupWatch
from bridge.holdings import Holdings
from bridge.membership import Membership
from bridge.notices import Notices
from bridge.ownership import Ownership
from bridge.progress_watch import ProgressWatch
from bridge.reader import Reader, make_consumer
from bridge.sender import Sender
from bridge.stall_notes import StallNotes
from bridge.store_desk import StoreDesk
from bridge.store_watch import StoreWatch
from bridge.topic_watch import TopicWatch
from bridge.verifier import Verifier
from storage.batch import Source
from storage.errors import Refused
from tasks.kafka_trouble import explain_error

if TYPE_CHECKING:
    from collections.abc import Callable

    from confluent_kafka import Consumer, KafkaError, TopicPartition

    from bridge.holdings import Holding
    from bridge.keeper import Keeper
    from bridge.lookup import Lookup
    from bridge.partition import Partition
    from bridge.publisher import Publisher
    from bridge.report import Report
    from bridge.route import Route
    from storage.batch import Batch

log = structlog.get_logger("bridge")

_IDLE: Final = 0.1  # seconds that consume waits when nothing is in flight
_PARTING: Final = 5.0  # seconds that the last commits and raising the epochs may take, however long was waited before


@dataclass(frozen=True, slots=True)
class Pace:
    """How often the loop does what, in seconds; see `tasks.settings`."""

    poll: float
    commit: float
    check: float
    drain: float


class Loop:
    """Consumes one route until it is told to stop.

    Args:
        config: servers and security for the consumer, as librdkafka names them.
        route: which topic, group, task.
        keeper: the store's side.
        lookup: questions to Kafka, for the store's thread.
        publisher: Redis' side.
        pace: how often it does what.
        report: told what it does, for metrics and health.
        cluster: the cluster's id.
        topic_id: the topic's id.
    """

    def __init__(
        self,
        config: dict[str, Any],
        route: Route,
        keeper: Keeper,
        lookup: Lookup,
        publisher: Publisher,
        pace: Pace,
        report: Report,
        *,
        cluster: str,
        topic_id: str,
    ) -> None:
        self._topic = route.topic
        self._config = config
        self._keeper = keeper
        self._pace = pace
        self._report = report
        self._draining = False
        self._stop_by: float | None = None  # when waiting for what is in flight ends; None: we are not stopping
        self._assigned_once = False
        self._notices = Notices(log)
        self._membership = Membership(config, route.group)
        self._consumer = make_consumer(config, route, self._membership, self._on_kafka_error, self._on_commit)
        self._holdings = holdings = Holdings(self._consumer, route.topic)
        self._store_desk = desk = StoreDesk(report, self._notices, route.topic)
        self._topic_watch = TopicWatch(
            lookup, desk, self._notices, topic=route.topic, topic_id=topic_id, every=pace.check
        )
        self._group_watch = GroupWatch(lookup, self._membership, every=pace.check)
        self._store_watch = StoreWatch(keeper, desk, holdings, pace.poll)
        self._ownership = Ownership(route, keeper, desk, holdings, report, cluster=cluster, topic_id=topic_id)
        self._reader = Reader(
            self._consumer, route, self._membership, holdings, self._topic_watch, self._notices, report
        )
        self._progress_watch = ProgressWatch(
            keeper,
            desk,
            holdings,
            report,
            self._notices,
            Source(cluster, route.topic, topic_id, 0),
            commit_every=pace.commit,
        )
        self._verifier = Verifier(lookup, route.topic, topic_id, self._notices, self._send)
        self._sender = Sender(publisher, route, self._notices, holdings.state_of, report)
        self._stall_notes = StallNotes(keeper, desk, desk.failed)
        self._committer = Committer(
            self._consumer,
            route.topic,
            keeper,
            desk,
            holdings,
            self._topic_watch,
            every=pace.commit,
            alive=report.alive,
            away=report.kafka_failed,
        )

    # -- the turn ------------------------------------------------------------------------------------------------

    def run(self, should_stop: Callable[[], bool], *, drain: bool = False) -> None:
        """Consume until ``should_stop``; then drain for a while, commit and leave.

        Args:
            should_stop: asked each turn.
            drain: read only what was applied before, up to the highest cursor; return when all partitions are there.

        Raises:
            Fatal: a person has to decide.
            InstanceTaken: another process is in the group as ours would be; make a new loop later.
            TopicChanged: the topic was made anew; make a new loop.
        """
        self._draining = drain
        self._consumer.subscribe(
            [self._topic], on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost
        )
        try:
            while not should_stop() and self._group_watch.found is None:
                self._turn()
                if drain and self._is_drained():
                    break
            self._draining = True
            log.info("stopping: waiting for what is in flight", topic=self._topic)
            self._stop_by = time.monotonic() + self._pace.drain
            while not self._is_drained() and time.monotonic() < self._stop_by:
                self._turn()
        except BaseException:
            self._leave(fence=False)
            raise
        self._leave(fence=True)
        if self._group_watch.found is not None:
            raise Refused(self._group_watch.found)

    def _turn(self) -> None:
        now = time.monotonic()
        self._reader.read(self._wait(now), now)
        self._work()
        self._report.turned(self._holdings.states)

    def _work(self) -> None:
        """Everything of a turn but consuming."""
        self._answer()
        self._store_desk.check()
        now = time.monotonic()
        for holding in self._holdings:
            state = holding.state
            if state is None:
                self._ownership.take_over(holding, now)
                continue
            stop = self._draining or self._ownership.wants_lanes(state)
            for batch in state.due(now, drain=stop or holding.astray):
                self._verifier.hold(batch, now)
            if not holding.astray:
                self._ownership.switch_lanes(holding, state)
                self._reader.steer(holding, state, stop=stop)
            elif state.is_drained and self._is_committed(holding, state):  # not before: Kafka may not have it any more
                self._holdings.drop(holding, now)
                continue
            self._sender.resend(state, now)
            self._stall_notes.look(state, now)
        self._verifier.look(now)
        self._sender.retry(now)
        self._store_watch.look(now)
        self._committer.look(now)
        self._topic_watch.look(now)
        self._group_watch.look(now)
        self._progress_watch.look(now)

    def _answer(self) -> None:
        """What follows from the answers that are there."""
        self._store_desk.answer()
        self._verifier.answer()
        self._sender.answer()

    def _wait(self, now: float) -> float:
        """How long consuming may block."""
        waits = [_IDLE]
        for holding in self._holdings:
            if holding.state is None or holding.state.in_flight:
                waits.append(self._pace.poll)
            else:
                due = holding.state.next_due(now)
                if due is not None:
                    waits.append(due)
        return max(min(waits), 0.001)

    def _is_drained(self) -> bool:
        """Whether all that was ever applied is read, applied and committed."""
        if not self._assigned_once:
            return False
        for holding in self._holdings:
            state = holding.state
            if state is None or not state.may_switch or not self._is_committed(holding, state):
                return False
        return True

    def _is_committed(self, holding: Holding, state: Partition) -> bool:
        """Whether Kafka has confirmed all that may be committed; what it has not is committed."""
        if holding.landed == state.committable():
            return True
        self._committer.commit(holding)
        return False

    # -- rebalance -------------------------------------------------------------------------------------------------

    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._assigned_once = True
        self._report.joined()
        consumer.incremental_assign([])  # each is assigned when it is decided where to begin
        for tp in partitions:
            self._holdings.add(tp.partition)
        log.info("assigned", topic=self._topic, partitions=sorted(tp.partition for tp in partitions))

    def _on_revoke(self, _: Consumer, partitions: list[TopicPartition]) -> None:
        """Wait a little for what is in flight, commit, and leave."""
        leaving = [holding for tp in partitions if (holding := self._holdings.get(tp.partition)) is not None]
        for holding in leaving:
            self._holdings.pause(holding)
        deadline = time.monotonic() + self._pace.drain
        if self._stop_by is not None:
            deadline = min(deadline, self._stop_by)
        while time.monotonic() < deadline and any(h.state is not None and h.state.in_flight for h in leaving):
            self._watch_only()
            time.sleep(self._pace.poll)
        deadline = max(deadline, time.monotonic() + _PARTING)
        for holding in leaving:
            self._committer.commit_now(holding, deadline)
            self._holdings.remove(holding.number)
        self._holdings.release(partitions)
        log.info("revoked", topic=self._topic, partitions=sorted(holding.number for holding in leaving))

    def _on_lost(self, _: Consumer, partitions: list[TopicPartition]) -> None:
        for tp in partitions:
            self._holdings.remove(tp.partition)
        self._holdings.release(partitions)
        self._report.left("lost its partitions, and has not joined the group again")
        log.warning("lost", topic=self._topic, partitions=sorted(tp.partition for tp in partitions))

    def _watch_only(self) -> None:
        self._report.alive()
        self._answer()
        now = time.monotonic()
        for holding in self._holdings:
            if holding.state is not None:
                self._sender.resend(holding.state, now)
        self._sender.retry(now)
        self._store_watch.look(now)

    def _send(self, batch: Batch) -> None:
        """Send a batch whose records are known to be this topic's, unless its state has been dropped meanwhile."""
        if self._holdings.state_of(batch) is not None:
            self._sender.send(batch)

    # -- what else the consumer tells ------------------------------------------------------------------------------

    def _on_kafka_error(self, error: KafkaError) -> None:
        trouble = explain_error(self._config, [(error.code(), error.str())])
        self._notices.say("kafka", "waiting for Kafka", error=error.str() if trouble is None else str(trouble))

    def _on_commit(self, error: KafkaError | None, places: list[TopicPartition]) -> None:
        self._committer.answered(error, places)

    # -- the end ---------------------------------------------------------------------------------------------------

    def _leave(self, *, fence: bool) -> None:
        """Commit what may be committed, fence what is still queued, leave the group, end the threads.

        Where the store is away, no job for it begins past the deadline: each would take its timeout, and the process is
        killed when its grace period is over.
        """
        deadline = max(self._stop_by or 0.0, time.monotonic() + _PARTING)
        left: list[bool] = []
        for holding in self._holdings:
            self._committer.commit_now(holding, deadline)
        states = [state for state in self._holdings.states.values() if state is not None]
        self._holdings.clear()
        if fence:
            sources = [state.source for state in states]
            self._store_desk.ask(
                lambda: self._keeper.leave(sources),
                lambda _: left.append(True),
                lambda error: log.warning("raising the epochs failed", error=str(error)),
            )
        self._membership.leave(self._consumer)
        self._group_watch.close()
        self._sender.close()
        self._verifier.close()
        self._store_desk.close(deadline=deadline if fence else None)
        if fence and not left:
            log.warning("the epochs are not raised; what is still queued may be applied until the next take-over")
        flying = {str(state.source): state.in_flight for state in states if state.in_flight}
        log.info("left the group", topic=self._topic, in_flight=flying)
