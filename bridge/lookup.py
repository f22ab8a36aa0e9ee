"""Questions to Kafka that are not consuming: ids, offsets, the group's members. Each blocks for a bounded time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from confluent_kafka import (
    Consumer,
    IsolationLevel,
    KafkaError,
    KafkaException,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, OffsetSpec  # type: ignore[attr-defined] # its stub forgets it

from bridge.fresh import KafkaAway, ask_freshly
from bridge.membership import CLIENT_ID
from bridge.takeover import Stamp, unpack_stamp
from tasks.kafka_clients import make_client, without_group
from tasks.kafka_trouble import Told

if TYPE_CHECKING:
    from collections.abc import Iterable
    from concurrent.futures import Future
    from types import TracebackType
    from typing import Self

_TIMEOUT: Final = 5.0
_EARLIEST: Final = OffsetSpec.earliest()  # type: ignore[no-untyped-call]
_LATEST: Final = OffsetSpec.latest()  # type: ignore[no-untyped-call]
_ALL: Final = IsolationLevel.READ_UNCOMMITTED
_READABLE: Final = IsolationLevel.READ_COMMITTED
# Of a question about the group, which goes to its coordinator. Where that has died, a client that gives the question up
# while it looks for the next one can end the process (librdkafka 2.16), so it may go on after we have.
_COORDINATOR_TIMEOUT: Final = 120.0
_NO_TOPIC: Final = frozenset({KafkaError.UNKNOWN_TOPIC_OR_PART})
_NO_GROUP: Final = frozenset({KafkaError._UNSUPPORTED_FEATURE, KafkaError.GROUP_ID_NOT_FOUND})
_MOCK: Final = "mockCluster"  # how librdkafka's mock cluster begins its id; it knows no topic ids


class NoSuchTopic(Exception):
    """The topic does not exist (yet)."""


class Offsets(NamedTuple):
    """The group's commit of a partition with its stamp, and the log's bounds.

    Attributes:
        committed: the group's committed offset, None where there is none.
        stamp: its stamp, None where it has none of ours.
        log_start: the first offset that Kafka still has.
        log_end: the offset that the next record will get (the high watermark).
        readable: where reading ends now: at the first record of an open transaction, else at the log's end.
        leader_epoch: the leader that the commit was read from, as Kafka counts them; None where it does not say.
    """

    committed: int | None
    stamp: Stamp | None
    log_start: int
    log_end: int
    readable: int
    leader_epoch: int | None = None


class Bounds(NamedTuple):
    """Where a partition's log begins, and where reading it ends now: see `Offsets`."""

    log_start: int
    readable: int


