"""Three Kafka brokers as one cluster, each of them a controller too: to be killed, and to move leaders between."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Final

from confluent_kafka import ElectionType, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewPartitions, NewTopic

from demo.servers.kafka import broker_command, format_folders
from demo.servers.kafka_jars import fetch_kafka
from demo.servers.process import Process, free_port, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path
    from types import TracebackType
    from typing import Self

BROKERS: Final = (1, 2, 3)
_SECONDS: Final = 20.0  # for one request, and for what follows from it
_READY: Final = 180.0  # three of them start side by side on what may be two busy cores
_PASSING: Final = {
    KafkaError.NOT_CONTROLLER,
    KafkaError.REQUEST_TIMED_OUT,
    KafkaError._TIMED_OUT,
    KafkaError._TRANSPORT,
}
# Small and quickly there: what takes long at the start of a broker is Java's compiler.
_JAVA: Final = ("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")


class ClusterBroker(Process):
    """One of the brokers. It is ready when it serves clients, which it does once a majority of them runs.

    Args:
        number: its node id.
        command: program and arguments.
        folder: for its log.
        port: where it serves clients.
    """

    def __init__(self, number: int, command: Sequence[str], folder: Path, port: int) -> None:
        self.number, self.port = number, port
        super().__init__(f"kafka-{number}", command, folder / f"kafka-{number}.log", ready_seconds=_READY)

    def is_ready(self) -> bool:
        """Whether it answers, and is one of the cluster's brokers."""
        try:
            found = make_admin(f"127.0.0.1:{self.port}").list_topics(timeout=2)
        except KafkaException:
            return False
        return self.number in found.brokers


