"""Kafka as a process: a real broker, or librdkafka's mock cluster where Java or mvn is missing."""

from __future__ import annotations

import base64
import subprocess
import uuid
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol

from confluent_kafka import KafkaException, Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewPartitions, NewTopic

from demo.servers.kafka_jars import fetch_kafka, missing_for_kafka
from demo.servers.process import DidNotStart, Process, free_port, wait_until

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

MOCK_PARTITIONS: Final = 4  # of every topic of the mock cluster
_LOG_LEVEL: Final = "warn"  # of a broker; from "info" on it writes hundreds of lines at each start
_SECONDS: Final = 30.0  # for one request


class Kafka(Protocol):
    """What both clusters can do."""

    @property
    def bootstrap_servers(self) -> str:
        """What clients connect to."""
        ...

    @property
    def fixed_partitions(self) -> int | None:
        """How many partitions every topic has; None where it is the maker's choice."""
        ...

    def start(self) -> None:
        """Start it and wait until it answers."""
        ...

    def stop(self) -> object:
        """Stop it; stopping twice is fine."""
        ...

    def create_topic(self, name: str, partitions: int) -> None:
        """Make a topic and wait until clients see it."""
        ...


def choose_kafka(folder: Path) -> tuple[Kafka, str]:
    """The best cluster that this machine can run, not started, and a phrase that says which and why.

    Args:
        folder: for a real broker's data and log.
    """
    missing = missing_for_kafka()
    if missing is None:
        try:
            return KafkaServer(folder), "a real Kafka broker from Maven Central"
        except DidNotStart as error:
            missing = str(error).splitlines()[0]
    return MockKafka(), f"librdkafka's mock cluster ({missing})"


class KafkaServer(Process):
    """A one-process KRaft broker on 127.0.0.1 whose topics and port survive a restart. Fetched if it is not cached.

    Args:
        folder: for its data and log.

    Raises:
        DidNotStart: the broker cannot be fetched.
    """

    def __init__(self, folder: Path) -> None:
        self.port, self._controller_port = free_port(), free_port()
        self._classpath = f"{fetch_kafka()}/*"
        self._properties = folder / "server.properties"
        self._data = folder / "kafka-data"
        command = broker_command(self._classpath, self._properties, heap="512m")
        super().__init__("kafka", command, folder / "kafka.log", ready_seconds=90)

    @property
    def bootstrap_servers(self) -> str:
        """What clients connect to."""
        return f"127.0.0.1:{self.port}"

    @property
    def data(self) -> Path:
        """The folder of its logs."""
        return self._data

    @property
    def fixed_partitions(self) -> None:
        """Any number."""
        return None

    def launch(self) -> None:
        """Start it, unless it runs; its data folder is made if there is none.

        Raises:
            DidNotStart: the data folder cannot be made.
        """
        if self.is_alive():
            return
        self._data.parent.mkdir(parents=True, exist_ok=True)
        self._properties.write_text(self._describe())
        if self._cluster_id() is None:
            format_folders(self._classpath, [self._properties])
        super().launch()

    def is_ready(self) -> bool:
        """Whether our own broker, and not another at its port, answers."""
        try:
            found = self._admin().list_topics(timeout=2)
        except KafkaException:
            return False
        return bool(found.brokers) and found.cluster_id == self._cluster_id()

    def create_topic(self, name: str, partitions: int, config: dict[str, str] | None = None) -> None:
        """Make a topic and wait until clients see it.

        Args:
            name: must not exist.
            partitions: number of partitions.
            config: the topic's own settings, by Kafka's names.

        Raises:
            KafkaException: the broker refused, or did not answer within 30 seconds.
        """
        admin = self._admin()
        topic = NewTopic(name, partitions, 1, config=config or {})
        admin.create_topics([topic])[name].result(timeout=_SECONDS)
        wait_until(lambda: _count_partitions(admin, name) == partitions, f"topic {name} is there", seconds=_SECONDS)

    def delete_topic(self, name: str) -> None:
        """Delete a topic and wait until it is gone.

        Raises:
            KafkaException: there is none, or the broker did not answer within 30 seconds.
        """
        admin = self._admin()
        admin.delete_topics([name])[name].result(timeout=_SECONDS)
        wait_until(lambda: not self.has_topic(name), f"topic {name} is gone", seconds=_SECONDS)

    def add_partitions(self, name: str, partitions: int) -> None:
        """Give a topic more partitions, so many in all, and wait until clients see them.

        Raises:
            KafkaException: refused, or the broker did not answer within 30 seconds.
        """
        admin = self._admin()
        admin.create_partitions([NewPartitions(name, partitions)])[name].result(timeout=_SECONDS)
        wait_until(lambda: _count_partitions(admin, name) == partitions, f"{name} has more", seconds=_SECONDS)

    def has_topic(self, name: str) -> bool:
        """Whether there is such a topic.

        Raises:
            KafkaException: the broker did not answer within 30 seconds.
        """
        return name in self._admin().list_topics(timeout=_SECONDS).topics

    def _admin(self) -> AdminClient:
        # "log_level": librdkafka would write each refused connection to our standard error.
        return AdminClient({"bootstrap.servers": self.bootstrap_servers, "log_level": 0})

    def _cluster_id(self) -> str | None:
        """The id that the data folder was made with; None where there is no data folder."""
        try:
            lines = (self._data / "meta.properties").read_text().splitlines()
        except FileNotFoundError:
            return None
        return next((line.removeprefix("cluster.id=") for line in lines if line.startswith("cluster.id=")), None)

    def _describe(self) -> str:
        lines = [
            "process.roles=broker,controller",
            "node.id=1",
            f"controller.quorum.voters=1@127.0.0.1:{self._controller_port}",
            f"listeners=PLAINTEXT://127.0.0.1:{self.port},CONTROLLER://127.0.0.1:{self._controller_port}",
            f"advertised.listeners=PLAINTEXT://127.0.0.1:{self.port}",
            "controller.listener.names=CONTROLLER",
            "listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
            f"log.dirs={self._data}",
            "offsets.topic.replication.factor=1",
            "offsets.topic.num.partitions=4",  # each costs start time, and one group at a time is in use
            "transaction.state.log.replication.factor=1",
            "transaction.state.log.min.isr=1",
            "group.initial.rebalance.delay.ms=0",
            "auto.create.topics.enable=false",
            "message.max.bytes=20000000",  # the tests send records of 9 MB
        ]
        return "\n".join(lines) + "\n"