class Lookup:
    """Answers questions about one consumer group and its cluster. Safe to use from several threads.

    Args:
        config: servers and security, as librdkafka names them.
        group: the consumer group; it is asked about, never joined.

    Raises:
        WrongSettingError: librdkafka refuses a setting.
    """

    def __init__(self, config: dict[str, Any], group: str) -> None:
        quiet = {**without_group(config), "client.id": f"{CLIENT_ID}-lookup", "log_level": 2}
        self._group = group
        self._config = quiet
        self._told = Told(config)
        self._admin = make_client(AdminClient, {**quiet, "error_cb": self._told.hear}, config)
        reading = {"group.id": group, "enable.auto.commit": False, "isolation.level": "read_uncommitted"}
        self._consumer = make_client(Consumer, {**quiet, **reading}, config)
        self._mock: str | None = None
        self._closed = False

    def cluster_id(self) -> str:
        """The cluster's id.

        Raises:
            KafkaAway: no answer.
        """

        def look() -> str:
            return str(self._admin.list_topics(timeout=_TIMEOUT).cluster_id)

        return ask_freshly((self._admin,), look, seconds=_TIMEOUT)

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

        def look() -> str:
            described = self._admin.describe_topics(TopicCollection([topic]), request_timeout=_TIMEOUT)
            return str(described[topic].result().topic_id)

        try:
            return ask_freshly((self._admin,), look, seconds=_TIMEOUT, final=_NO_TOPIC)
        except KafkaException as error:
            raise NoSuchTopic(topic) from error

    def offsets(self, topic: str, partition: int) -> Offsets:
        """Commit and bounds of one partition.

        The consumer asked reads uncommitted: any other would wait for its own commit where a transaction holds another
        one back. It and not the other client is asked for the commit, since it outlives the death of the coordinator.

        Raises:
            KafkaAway: no answer.
        """
        asked = TopicPartition(topic, partition)

        def look() -> Offsets:
            readable = self._ask_bounds(topic, [partition], _LATEST, _READABLE)
            found = self._consumer.committed([asked], timeout=_TIMEOUT)[0]
            if found.error is not None:
                raise KafkaAway(str(found.error))
            bounds: Any = self._consumer.get_watermark_offsets(asked, timeout=_TIMEOUT)  # None: timed out
            if bounds is None:
                msg = f"no bounds of {topic}[{partition}] within {_TIMEOUT:g} s"
                raise KafkaAway(msg)
            start, end = bounds
            known = found.offset >= 0
            return Offsets(
                committed=found.offset if known else None,
                stamp=unpack_stamp(found.metadata) if known else None,
                log_start=start,
                log_end=end,
                readable=int(readable[partition].result().offset),
                leader_epoch=found.leader_epoch if known else None,
            )

        return ask_freshly((self._consumer, self._admin), look, seconds=_TIMEOUT)

    def reach(self, topic: str, partition: int) -> None:
        """See whether a partition's coordinator and leader answer.

        Raises:
            KafkaAway: one of them does not.
        """
        self.offsets(topic, partition)

    def bounds(self, topic: str, partitions: Iterable[int]) -> dict[int, Bounds]:
        """Where each partition's log begins, and where reading it ends now.

        Raises:
            KafkaAway: no answer.
        """
        wanted = list(partitions)

        def look() -> dict[int, Bounds]:
            starts = self._ask_bounds(topic, wanted, _EARLIEST, _ALL)
            ends = self._ask_bounds(topic, wanted, _LATEST, _READABLE)
            return {
                number: Bounds(int(starts[number].result().offset), int(answer.result().offset))
                for number, answer in ends.items()
            }

        return ask_freshly((self._admin,), look, seconds=_TIMEOUT)

    def _ask_bounds(
        self, topic: str, partitions: Iterable[int], which: OffsetSpec, isolation: IsolationLevel
    ) -> dict[int, Future[Any]]:
        """Ask for one bound of each partition; the answers have an ``offset``."""
        wanted = {TopicPartition(topic, partition): which for partition in partitions}
        asked = self._admin.list_offsets(wanted, isolation_level=isolation, request_timeout=_TIMEOUT)
        return {place.partition: answer for place, answer in asked.items()}

    def members(self) -> list[str]:
        """Client ids of the group's members; empty where the broker cannot say (librdkafka's mock).

        Raises:
            KafkaAway: no answer.
        """
        # A client of its own for each question: one that knows a dead coordinator waits for it as long as it is dead.
        admin = AdminClient(self._config)

        def look() -> list[str]:
            described = admin.describe_consumer_groups([self._group], request_timeout=_COORDINATOR_TIMEOUT)
            return [str(member.client_id) for member in described[self._group].result(timeout=_TIMEOUT).members]

        try:
            return ask_freshly((admin,), look, seconds=_TIMEOUT, final=_NO_GROUP)
        except KafkaException:
            return []

    def explain(self, error: KafkaAway) -> KafkaAway:
        """The error with the reason why Kafka did not answer, where that can be found; may take some seconds."""
        trouble = self._told.explain(self._admin)
        return error if trouble is None else KafkaAway(str(trouble))

    def close(self) -> None:
        """Close the connections. Closing twice is fine."""
        if not self._closed:
            self._closed = True
            self._consumer.close()
            self._admin.__exit__(None, None, None)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