class KafkaCluster:
    """Brokers 1, 2 and 3 on 127.0.0.1; what they hold and their ports survive a kill. Fetched if not cached.

    Topics are kept by all three, and a record is confirmed when two have it, unless a topic says otherwise.

    Args:
        folder: for their data and logs.

    Raises:
        DidNotStart: the brokers cannot be fetched.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._classpath = f"{fetch_kafka()}/*"
        ports = {number: (free_port(), free_port()) for number in BROKERS}
        self._voters = ",".join(f"{number}@127.0.0.1:{control}" for number, (_, control) in ports.items())
        self._properties = {number: folder / f"server-{number}.properties" for number in BROKERS}
        self._described = {number: self._describe(number, *ports[number]) for number in BROKERS}
        self.brokers = {
            number: ClusterBroker(
                number,
                broker_command(self._classpath, self._properties[number], heap="256m", options=_JAVA),
                folder,
                ports[number][0],
            )
            for number in BROKERS
        }

    @property
    def bootstrap_servers(self) -> str:
        """What clients connect to: all three."""
        return ",".join(f"127.0.0.1:{broker.port}" for broker in self.brokers.values())

    def start(self) -> None:
        """Start those that do not run, and wait until each is ready, and every topic is kept by all that shall keep it.

        Raises:
            DidNotStart: one of them did not come up.
        """
        if not self._data(BROKERS[0]).exists():
            self._folder.mkdir(parents=True, exist_ok=True)
            for number, path in self._properties.items():
                path.write_text(self._described[number])
            format_folders(self._classpath, list(self._properties.values()))
        for broker in self.brokers.values():
            broker.launch()
        for broker in self.brokers.values():
            broker.start()
        wait_until(self._is_whole, "every partition is kept by all its brokers", seconds=_READY, pause=0.2)

    def stop(self) -> None:
        """Kill them: what a test has done to them is of no more use. Stopping twice is fine."""
        for broker in self.brokers.values():
            broker.kill()

    def create_topic(
        self, name: str, partitions: int, config: Mapping[str, str] | None = None, *, on: Sequence[int] = BROKERS
    ) -> None:
        """Make a topic and wait until it has its leaders.

        Args:
            name: must not exist.
            partitions: number of partitions.
            config: the topic's own settings, by Kafka's names.
            on: the brokers that keep each partition, first the one that is to lead; all three: Kafka chooses.

        Raises:
            KafkaException: refused, or no answer.
        """
        if tuple(on) == BROKERS:
            topic = NewTopic(name, partitions, len(BROKERS), config=dict(config or {}))
        else:
            placed = [list(on)] * partitions
            topic = NewTopic(name, partitions, replica_assignment=placed, config=dict(config or {}))
        self._insist(
            lambda admin: admin.create_topics([topic])[name].result(timeout=_SECONDS),
            done=KafkaError.TOPIC_ALREADY_EXISTS,
        )
        wait_until(lambda: self._is_led(name, partitions), f"topic {name} has leaders", seconds=_READY)

    def delete_topic(self, name: str) -> None:
        """Delete a topic and wait until it is gone.

        Raises:
            KafkaException: there is none, or no answer.
        """
        self._insist(
            lambda admin: admin.delete_topics([name])[name].result(timeout=_SECONDS),
            done=KafkaError.UNKNOWN_TOPIC_OR_PART,
        )
        wait_until(lambda: not self.leaders(name), f"topic {name} is gone", seconds=_READY)

    def has_topic(self, name: str) -> bool:
        """Whether there is such a topic.

        Raises:
            KafkaException: no answer.
        """
        return name in self._admin().list_topics(timeout=_SECONDS).topics

    def add_partitions(self, name: str, partitions: int) -> None:
        """Give a topic more partitions, so many in all, and wait until they have leaders.

        Raises:
            KafkaException: refused, or no answer.
        """
        wanted = NewPartitions(name, partitions)
        self._insist(
            lambda admin: admin.create_partitions([wanted])[name].result(timeout=_SECONDS),
            done=KafkaError.INVALID_PARTITIONS,
        )
        wait_until(lambda: self._is_led(name, partitions), f"{name} has more partitions", seconds=_READY)

    def leaders(self, name: str) -> dict[int, int]:
        """Which broker leads each partition, -1 for none; nothing where there is no such topic.

        Raises:
            KafkaException: no answer.
        """
        topic = self._admin().list_topics(timeout=_SECONDS).topics.get(name)
        return {} if topic is None else {number: found.leader for number, found in topic.partitions.items()}

    def in_sync(self, name: str, partition: int) -> set[int]:
        """The brokers that have all of a partition.

        Raises:
            KafkaException: no answer.
        """
        return set(self._admin().list_topics(timeout=_SECONDS).topics[name].partitions[partition].isrs)

    def elect(self, name: str, partitions: Sequence[int]) -> None:
        """Give leadership back to the brokers that are to have it.

        Raises:
            KafkaException: no answer.
        """
        places = [TopicPartition(name, number) for number in partitions]

        def elect(admin: AdminClient) -> None:
            found = admin.elect_leaders(ElectionType.PREFERRED, places).result(timeout=_SECONDS)
            for error in filter(None, found.values()):
                raise error if isinstance(error, KafkaException) else KafkaException(error)

        self._insist(elect, done=KafkaError.ELECTION_NOT_NEEDED)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _insist(self, ask: Callable[[AdminClient], object], *, done: int) -> None:
        """Ask the controller, and again where it has just changed.

        Args:
            ask: asks with a client.
            done: the code of the error that says that it is so already.

        Raises:
            KafkaException: refused, or no answer.
        """
        deadline = time.monotonic() + _READY
        while True:
            try:
                ask(self._admin())
            except KafkaException as error:
                code = error.args[0].code()
                if code == done:
                    return
                if code not in _PASSING or time.monotonic() > deadline:
                    raise
            except TimeoutError:
                if time.monotonic() > deadline:
                    raise
            else:
                return
            time.sleep(0.5)

    def _is_led(self, name: str, partitions: int) -> bool:
        leaders = self.leaders(name)
        return len(leaders) == partitions and min(leaders.values()) > 0

    def _is_whole(self) -> bool:
        with contextlib.suppress(KafkaException):
            topics = self._admin().list_topics(timeout=_SECONDS).topics.values()
            partitions = [found for topic in topics for found in topic.partitions.values()]
            return all(len(found.isrs) == len(found.replicas) for found in partitions)
        return False

    def _admin(self) -> AdminClient:
        return make_admin(self.bootstrap_servers)

    def _data(self, number: int) -> Path:
        return self._folder / f"kafka-data-{number}"

    def _describe(self, number: int, port: int, control_port: int) -> str:
        lines = [
            "process.roles=broker,controller",
            f"node.id={number}",
            f"controller.quorum.voters={self._voters}",
            f"listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{control_port}",
            f"advertised.listeners=PLAINTEXT://127.0.0.1:{port}",
            "controller.listener.names=CONTROLLER",
            "listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
            f"log.dirs={self._data(number)}",
            "default.replication.factor=3",
            "min.insync.replicas=2",
            "offsets.topic.replication.factor=3",
            "offsets.topic.num.partitions=4",  # each costs start time, and one group at a time is in use
            "transaction.state.log.replication.factor=3",
            "transaction.state.log.min.isr=2",
            "group.initial.rebalance.delay.ms=0",
            "auto.create.topics.enable=false",
            # Of the new group protocol: a dead member is given up soon, as in the classic one's tests.
            "group.consumer.min.heartbeat.interval.ms=1000",
            "group.consumer.heartbeat.interval.ms=1000",
            "group.consumer.min.session.timeout.ms=6000",
            "group.consumer.session.timeout.ms=6000",
            "log.cleaner.backoff.ms=500",
            "auto.leader.rebalance.enable=false",  # the tests say when leaders move
        ]
        return "\n".join(lines) + "\n"


def make_admin(servers: str) -> AdminClient:
    """A client for one question. It says nothing on standard error, where librdkafka writes each refused connection."""
    return AdminClient({"bootstrap.servers": servers, "log_level": 0})