def broker_command(classpath: str, properties: Path, *, heap: str, options: Sequence[str] = ()) -> list[str]:
    """The command of one broker.

    Args:
        classpath: of its jars.
        properties: its configuration.
        heap: the most memory that it may take, as Java writes it.
        options: more for Java.
    """
    command = ["java", f"-Xmx{heap}", *options, f"-Dorg.slf4j.simpleLogger.defaultLogLevel={_LOG_LEVEL}"]
    command += ["-Dorg.slf4j.simpleLogger.showDateTime=true"]
    command += ["-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd'T'HH:mm:ss.SSSXXX"]
    return [*command, "-cp", classpath, "kafka.Kafka", str(properties)]


def format_folders(classpath: str, properties: Sequence[Path]) -> None:
    """Make the data folders of one new cluster's brokers, side by side.

    Args:
        classpath: of the brokers' jars.
        properties: each broker's configuration, which names its folder.

    Raises:
        DidNotStart: a folder cannot be made.
    """
    cluster_id = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
    with ThreadPoolExecutor(len(properties)) as pool:
        for _ in pool.map(partial(_format_folder, classpath, cluster_id), properties):
            pass


def _format_folder(classpath: str, cluster_id: str, properties: Path) -> None:
    command = ["java", "-cp", classpath, "kafka.tools.StorageTool", "format"]
    # "=": an id may begin with a dash.
    command += [f"--cluster-id={cluster_id}", "--config", str(properties)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        msg = f"Kafka's data folder could not be made: {error}"
        raise DidNotStart(msg) from error
    if done.returncode != 0:
        msg = f"Kafka's data folder could not be made:\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
        raise DidNotStart(msg)


def _count_partitions(admin: AdminClient, name: str) -> int:
    topic = admin.list_topics(timeout=_SECONDS).topics.get(name)
    if topic is None or topic.error is not None:
        return 0
    return sum(partition.leader >= 0 for partition in topic.partitions.values())


class MockKafka:
    """librdkafka's mock cluster, running: real sockets, topics in memory, gone when stopped.

    It knows no CreateTopics request: a topic appears on first use, with four partitions.
    """

    def __init__(self) -> None:
        self._host: Producer | None = None
        self.start()

    @property
    def bootstrap_servers(self) -> str:
        """What clients connect to.

        Raises:
            RuntimeError: it was stopped.
        """
        brokers = self._running().list_topics(timeout=_SECONDS).brokers.values()
        return ",".join(f"{broker.host}:{broker.port}" for broker in brokers)

    @property
    def fixed_partitions(self) -> int:
        """Four."""
        return MOCK_PARTITIONS

    def start(self) -> None:
        """Start it, empty, unless it runs."""
        if self._host is None:
            self._host = Producer({"bootstrap.servers": "mock", "test.mock.num.brokers": 1, "log_level": 2})

    def stop(self) -> None:
        """End it and lose all topics."""
        self._host = None

    def create_topic(self, name: str, partitions: int = MOCK_PARTITIONS) -> None:
        """Make a topic by asking for it.

        Raises:
            ValueError: another number of partitions than the mock gives.
            RuntimeError: it was stopped.
        """
        if partitions != MOCK_PARTITIONS:
            msg = f"{partitions} partitions: the mock cluster gives every topic {MOCK_PARTITIONS}"
            raise ValueError(msg)
        self._running().list_topics(name, timeout=_SECONDS)

    def _running(self) -> Producer:
        if self._host is None:
            msg = "the mock cluster was stopped"
            raise RuntimeError(msg)
        return self._host
