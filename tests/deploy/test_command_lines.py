"""The command lines of compose.yaml, run as containers would run them, on real Kafka, Redis and S3.

FoundationDB cannot be had here: the embedded store stands in for it. All else of a service is as the file says.
"""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import redis
from confluent_kafka import Producer

from demo.servers.kafka import KafkaServer
from demo.servers.process import free_port, wait_until
from demo.servers.redis import RedisServer
from demo.servers.s3 import VersityServer
from storage.cleanup import CleanupState
from storage.store import open_store
from tasks.kafka_clients import PARTITIONER
from tests.deploy.container import DATA, Container, find_obstacle
from tests.deploy.dockerfile import read_stages
from tests.deploy.test_compose import read_compose
from tests.deploy.tools import ROOT
from tests.integration.traffic import wait_applied

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]

# What a service's environment names and these tests replace: servers, and where the store is.
REPLACED = {"STORAGE_URL", "REDIS_URL", "KAFKA_BOOTSTRAP_SERVERS", "S3_ENDPOINT", "S3_ACCESS_KEY", "S3_SECRET_KEY"}
KEPT = {"S3_BUCKET": "matyan-artifacts", "LOG_LEVEL": "INFO"}
LONG = ("bridge", "worker", "cleaner", "jobs", "beat")


@pytest.fixture(scope="module")
def services() -> dict[str, dict[str, Any]]:
    return dict(read_compose(ROOT / "compose.yaml")["services"])


