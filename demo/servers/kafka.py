"""Kafka as a process: a real broker from Maven Central, or librdkafka's mock cluster where Java or mvn is missing."""

from __future__ import annotations

import base64
import os
import shutil
import subprocess
import uuid
from pathlib import Path
from typing import Final

from confluent_kafka import KafkaException, Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from demo.servers.process import DidNotStart, Process, free_port, wait_until

VERSION: Final = "4.2.0"
_SCALA: Final = "2.13"
_COMPLETE: Final = "complete"  # written last: a folder without it is half a download

_POM: Final = f"""<project xmlns="http://maven.apache.org/POM/4.0.0">
<modelVersion>4.0.0</modelVersion><groupId>demo</groupId><artifactId>kafka</artifactId><version>1</version>
<packaging>pom</packaging>
<dependencies><dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_{_SCALA}</artifactId>
<version>{VERSION}</version></dependency></dependencies></project>
"""


def missing_for_kafka() -> str | None:
    """Why no real broker can run here; None if it can."""
    absent = [program for program in ("java", "mvn") if shutil.which(program) is None]
    return f"{' and '.join(absent)} not found" if absent else None


def cache_folder() -> Path:
    """Where slow downloads are kept between runs; may be deleted at any time."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "matyan-celery"


def fetch_kafka() -> Path:
    """The folder of the broker's jars, downloaded if it is not in the cache.

    Raises:
        DidNotStart: the download failed; says how.
    """
    folder = cache_folder() / f"kafka-{VERSION}"
    if (folder / _COMPLETE).exists():
        return folder
    fresh = folder.with_name(f"{folder.name}.{uuid.uuid4().hex[:8]}")
    fresh.mkdir(parents=True)
    try:
        (fresh / "pom.xml").write_text(_POM)
        command = ["mvn", "--quiet", "--batch-mode", "dependency:copy-dependencies", "-DoutputDirectory=lib"]
        done = subprocess.run(command, cwd=fresh, capture_output=True, text=True, timeout=600, check=False)
        if done.returncode != 0 or not list(fresh.glob(f"lib/kafka_{_SCALA}-{VERSION}.jar")):
            msg = f"mvn could not fetch Kafka {VERSION}:\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
            raise DidNotStart(msg)
        (fresh / _COMPLETE).touch()
        shutil.rmtree(folder, ignore_errors=True)
        try:
            fresh.rename(folder)
        except OSError:
            if not (folder / _COMPLETE).exists():  # else somebody else was faster
                raise
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return folder


class KafkaServer(Process):
    """A one-process KRaft broker on 127.0.0.1 whose log survives a restart.

    Args:
        folder: for its data and log.
        jars: from `fetch_kafka`.
    """

    def __init__(self, folder: Path, jars: Path) -> None:
        self.port, self._controller_port = free_port(), free_port()
        self._classpath = f"{jars}/lib/*"
        self._properties = folder / "server.properties"
        self._data = folder / "kafka-data"
        command = ["java", "-Xmx512m", "-cp", self._classpath, "kafka.Kafka", str(self._properties)]
        super().__init__("kafka", command, folder / "kafka.log")

    @property
    def bootstrap_servers(self) -> str:
        """What clients connect to."""
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it, and wait until it answers; the first time its data folder is made."""
        if self.is_alive():
            return
        if not self._properties.exists():
            self._format()
        super().start()
        self.wait_ready(self._answers, seconds=60)

    def create_topic(self, name: str, partitions: int, config: dict[str, str] | None = None) -> None:
        """Make a topic and wait until clients see it."""
        admin = AdminClient({"bootstrap.servers": self.bootstrap_servers})
        admin.create_topics([NewTopic(name, partitions, 1, config=config or {})])[name].result(timeout=30)
        wait_until(lambda: len(_partitions(admin, name)) == partitions, f"topic {name} is there", seconds=30)

    def delete_topic(self, name: str) -> None:
        """Delete a topic and wait until it is gone."""
        admin = AdminClient({"bootstrap.servers": self.bootstrap_servers})
        admin.delete_topics([name])[name].result(timeout=30)
        wait_until(lambda: name not in admin.list_topics(timeout=10).topics, f"topic {name} is gone", seconds=30)

    def _format(self) -> None:
        self._properties.parent.mkdir(parents=True, exist_ok=True)
        self._properties.write_text(
            "\n".join(
                [
                    "process.roles=broker,controller",
                    "node.id=1",
                    f"controller.quorum.voters=1@127.0.0.1:{self._controller_port}",
                    f"listeners=PLAINTEXT://127.0.0.1:{self.port},CONTROLLER://127.0.0.1:{self._controller_port}",
                    f"advertised.listeners=PLAINTEXT://127.0.0.1:{self.port}",
                    "controller.listener.names=CONTROLLER",
                    "listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
                    f"log.dirs={self._data}",
                    "offsets.topic.replication.factor=1",
                    "offsets.topic.num.partitions=4",
                    "transaction.state.log.replication.factor=1",
                    "transaction.state.log.min.isr=1",
                    "group.initial.rebalance.delay.ms=0",
                    "auto.create.topics.enable=false",
                    "message.max.bytes=20000000",
                    "",
                ]
            )
        )
        cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        command = ["java", "-cp", self._classpath, "kafka.tools.StorageTool", "format"]
        command += ["-t", cluster, "-c", str(self._properties)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        if done.returncode != 0:
            self._properties.unlink()
            msg = f"Kafka's data folder could not be made:\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
            raise DidNotStart(msg)

    def _answers(self) -> bool:
        try:
            admin = AdminClient({"bootstrap.servers": self.bootstrap_servers, "log_level": 0})
            return bool(admin.list_topics(timeout=2).brokers)
        except KafkaException:
            return False


def _partitions(admin: AdminClient, name: str) -> list[int]:
    topic = admin.list_topics(timeout=10).topics.get(name)
    return list(topic.partitions) if topic is not None and topic.error is None else []


class MockKafka:
    """librdkafka's mock cluster: lives as long as this object. Topics appear on first use, with four partitions."""

    def __init__(self) -> None:
        self._host = Producer({"bootstrap.servers": "mock", "test.mock.num.brokers": 1, "log_level": 2})

    @property
    def bootstrap_servers(self) -> str:
        """What clients connect to."""
        brokers = self._host.list_topics(timeout=10).brokers.values()
        return ",".join(f"{broker.host}:{broker.port}" for broker in brokers)

    def create_topic(self, name: str) -> None:
        """Make a topic by asking for it."""
        self._host.list_topics(name, timeout=10)
