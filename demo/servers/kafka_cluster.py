"""Three Kafka brokers as one cluster, each of them a controller too: to be killed, and to move leaders between."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Final

from confluent_kafka import ElectionType, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewPartitions, NewTopic

from demo.servers.kafka import broker_command, format_folders
from demo.servers.kafka_jars import fetch_kafka
from demo.servers.process import Process, free_port, wait_until

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path
    from types import TracebackType
    from typing import Self

BROKERS: Final = (1, 2, 3)
_SECONDS: Final = 60.0  # for one request, and for what follows from it
_READY: Final = 180.0  # three of them start side by side on what may be two busy cores
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
        admin = self._admin()
        admin.create_topics([topic])[name].result(timeout=_SECONDS)
        wait_until(
            lambda: len(self.leaders(name)) == partitions and min(self.leaders(name).values()) > 0,
            f"topic {name} has leaders",
            seconds=_SECONDS,
        )

    def delete_topic(self, name: str) -> None:
        """Delete a topic and wait until it is gone.

        Raises:
            KafkaException: there is none, or no answer.
        """
        admin = self._admin()
        admin.delete_topics([name])[name].result(timeout=_SECONDS)
        wait_until(lambda: not self.leaders(name), f"topic {name} is gone", seconds=_SECONDS)

    def add_partitions(self, name: str, partitions: int) -> None:
        """Give a topic more partitions, so many in all, and wait until they have leaders.

        Raises:
            KafkaException: refused, or no answer.
        """
        admin = self._admin()
        admin.create_partitions([NewPartitions(name, partitions)])[name].result(timeout=_SECONDS)
        wait_until(lambda: len(self.leaders(name)) == partitions, f"{name} has more partitions", seconds=_SECONDS)

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

    def elect(self, name: str, partitions: Sequence[int], *, unclean: bool = False) -> None:
        """Give leadership back to the brokers that are to have it, or, ``unclean``, to one that lacks records.

        Raises:
            KafkaException: no answer.
        """
        kind = ElectionType.UNCLEAN if unclean else ElectionType.PREFERRED
        places = [TopicPartition(name, number) for number in partitions]
        admin = self._admin()
        for error in admin.elect_leaders(kind, places).result(timeout=_SECONDS).values():
            if error is not None and error.code() != KafkaError.ELECTION_NOT_NEEDED:
                raise error if isinstance(error, KafkaException) else KafkaException(error)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

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
            "auto.leader.rebalance.enable=false",  # the tests say when leaders move
        ]
        return "\n".join(lines) + "\n"


def make_admin(servers: str) -> AdminClient:
    """A client for one question. It says nothing on standard error, where librdkafka writes each refused connection."""
    return AdminClient({"bootstrap.servers": servers, "log_level": 0})