class Stack:
    """The services of ours as containers, which share one folder in the place of the cluster file's volume."""

    def __init__(self, services: dict[str, dict[str, Any]], given: dict[str, str], folder: Path) -> None:
        self._services = services
        self._given = given
        self.folder = folder
        self.ports: dict[str, int] = {}
        self.containers: dict[str, Container] = {}

    @property
    def store(self) -> Path:
        return self.folder / "store.db"

    def environment(self, name: str) -> dict[str, str]:
        """What the service's program gets."""
        written: dict[str, str] = self._services[name]["environment"]
        kept = {key: value for key, value in written.items() if key not in REPLACED}
        assert kept.items() >= KEPT.items()
        assert set(written) >= REPLACED
        self.ports.setdefault(name, free_port())
        return {**kept, **self._given, "METRICS_PORT": str(self.ports[name])}

    def start(self, name: str, *more: str) -> Container:
        """The service's container, started, with further arguments."""
        command = [*self._services[name]["command"], *more]
        made = Container(name, command, self.environment(name), self.folder)
        self.containers[name] = made
        made.launch()
        return made

    def probe(self, name: str, path: str) -> int:
        """The status of a probe; 0 if nobody answers."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.ports[name]}{path}", timeout=5) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code
        except OSError:
            return 0

    def asks_itself(self, name: str, probe: str) -> bool:
        """Whether the exec probe of a container finds nothing."""
        command = ["matyan-celery", "health", name, "--probe", probe]
        return self.containers[name].run_inside(command, self.environment(name)) == 0

    def wait_ready(self, *names: str) -> None:
        for name in names:
            wait_until(lambda name=name: self.probe(name, "/readyz") == 200, f"{name} is ready", seconds=120)  # type: ignore[misc]


@pytest.fixture
def stack(
    services: dict[str, dict[str, Any]],
    kafka_server: KafkaServer,
    redis_server: RedisServer,
    s3_server: VersityServer,
    tmp_path: Path,
) -> Iterator[Stack]:
    obstacle = find_obstacle()
    if obstacle is not None:
        pytest.skip(f"no namespaces here: {obstacle}")
    redis_server.flush()
    for topic, partitions in (("data-ingestion", 6), ("control-events", 1)):
        if not kafka_server.has_topic(topic):
            kafka_server.create_topic(topic, partitions)
    given = {
        **{key: value for key, value in s3_server.settings().items() if key in REPLACED},
        "STORAGE_URL": f"sqlite:///{DATA / 'store.db'}",
        "REDIS_URL": redis_server.url,
        "KAFKA_BOOTSTRAP_SERVERS": kafka_server.bootstrap_servers,
    }
    assert set(given) == REPLACED
    made = Stack(services, given, tmp_path)
    yield made
    for container in made.containers.values():
        container.kill()
        print(f"-- end of the log of {container.name}:\n{container.tail()}")  # shown where the test fails
    for topic in ("data-ingestion", "control-events"):  # the next test's store knows nothing of these
        kafka_server.delete_topic(topic)


def send(kafka: KafkaServer, kind: str, run: str, **payload: Any) -> None:
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers, "partitioner": PARTITIONER})
    envelope = {"type": kind, "run_id": run, "timestamp": "2026-11-23T06:39:48.287461Z", "payload": payload}
    producer.produce("data-ingestion", json.dumps(envelope).encode(), run.encode())
    assert producer.flush(60) == 0


def test_all_of_them_carry_records_and_delete_blobs_and_end_when_asked(
    stack: Stack, kafka_server: KafkaServer, s3_server: VersityServer
) -> None:
    assert stack.start("s3-init").wait(60) == 0
    assert s3_server.client.head_bucket(Bucket="matyan-artifacts")
    assert stack.start("s3-init").wait(60) == 0, "twice is fine"
    assert stack.start("wait").wait(150) == 0, stack.containers["wait"].output()
    for name in LONG:
        stack.start(name)
    stack.wait_ready(*LONG)

    check = read_stages(ROOT / "Dockerfile")[1][-1].last("HEALTHCHECK").words
    healthy = subprocess.run(
        [sys.executable, *check[1:]], env={"METRICS_PORT": str(stack.ports["bridge"])}, check=False
    )
    assert healthy.returncode == 0
    for name in LONG:
        for probe in ("started", "live", "ready"):
            wait_until(  # the file that is read is written some seconds later than HTTP answers
                lambda name=name, probe=probe: stack.asks_itself(name, probe),  # type: ignore[misc]
                f"{name} is {probe}",
                seconds=60,
            )

    run = uuid4().hex
    s3_server.fill([f"{run}/a.png", f"{run}/b.png"], bucket="matyan-artifacts")
    send(kafka_server, "create_run", run, client_datetime="2026-11-23T06:39:48Z", force_resume=False)
    send(kafka_server, "log_record", run, message="hello", level=20, timestamp=1.0)
    send(kafka_server, "delete_run", run)
    wait_applied(kafka_server.bootstrap_servers, "ingestion-workers", "data-ingestion", seconds=60)

    def is_cleaned() -> bool:
        with open_store(f"sqlite:///{stack.store}") as store:
            entry = store.engine.read(lambda transaction: store.cleanups.get(transaction, run))
        return entry is not None and entry.state is CleanupState.DONE

    wait_until(is_cleaned, "the deleted run's blobs are gone", seconds=120)
    assert s3_server.keys(f"{run}/", "matyan-artifacts") == []
    cleaned = '"logger": "tasks.cleanup"'
    assert cleaned in stack.containers["cleaner"].output()
    assert cleaned not in stack.containers["worker"].output()

    for name in LONG:  # nothing to do: each ends long before its time is over
        began = time.monotonic()
        assert stack.containers[name].terminate(60) == 0, f"{name}:\n{stack.containers[name].tail()}"
        assert time.monotonic() - began < 20, f"{name} waits although it is idle"
    failing = subprocess.run(
        [sys.executable, *check[1:]], env={"METRICS_PORT": str(stack.ports["bridge"])}, check=False
    )
    assert failing.returncode != 0


def test_a_busy_worker_ends_its_task_first(stack: Stack, kafka_server: KafkaServer, redis_server: RedisServer) -> None:
    bridge = stack.start("bridge")
    worker = stack.start("worker")
    stack.wait_ready("bridge", "worker")
    # A bridge that stands by is ready too: this one must have its six partitions and one, which it writes to the store.
    wait_until(lambda: bridge.output().count("partition taken over") == 7, "all partitions are taken over", seconds=60)
    with closing(sqlite3.connect(stack.store)) as other, redis.Redis(port=redis_server.port) as queues:
        other.execute("BEGIN IMMEDIATE")  # the worker's transaction waits for this one
        send(kafka_server, "create_run", uuid4().hex, client_datetime="2026-11-23T06:39:48Z", force_resume=False)
        wait_until(lambda: queues.hlen("unacked") > 0, "a task runs", seconds=60)
        first = worker.find_first()
        assert first is not None
        first.terminate()
        worker.wait_output("Warm shutdown", 30)
        assert worker.is_alive()
        other.rollback()
    assert worker.wait(60) == 0
    wait_applied(kafka_server.bootstrap_servers, "ingestion-workers", "data-ingestion", seconds=60)


def test_flower_asks_who_one_is(stack: Stack) -> None:
    """On a port of the test's own; an argument given twice counts as given last."""
    port = free_port()
    with open_store(f"sqlite:///{stack.store}"):  # else the page says that there is none
        flower = stack.start("flower", f"--port={port}")

    def status(path: str, login: str | None = None) -> int:
        request = urllib.request.Request(f"http://127.0.0.1:{port}{path}")
        if login is not None:
            request.add_header("Authorization", f"Basic {login}")
        try:
            with urllib.request.urlopen(request, timeout=5) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code
        except OSError:
            return 0

    wait_until(lambda: status("/healthcheck") == 200 or not flower.is_alive(), "Flower answers", seconds=90)
    assert status("/") == 401
    assert status("/", "bWF0eWFuOm1hdHlhbg==") == 200  # matyan:matyan, compose.yaml's default
    assert status("/recovery", "bWF0eWFuOm1hdHlhbg==") == 200
    assert flower.terminate(30) == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="the tests' containers need root")
def test_the_containers_are_what_they_say() -> None:
    assert find_obstacle() is None
