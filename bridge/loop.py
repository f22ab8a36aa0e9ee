"""The loop of one route: consume, cut, send, watch, commit. Thin I/O around `bridge.partition` and `bridge.takeover`.

Three threads: this one consumes and decides and never waits for anything else; one desk talks to the store (and asks
Kafka about offsets and ids), one to Redis. So a store or a Redis that is away can neither stop the polling of Kafka,
nor lose the partitions.

A partition's life here:

    assigned, paused ──take-over──▶ reading ──▶ revoked: waits a little for what is in flight, commits, leaves
           ▲                          │
           └── fenced, store went back, offset gone, lanes changed
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import structlog
from confluent_kafka import (
    TIMESTAMP_NOT_AVAILABLE,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    TopicPartition,
)

from bridge.desk import Desk
from bridge.lookup import CLIENT_ID, KafkaAway, Lookup, NoSuchTopic
from bridge.notices import Notices
from bridge.partition import Partition, Seen
from bridge.sender import Sender
from bridge.stall_notes import StallNotes
from bridge.traces import RecordTraces
from bridge.verifier import TopicChanged, Verifier
from storage.batch import Record, Source
from storage.errors import StorageUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable

    from bridge.keeper import Keeper, Taken
    from bridge.publisher import Publisher
    from bridge.report import Report
    from bridge.route import Route
    from bridge.takeover import Stamp
    from storage.batch import Batch
    from storage.ledger import Owner, Standing

log = structlog.get_logger("bridge")

_CHUNK: Final = 500  # records a call of consume
_IDLE: Final = 0.1  # seconds that consume waits when nothing is in flight
_REST: Final = 1.0  # seconds between observations when nothing is in flight
_STANDBY_REST: Final = 5.0  # seconds between two looks at the store without a partition
_BACKOFF_CAP: Final = 30.0
_PARTING: Final = 5.0  # seconds that the last commits and raising the epochs may take, however long was waited before
_OFFSET_ERRORS: Final = {
    KafkaError._AUTO_OFFSET_RESET,
    KafkaError.OFFSET_OUT_OF_RANGE,
    KafkaError._NO_OFFSET,
}


@dataclass(slots=True)
class _Holding:
    """An assigned partition: ``state`` is None until it is taken over."""

    number: int
    state: Partition | None = None
    stamp: Stamp | None = None
    paused: bool = True
    committed: int | None = None  # the last offset sent to Kafka with our stamp
    landed: int | None = None  # the last that Kafka has confirmed
    committing: bool = False
    switching: bool = False
    not_before: float = 0.0
    taking: bool = False
    failures: int = 0


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
        self._route = route
        self._keeper = keeper
        self._lookup = lookup
        self._pace = pace
        self._report = report
        self._cluster = cluster
        self._topic_id = topic_id
        self._store_desk = Desk("store")
        self._notices = Notices(log)
        self._stall_notes = StallNotes(keeper, self._store_desk, self._store_failed)
        self._traces = RecordTraces()
        self._sender = Sender(publisher, route, self._notices, self._state_of, report.resent, self._traces)
        self._verifier = Verifier(lookup, route.topic, topic_id, self._notices, self._send)
        self._holdings: dict[int, _Holding] = {}
        self._observing = False
        self._observed = 0.0
        self._committed_at = 0.0
        self._checked_at = time.monotonic()
        self._checking = False
        self._error: Exception | None = None
        self._draining = False
        self._stop_by: float | None = None  # when waiting for what is in flight ends; None: we are not stopping
        self._assigned_once = False
        self._taken = self._skipped = 0  # of this turn
        self._consumer = Consumer(
            {
                # As the stock workers' client has it, not librdkafka's 45 s: after so long another bridge reads on
                # where a killed one was. KAFKA_CONFIG may set another; epochs, not sessions, keep two bridges apart.
                "session.timeout.ms": 10_000,
                **config,
                "client.id": CLIENT_ID,
                "group.id": route.group,
                "enable.auto.commit": False,
                "auto.offset.reset": "error",
                "allow.auto.create.topics": False,
                "partition.assignment.strategy": "cooperative-sticky",
                "topic.metadata.refresh.interval.ms": 10_000,
                "fetch.wait.max.ms": 100,
                # What is fetched and not handed over is dropped by a pause: no more of it than may be held.
                "queued.max.messages.kbytes": max(1_024, min(32_768, route.limits.held_bytes // 1_000)),
                "error_cb": self._on_kafka_error,
                "on_commit": self._on_commit,
                "log_level": 3,
            }
        )

    # -- the turn ------------------------------------------------------------------------------------------------

    def run(self, should_stop: Callable[[], bool], *, drain: bool = False) -> None:
        """Consume until ``should_stop``; then drain for a while, commit and leave.

        Args:
            should_stop: asked each turn.
            drain: read only what was applied before, up to the highest cursor; return when all partitions are there.

        Raises:
            Fatal: a person has to decide.
            TopicChanged: the topic was made anew; make a new loop.
        """
        self._draining = drain
        self._consumer.subscribe(
            [self._route.topic], on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost
        )
        try:
            while not should_stop():
                self._turn()
                if drain and self._is_drained():
                    break
            self._draining = True
            log.info("stopping: waiting for what is in flight", topic=self._route.topic)
            self._stop_by = time.monotonic() + self._pace.drain
            while not self._is_drained() and time.monotonic() < self._stop_by:
                self._turn()
        except BaseException:
            self._leave(fence=False)
            raise
        self._leave(fence=True)

    def _turn(self) -> None:
        now = time.monotonic()
        self._taken = self._skipped = 0
        for message in self._consumer.consume(_CHUNK, timeout=self._wait(now)):
            self._take(message, now)
        self._report.consumed(self._taken, self._skipped)
        self._work()
        self._report.turned({number: holding.state for number, holding in self._holdings.items()})

    def _work(self) -> None:
        """Everything of a turn but consuming."""
        self._store_desk.answer()
        self._verifier.answer()
        self._sender.answer()
        if self._error is not None:
            error, self._error = self._error, None
            raise error
        now = time.monotonic()
        for holding in self._holdings.values():
            state = holding.state
            if state is None:
                self._take_over(holding, now)
                continue
            for batch in state.due(now, drain=self._draining or self._wants_lanes(state)):
                self._verifier.hold(batch, now)
            self._switch_lanes(holding, state)
            self._steer(holding, state)
            self._sender.resend(state, now)
            self._stall_notes.look(state, now)
        self._verifier.look(now)
        self._sender.retry(now)
        self._observe(now)
        if now - self._committed_at >= self._pace.commit:
            self._committed_at = now
            for holding in self._holdings.values():
                self._commit(holding)
        self._check(now)

    def _wait(self, now: float) -> float:
        """How long consuming may block."""
        waits = [_IDLE]
        for holding in self._holdings.values():
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
        for holding in self._holdings.values():
            state = holding.state
            if state is None or not state.may_switch:
                return False
            if holding.landed != state.committable():
                self._commit(holding)
                return False
        return True

    # -- reading -------------------------------------------------------------------------------------------------

    def _take(self, message: Message, now: float) -> None:
        error = message.error()
        if error is not None:
            self._on_message_error(message, error, now)
            return
        self._notices.over("kafka")
        number, offset = message.partition(), message.offset()
        holding = self._holdings.get(number) if number is not None else None
        if holding is None or holding.state is None or offset is None or offset < holding.state.position:
            return  # fetched before the seek
        kind, milliseconds = message.timestamp()
        record = Record(
            offset,
            0 if kind == TIMESTAMP_NOT_AVAILABLE else milliseconds,
            _bytes(message.key()),
            _bytes(message.value()),
        )
        self._taken += 1
        if holding.state.take(record, self._route.find_run(record), now):
            self._traces.note(holding.number, offset, message)
        else:
            self._skipped += 1

    def _on_message_error(self, message: Message, error: KafkaError, now: float) -> None:
        code = error.code()
        if code in _OFFSET_ERRORS:
            holding = self._holdings.get(message.partition() or 0)
            log.warning("offset is gone: taking the partition over again", error=error.str())
            self._checked_at = 0.0  # the topic may have been made anew
            if holding is not None:
                self._drop(holding, now)
        elif code in {KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC, KafkaError._UNKNOWN_PARTITION}:
            self._notices.say("topic", "waiting for the topic: it does not exist", topic=self._route.topic)
            self._checked_at = min(self._checked_at, now - self._pace.check + 1.0)
        elif code != KafkaError._PARTITION_EOF:
            self._notices.say("kafka", "waiting for Kafka", error=error.str())

    def _on_kafka_error(self, error: KafkaError) -> None:
        self._notices.say("kafka", "waiting for Kafka", error=error.str())

    def _steer(self, holding: _Holding, state: Partition) -> None:
        """Pause or resume reading."""
        hold = state.is_full() or (state.caught_up and (self._draining or self._wants_lanes(state)))
        if hold == holding.paused:
            return
        subject = f"full {holding.number}"
        if hold and state.is_full():
            self._notices.say(
                subject, "reading pauses: too much is on its way", partition=holding.number, held=state.held
            )
        else:
            self._notices.over(subject)
        where = [TopicPartition(self._route.topic, holding.number)]
        if hold:
            self._consumer.pause(where)
            # What the client has fetched and not handed over is dropped by the pause; it is fetched again.
        else:
            self._consumer.resume(where)
        holding.paused = hold

    # -- take-over -------------------------------------------------------------------------------------------------

    def _take_over(self, holding: _Holding, now: float) -> None:
        if holding.taking or now < holding.not_before:
            return
        holding.taking = True
        source = Source(self._cluster, self._route.topic, self._topic_id, holding.number)

        def then(taken: Taken | None) -> None:
            holding.taking = False
            if taken is not None and taken.start.gap is not None:
                self._report.lost(taken.start.gap[1] - taken.start.gap[0] + 1)
            if self._holdings.get(holding.number) is not holding:
                return
            if taken is None:
                self._drop(holding, time.monotonic())
                return
            self._begin(holding, taken)

        def failed(error: Exception) -> None:
            holding.taking = False
            self._store_failed(error, f"take-over of {source}")
            self._drop(holding, time.monotonic())

        self._store_desk.ask(lambda: self._keeper.take_over(source), then, failed)

    def _begin(self, holding: _Holding, taken: Taken) -> None:
        """Start reading a partition that was taken over."""
        start, where = taken.start, TopicPartition(self._route.topic, holding.number, taken.start.offset)
        try:
            self._consumer.seek(where)
        except KafkaException as error:  # the assignment has not settled yet
            log.debug("seek was refused, trying again", partition=holding.number, error=str(error))
            self._drop(holding, time.monotonic())
            return
        self._store_answered()
        for note in start.notes:
            log.warning(note)
        holding.state = Partition(taken.source, taken.owner.epoch, start.cursors, start.offset, self._route.limits)
        holding.stamp = taken.stamp
        holding.committed = holding.landed = taken.offsets.committed if taken.offsets.stamp == taken.stamp else None
        holding.switching = holding.committing = False
        log.info(
            "partition taken over",
            topic=self._route.topic,
            partition=holding.number,
            epoch=str(taken.owner.epoch),
            start=start.offset,
            lanes=taken.owner.lanes,
            commit=taken.offsets.committed,
        )

    def _drop(self, holding: _Holding, now: float) -> None:
        """Forget what was read of a partition; take it over again after a pause that doubles."""
        if holding.state is not None:
            holding.failures = 0
            self._pause(holding)
        holding.state = None
        holding.not_before = now + min(0.05 * 2**holding.failures, _BACKOFF_CAP)
        holding.failures += 1

    def _pause(self, holding: _Holding) -> None:
        if not holding.paused:
            self._consumer.pause([TopicPartition(self._route.topic, holding.number)])
            holding.paused = True

    # -- rebalance -------------------------------------------------------------------------------------------------

    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._assigned_once = True
        self._report.joined()
        places = [TopicPartition(tp.topic, tp.partition, 0) for tp in partitions]
        consumer.incremental_assign(places)
        if places:
            consumer.pause(places)
        for place in places:
            self._holdings[place.partition] = _Holding(place.partition)
        log.info("assigned", topic=self._route.topic, partitions=sorted(place.partition for place in places))

    def _on_revoke(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        """Wait a little for what is in flight, commit, and leave."""
        going = {tp.partition for tp in partitions} & self._holdings.keys()
        leaving = [self._holdings[number] for number in going]
        for holding in leaving:
            self._pause(holding)
        deadline = time.monotonic() + self._pace.drain
        if self._stop_by is not None:
            deadline = min(deadline, self._stop_by)
        while time.monotonic() < deadline and any(h.state is not None and h.state.in_flight for h in leaving):
            self._watch_only()
            time.sleep(self._pace.poll)
        deadline = max(deadline, time.monotonic() + _PARTING)
        for holding in leaving:
            self._commit_now(holding, deadline)
            del self._holdings[holding.number]
        consumer.incremental_unassign(partitions)
        log.info("revoked", topic=self._route.topic, partitions=sorted(going))

    def _on_lost(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        for tp in partitions:
            self._holdings.pop(tp.partition, None)
        consumer.incremental_unassign(partitions)
        self._report.left("lost its partitions, and has not joined the group again")
        log.warning("lost", topic=self._route.topic, partitions=sorted(tp.partition for tp in partitions))

    def _watch_only(self) -> None:
        self._report.alive()
        self._store_desk.answer()
        self._verifier.answer()
        self._sender.answer()
        now = time.monotonic()
        for holding in self._holdings.values():
            if holding.state is not None:
                self._sender.resend(holding.state, now)
        self._sender.retry(now)
        self._observe(now)

    def _send(self, batch: Batch) -> None:
        """Send a batch whose records are known to be this topic's, unless its state has been dropped meanwhile."""
        if self._state_of(batch) is not None:
            self._sender.send(batch)

    def _state_of(self, batch: Batch) -> Partition | None:
        """The state that a batch belongs to, unless that has been dropped or replaced."""
        holding = self._holdings.get(batch.source.partition)
        state = holding.state if holding is not None else None
        return state if state is not None and state.epoch == batch.epoch else None

    # -- watching --------------------------------------------------------------------------------------------------

    def _observe(self, now: float) -> None:
        states = {h.state.source: h for h in self._holdings.values() if h.state is not None}
        flying = any(h.state is not None and h.state.in_flight for h in states.values())
        if not states:
            self._look_at_store(now)
        if self._observing or not states or now - self._observed < (self._pace.poll if flying else _REST):
            return
        self._observing, self._observed = True, now
        asked = {source: holding.state for source, holding in states.items()}

        def then(standings: dict[Source, Standing]) -> None:
            self._observing = False
            self._store_answered()
            for source, state in asked.items():
                holding = self._holdings.get(source.partition)
                if state is None or holding is None or holding.state is not state:
                    continue
                seen = state.observe(standings[source], time.monotonic())
                if seen is not Seen.FINE:
                    why = "another epoch is in force" if seen is Seen.FENCED else "the store has gone back"
                    log.warning("taking over again", partition=str(source), why=why)
                    self._drop(holding, time.monotonic())

        def failed(error: Exception) -> None:
            self._observing = False
            for state in asked.values():
                if state is not None:
                    state.unanswered()
            self._store_failed(error, "watching the cursors")

        self._store_desk.ask(lambda: self._keeper.observe(asked), then, failed)

    def _look_at_store(self, now: float) -> None:
        """With no partition to watch: see from time to time whether the store answers."""
        if self._observing or now - self._observed < _STANDBY_REST:
            return
        self._observing, self._observed = True, now

        def then(_: None) -> None:
            self._observing = False
            self._store_answered()

        def failed(error: Exception) -> None:
            self._observing = False
            self._store_failed(error, "standing by")

        self._store_desk.ask(self._keeper.look, then, failed)

    def _store_answered(self) -> None:
        self._report.store_answered()
        self._notices.over("store")

    def _store_failed(self, error: Exception, doing: str) -> None:
        """Wait where waiting helps; stop with the error where it does not."""
        if isinstance(error, StorageUnavailable):
            self._report.store_failed(error)
            self._notices.say("store", "waiting for the store", doing=doing, error=str(error))
        elif isinstance(error, KafkaAway):
            self._notices.say("kafka", "waiting for Kafka", doing=doing, error=str(error))
        elif isinstance(error, NoSuchTopic):
            self._notices.say("topic", "waiting for the topic: it does not exist", topic=self._route.topic)
        else:
            self._error = error

    # -- committing ------------------------------------------------------------------------------------------------

    def _commit(self, holding: _Holding) -> None:
        """Write the floor, then commit, if there is something new to commit."""
        state = holding.state
        if state is None or holding.committing or holding.committed == state.committable():
            return
        offset, cursors = state.committable(), state.cursors
        holding.committing = True

        def then(ours: bool) -> None:
            holding.committing = False
            if self._holdings.get(holding.number) is not holding or holding.state is not state:
                return
            if not ours:
                self._checked_at = 0.0
                self._drop(holding, time.monotonic())
                return
            self._consumer.commit(offsets=[self._place(holding, offset)], asynchronous=True)
            holding.committed = offset

        def failed(error: Exception) -> None:
            holding.committing = False
            self._store_failed(error, "raising the floor before a commit")

        self._store_desk.ask(
            lambda: self._keeper.raise_floor(state.source, state.epoch, cursors=cursors, offset=offset), then, failed
        )

    def _on_commit(self, error: KafkaError | None, places: list[TopicPartition]) -> None:
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
                log.warning("commit failed, trying again", partition=place.partition, error=failure.str())

    def _place(self, holding: _Holding, offset: int) -> TopicPartition:
        metadata = holding.stamp.pack() if holding.stamp is not None else ""
        return TopicPartition(self._route.topic, holding.number, offset, metadata)

    def _commit_now(self, holding: _Holding, deadline: float) -> None:
        """Commit what may be committed, waiting for it; for a partition that is about to go."""
        state = holding.state
        if state is None or holding.landed == state.committable():
            return
        offset, cursors = state.committable(), state.cursors
        answers: list[bool] = []

        def failed(error: Exception) -> None:
            self._store_failed(error, "raising the floor before a commit")
            answers.append(False)

        self._store_desk.ask(
            lambda: self._keeper.raise_floor(state.source, state.epoch, cursors=cursors, offset=offset),
            answers.append,
            failed,
        )
        while not answers and time.monotonic() < deadline:
            self._report.alive()
            self._store_desk.answer()
            time.sleep(0.005)
        if answers != [True] or self._holdings.get(holding.number) is not holding or holding.state is not state:
            return
        try:
            self._consumer.commit(offsets=[self._place(holding, offset)], asynchronous=False)
            holding.committed = holding.landed = offset
        except KafkaException as error:
            log.warning(
                "not committed; the next bridge reads a little again", partition=holding.number, error=str(error)
            )

    # -- lanes -----------------------------------------------------------------------------------------------------

    def _wants_lanes(self, state: Partition) -> bool:
        return state.lanes != self._route.lanes

    def _switch_lanes(self, holding: _Holding, state: Partition) -> None:
        """Adopt another number of lanes, at a moment when nothing is outstanding."""
        if not self._wants_lanes(state) or holding.switching or not state.may_switch:
            return
        if not holding.paused:
            return  # paused first, so that nothing is read while the store is asked
        holding.switching = True
        position, seen = state.position, state.cursors

        def then(owner: Owner | None) -> None:
            holding.switching = False
            if self._holdings.get(holding.number) is not holding or holding.state is not state:
                return
            if owner is None:
                self._drop(holding, time.monotonic())
                return
            cursors = dict.fromkeys(range(owner.lanes), position - 1)
            holding.state = Partition(state.source, owner.epoch, cursors, position, self._route.limits)
            log.info("lanes changed", partition=str(state.source), lanes=owner.lanes, epoch=str(owner.epoch))

        def failed(error: Exception) -> None:
            holding.switching = False
            self._store_failed(error, "changing the lanes")

        self._store_desk.ask(
            lambda: self._keeper.change_lanes(state.source, state.epoch, cursors=seen, position=position), then, failed
        )

    # -- the topic -------------------------------------------------------------------------------------------------

    def _check(self, now: float) -> None:
        """Look from time to time whether the topic is still the same."""
        if self._checking or now - self._checked_at < self._pace.check:
            return
        self._checking, self._checked_at = True, now

        def then(topic_id: str) -> None:
            self._checking = False
            self._notices.over("topic")
            if topic_id != self._topic_id:
                self._error = TopicChanged(topic_id)

        def failed(error: Exception) -> None:
            self._checking = False
            self._store_failed(error, "looking up the topic")

        self._store_desk.ask(lambda: self._lookup.topic_id(self._route.topic), then, failed)

    # -- the end ---------------------------------------------------------------------------------------------------

    def _leave(self, *, fence: bool) -> None:
        """Commit what may be committed, fence what is still queued, leave the group, end the threads.

        Where the store is away, no job for it begins past the deadline: each would take its timeout, and the process is
        killed when its grace period is over.
        """
        deadline = max(self._stop_by or 0.0, time.monotonic() + _PARTING)
        left: list[bool] = []
        for holding in list(self._holdings.values()):
            self._commit_now(holding, deadline)
        states = [holding.state for holding in self._holdings.values() if holding.state is not None]
        self._holdings.clear()
        if fence:
            sources = [state.source for state in states]
            self._store_desk.ask(
                lambda: self._keeper.leave(sources),
                lambda _: left.append(True),
                lambda error: log.warning("raising the epochs failed", error=str(error)),
            )
        self._consumer.close()
        self._sender.close()
        self._verifier.close()
        self._store_desk.close(deadline=deadline if fence else None)
        if fence and not left:
            log.warning("the epochs are not raised; what is still queued may be applied until the next take-over")
        flying = {str(state.source): state.in_flight for state in states if state.in_flight}
        log.info("left the group", topic=self._route.topic, in_flight=flying)


def _bytes(data: str | bytes | None) -> bytes | None:
    return data.encode() if isinstance(data, str) else data
