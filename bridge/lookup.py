"""Questions to Kafka that are not consuming: ids, offsets, the group's members. Each blocks for a bounded time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec  # type: ignore[attr-defined] # its stub forgets it

from bridge.takeover import Stamp, unpack_stamp

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import TracebackType
    from typing import Self

CLIENT_ID: Final = "matyan-bridge"
_TIMEOUT: Final = 5.0
_MOCK: Final = "mockCluster"  # how librdkafka's mock cluster begins its id; it knows no topic ids


class KafkaAway(Exception):
    """Kafka did not answer in time; try again later."""


class NoSuchTopic(Exception):
    """The topic does not exist (yet)."""


class Offsets(NamedTuple):
    """The group's commit of a partition with its stamp, and the log's bounds."""

    committed: int | None
    stamp: Stamp | None
    log_start: int
    log_end: int


class Lookup:
    """Answers questions about one consumer group and its cluster. Safe to use from several threads.

    Args:
        config: servers and security, as librdkafka names them.
        group: the consumer group; it is asked about, never joined.
    """

    def __init__(self, config: dict[str, Any], group: str) -> None:
        quiet = {**config, "client.id": f"{CLIENT_ID}-lookup", "log_level": 2}
        self._group = group
        self._admin = AdminClient(quiet)
        self._consumer = Consumer({**quiet, "group.id": group, "enable.auto.commit": False})
        self._mock: str | None = None
        self._closed = False

    def cluster_id(self) -> str:
        """The cluster's id.

        Raises:
            KafkaAway: no answer.
        """
        try:
            return str(self._admin.list_topics(timeout=_TIMEOUT).cluster_id)
        except KafkaException as error:
            raise KafkaAway(str(error)) from error

    def topic_id(self, topic: str) -> str:
        """The topic's id: another one for each life of a topic of this name.

        Raises:
            NoSuchTopic: there is none of this name.
            KafkaAway: no answer.
        """
        if self._mock is None:
            cluster = self.cluster_id()
            self._mock = cluster if cluster.startswith(_MOCK) else ""
        if self._mock:
            return f"{self._mock}:{topic}"
        try:
            described = self._admin.describe_topics(TopicCollection([topic]), request_timeout=_TIMEOUT)
            return str(described[topic].result().topic_id)
        except KafkaException as error:
            if error.args[0].code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
                raise NoSuchTopic(topic) from error
            raise KafkaAway(str(error)) from error

    def offsets(self, topic: str, partition: int) -> Offsets:
        """Commit and bounds of one partition.

        Raises:
            KafkaAway: no answer.
        """
        asked = TopicPartition(topic, partition)
        try:
            found = self._consumer.committed([asked], timeout=_TIMEOUT)[0]
            if found.error is not None:
                raise KafkaAway(str(found.error))
            bounds: Any = self._consumer.get_watermark_offsets(asked, timeout=_TIMEOUT)  # None: timed out
        except KafkaException as error:
            raise KafkaAway(str(error)) from error
        if bounds is None:
            msg = f"no bounds of {topic}[{partition}] within {_TIMEOUT:g} s"
            raise KafkaAway(msg)
        if found.offset < 0:
            return Offsets(None, None, *bounds)
        return Offsets(found.offset, unpack_stamp(found.metadata), *bounds)

    def ends(self, topic: str, partitions: Iterable[int]) -> dict[int, int]:
        """The ends of the log: the offset that each partition's next record will get.

        Raises:
            KafkaAway: no answer.
        """
        latest: Any = OffsetSpec.latest()  # type: ignore[no-untyped-call]
        wanted = {TopicPartition(topic, partition): latest for partition in partitions}
        try:
            asked = self._admin.list_offsets(wanted, request_timeout=_TIMEOUT)
            return {place.partition: int(answer.result().offset) for place, answer in asked.items()}
        except KafkaException as error:
            raise KafkaAway(str(error)) from error

    def members(self) -> list[str]:
        """Client ids of the group's members; empty where the broker cannot say (librdkafka's mock).

        Raises:
            KafkaAway: no answer.
        """
        try:
            described = self._admin.describe_consumer_groups([self._group], request_timeout=_TIMEOUT)
            return [str(member.client_id) for member in described[self._group].result().members]
        except KafkaException as error:
            code = error.args[0].code()
            if code in {KafkaError._UNSUPPORTED_FEATURE, KafkaError.GROUP_ID_NOT_FOUND}:
                return []
            raise KafkaAway(str(error)) from error

    def close(self) -> None:
        """Close the connections. Closing twice is fine."""
        if not self._closed:
            self._closed = True
            self._consumer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
