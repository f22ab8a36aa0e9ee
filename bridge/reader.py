"""Reading: the consumer, its records for the partitions that are taken over, its errors, and when it pauses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import structlog
from confluent_kafka import TIMESTAMP_NOT_AVAILABLE, Consumer, KafkaError, Message, TopicPartition

from bridge.headers import read_headers
from bridge.holdings import NO_EPOCH
from bridge.membership import CLIENT_ID
from storage.batch import NO_TIME, Record
from storage.errors import Refused
from tasks.kafka_clients import make_client

if TYPE_CHECKING:
    from collections.abc import Callable

    from bridge.holdings import Holding, Holdings
    from bridge.membership import Membership
    from bridge.notices import Notices
    from bridge.partition import Partition
    from bridge.report import Report
    from bridge.route import Route
    from bridge.topic_watch import TopicWatch

log = structlog.get_logger("bridge")

_CHUNK: Final = 500  # records a call of consume
_OFFSET_ERRORS: Final = {
    KafkaError._AUTO_OFFSET_RESET,
    KafkaError.OFFSET_OUT_OF_RANGE,
    KafkaError._NO_OFFSET,
}
_TOPIC_ERRORS: Final = {
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError._UNKNOWN_TOPIC,
    KafkaError._UNKNOWN_PARTITION,
}


def describe_consumer(config: dict[str, Any], route: Route, membership: Membership) -> dict[str, Any]:
    """How the consumer in the route's group is configured.

    Args:
        config: servers and security, as librdkafka names them, and what people set else.
        route: which group, and how much may be held.
        membership: by which protocol.
    """
    return {
        **membership.defaults,
        "topic.metadata.refresh.interval.ms": 10_000,
        "fetch.wait.max.ms": 100,
        # What is fetched and not handed over is dropped by a pause: no more of it than may be held.
        "queued.max.messages.kbytes": max(1_024, min(32_768, route.limits.held_bytes // 1_000)),
        "log_level": 3,
        **config,
        **membership.fixed,
        "client.id": CLIENT_ID,
        "group.id": route.group,
        "enable.auto.commit": False,
        "auto.offset.reset": "error",
        "allow.auto.create.topics": False,
    }


def make_consumer(
    config: dict[str, Any],
    route: Route,
    membership: Membership,
    on_error: Callable[[KafkaError], None],
    on_commit: Callable[[KafkaError | None, list[TopicPartition]], None],
) -> Consumer:
    """A consumer in the route's group.

    Args:
        config: as for `describe_consumer`.
        route: which group, and how much may be held.
        membership: by which protocol.
        on_error: told what is wrong with Kafka as a whole.
        on_commit: told Kafka's answers to commits.

    Raises:
        WrongSettingError: librdkafka refuses a setting.
    """
    told = {**describe_consumer(config, route, membership), "error_cb": on_error, "on_commit": on_commit}
    return make_client(Consumer, told, config)


class Reader:
    """Hands the consumer's records to the partitions that they belong to.

    Args:
        consumer: the consumer.
        route: whose run a record is.
        membership: judges what the group's coordinator refuses.
        holdings: the partitions.
        topic_watch: told to look where an error speaks for another topic.
        notices: where to say what is waited for.
        report: told how many records were read.
    """

    def __init__(
        self,
        consumer: Consumer,
        route: Route,
        membership: Membership,
        holdings: Holdings,
        topic_watch: TopicWatch,
        notices: Notices,
        report: Report,
    ) -> None:
        self._consumer = consumer
        self._route = route
        self._membership = membership
        self._holdings = holdings
        self._topic_watch = topic_watch
        self._notices = notices
        self._report = report
        self._taken = self._skipped = 0  # of this turn

    def read(self, timeout: float, now: float) -> None:
        """Read what is there, waiting so many seconds at most for the first record."""
        self._taken = self._skipped = 0
        for message in self._consumer.consume(_CHUNK, timeout=timeout):
            self._take(message, now)
        self._reach()
        self._report.consumed(self._taken, self._skipped)

    def _take(self, message: Message, now: float) -> None:
        error = message.error()
        if error is not None:
            self._on_message_error(message, error, now)
            return
        self._notices.over("kafka")
        number, offset = message.partition(), message.offset()
        holding = self._holdings.get(number) if number is not None else None
        if holding is None or holding.state is None or offset is None or offset < holding.state.position:
            return  # fetched for a state that was dropped
        kind, milliseconds = message.timestamp()
        headers = read_headers(message)
        if headers is None:
            subject = f"headers {number}"
            self._notices.say(subject, "headers are left out: a name is not UTF-8", partition=number, offset=offset)
        record = Record(
            offset,
            NO_TIME if kind == TIMESTAMP_NOT_AVAILABLE else milliseconds,
            _bytes(message.key()),
            _bytes(message.value()),
            headers or (),
        )
        self._taken += 1
        if not holding.state.take(record, self._route.find_run(record), now):
            self._skipped += 1

    def _reach(self) -> None:
        """Learn how far is read, which is further than the last record where none follows but transactions' markers."""
        reading = [(holding, holding.state) for holding in self._holdings if holding.state is not None]
        places = [TopicPartition(self._route.topic, holding.number) for holding, _ in reading]
        found = self._consumer.position(places) if places else []
        for (holding, state), place in zip(reading, found, strict=True):
            if place.offset >= state.position:  # negative before the first
                state.reach(place.offset)
                holding.leader_epoch = NO_EPOCH if place.leader_epoch is None else place.leader_epoch

    def _on_message_error(self, message: Message, error: KafkaError, now: float) -> None:
        self._membership.check(error)
        code = error.code()
        if code in _OFFSET_ERRORS:
            number = message.partition()
            holding = self._holdings.get(number) if number is not None else None
            self._topic_watch.look_at_once()  # the topic may have been made anew
            if holding is not None and holding.state is not None:
                if "truncation" in error.str():  # and not retention: the leader has less than was read of the last one
                    msg = (
                        f"{self._route.topic}[{number}]: all below offset {holding.state.position} is read, and "
                        f"the log was cut ({error.str()}): an unclean election, or a disk that lost what was written. "
                        "Make the topic anew, or point the bridge at another store"
                    )
                    raise Refused(msg)
                log.warning(
                    "offset is gone: taking the partition over again when what was read is applied",
                    partition=number,
                    position=holding.state.position,
                    error=error.str(),
                )
                self._holdings.stray(holding)
        elif code in _TOPIC_ERRORS:
            self._notices.say("topic", "waiting for the topic: it does not exist", topic=self._route.topic)
            self._topic_watch.look_within(1.0, now)
        elif code != KafkaError._PARTITION_EOF:
            self._notices.say("kafka", "waiting for Kafka", error=error.str())

    def steer(self, holding: Holding, state: Partition, *, stop: bool) -> None:
        """Pause or resume reading.

        Args:
            holding: the partition.
            state: its state.
            stop: read no further than what was ever applied.
        """
        hold = state.is_full() or (state.caught_up and stop)
        if hold == holding.paused:
            return
        subject = f"full {holding.number}"
        if hold and state.is_full():
            self._notices.say(
                subject, "reading pauses: too much is on its way", partition=holding.number, held=state.held
            )
        else:
            self._notices.over(subject)
        if hold:
            self._holdings.pause(holding)
        else:
            self._holdings.resume(holding)


def _bytes(data: str | bytes | None) -> bytes | None:
    return data.encode() if isinstance(data, str) else data
