"""Real servers for tests that start programs: one Kafka, Redis and FoundationDB a session; topics, programs a test."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol, TypeVar
from uuid import uuid4

import pytest

from demo.servers.foundationdb import FoundationCluster
from demo.servers.foundationdb_programs import missing_for_foundationdb
from demo.servers.go_programs import missing_for_go
from demo.servers.kafka import KafkaServer
from demo.servers.kafka_jars import missing_for_kafka
from demo.servers.process import Process, wait_until
from demo.servers.product import BeatProcess, BridgeProcess, CommandProcess, FlowerProcess, WorkerProcess
from demo.servers.redis import RedisServer
from demo.servers.s3 import VersityServer
from tests.engines import CLUSTER_VARIABLE
from tests.integration.browser import Browser, missing_for_browser, open_browser
from tests.integration.leaks import our_processes, our_threads

P = TypeVar("P", bound=Process)

PICTURES_VARIABLE = "MATYAN_TEST_PICTURES"
_LOG_LINES = 40
_programs = pytest.StashKey[list[Process]]()


@pytest.fixture(scope="session", autouse=True)
def _no_leaks() -> Iterator[None]:
    """Fails the session where a process or thread is left behind. Autouse: set up first, so looked at last."""
    processes, threads = our_processes(), our_threads()

    def left() -> list[str]:
        return [str(leak) for leak in our_processes() - processes] + [str(leak) for leak in our_threads() - threads]

    yield
    try:
        wait_until(lambda: not left(), "all that the tests started has ended", seconds=10)
    except TimeoutError:
        pytest.fail("left running: " + "; ".join(left()))


@pytest.fixture(scope="session")
def kafka_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaServer]:
    missing = missing_for_kafka()
    if missing is not None:
        pytest.skip(f"no real Kafka: {missing}")
    with KafkaServer(tmp_path_factory.mktemp("kafka")) as server:
        yield server


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VersityServer]:
    missing = missing_for_go()
    if missing is not None:
        pytest.skip(f"no versitygw: {missing}")
    with VersityServer(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture(scope="session")
def foundationdb_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FoundationCluster]:
    """A FoundationDB of one process, which the engines of the kind ``cluster`` use too, and the client library."""
    missing = missing_for_foundationdb()
    if missing is not None:
        pytest.skip(f"no FoundationDB: {missing}")
    with FoundationCluster(tmp_path_factory.mktemp("foundationdb")) as cluster, pytest.MonkeyPatch.context() as patch:
        for name, value in cluster.programs.environment().items():
            patch.setenv(name, value)
        cluster.programs.load()
        if not os.environ.get(CLUSTER_VARIABLE):
            patch.setenv(CLUSTER_VARIABLE, str(cluster.cluster_file))
        yield cluster


@pytest.fixture(autouse=True)
def _cluster_of_a_kind(request: pytest.FixtureRequest) -> None:
    """Starts the session's FoundationDB for tests of the kind ``cluster``, unless a cluster is named for them."""
    asked = request.node.callspec.params.values() if hasattr(request.node, "callspec") else ()
    if "cluster" in asked and not os.environ.get(CLUSTER_VARIABLE):
        request.getfixturevalue("foundationdb_server")


@pytest.fixture
def foundationdb(foundationdb_server: FoundationCluster, request: pytest.FixtureRequest) -> Iterator[FoundationCluster]:
    """The session's FoundationDB, empty. However the test leaves it, it runs again and is unlocked afterwards."""
    _show_log(request, *foundationdb_server.processes)
    foundationdb_server.clear()
    yield foundationdb_server
    foundationdb_server.start()
    foundationdb_server.unlock()


@pytest.fixture
def s3(s3_server: VersityServer, request: pytest.FixtureRequest) -> VersityServer:
    """The session's S3, running, whatever the test before did to it."""
    _show_log(request, s3_server)
    s3_server.start()
    return s3_server


@pytest.fixture
def kafka(kafka_server: KafkaServer, request: pytest.FixtureRequest) -> KafkaServer:
    """The session's broker, running, whatever the test before did to it."""
    _show_log(request, kafka_server)
    kafka_server.start()
    return kafka_server


@pytest.fixture
def redis(redis_server: RedisServer, request: pytest.FixtureRequest) -> RedisServer:
    """The session's Redis, running and empty, whatever the test before did to it."""
    _show_log(request, redis_server)
    redis_server.start()
    redis_server.flush()
    return redis_server


class MakeTopic(Protocol):
    def __call__(self, partitions: int = 4, config: dict[str, str] | None = None) -> str: ...


@pytest.fixture
def make_topic(kafka: KafkaServer) -> Iterator[MakeTopic]:
    """Makes topics of the test's own, which go with it."""
    made = []

    def make(partitions: int = 4, config: dict[str, str] | None = None) -> str:
        name = f"test-{uuid4().hex[:12]}"
        # Recorded and made-up records have old times, by which Kafka would delete them after half a minute.
        kafka.create_topic(name, partitions, {"retention.ms": "-1", **(config or {})})
        made.append(name)
        return name

    yield make
    kafka.start()
    for name in made:
        if kafka.has_topic(name):
            kafka.delete_topic(name)


@pytest.fixture
def topic(make_topic: MakeTopic) -> str:
    """A topic of four partitions."""
    return make_topic()


@pytest.fixture
def group() -> str:
    """The name of a consumer group that nobody else uses."""
    return f"group-{uuid4().hex[:12]}"


@pytest.fixture
def control_topic(make_topic: MakeTopic) -> str:
    """A control topic of one partition, as in all stock deployments."""
    return make_topic(1)


@pytest.fixture
def settings(
    kafka: KafkaServer, redis: RedisServer, topic: str, control_topic: str, group: str, tmp_path: Path
) -> dict[str, str]:
    """Settings, by their names in the environment, that connect the product's programs with each other."""
    return {
        "STORAGE_URL": f"sqlite:///{tmp_path / 'store.db'}",
        "REDIS_URL": redis.url,
        "KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
        "KAFKA_DATA_INGESTION_TOPIC": topic,
        "INGEST_GROUP": group,
        "KAFKA_CONTROL_EVENTS_TOPIC": control_topic,
        "CONTROL_GROUP": f"{group}-control",
        "LOG_LEVEL": "INFO",
    }


class Programs:
    """Starts programs of a test; all are killed when it ends, and if it failed, the ends of their logs are shown."""

    def __init__(self, folder: Path, settings: dict[str, str], shown: list[Process], stack: ExitStack) -> None:
        self._folder = folder
        self._settings = settings
        self._shown = shown
        self._stack = stack

    def bridge(self, name: str = "bridge", **settings: str) -> BridgeProcess:
        """A bridge, not started. ``settings`` win over the fixture's."""
        return self.add(BridgeProcess(self._folder, {**self._settings, **settings}, name=name))

    def worker(
        self, name: str = "worker", *, concurrency: int = 1, queues: Sequence[str] | None = None, **settings: str
    ) -> WorkerProcess:
        """A Celery worker, not started; of all queues, if none are given. ``settings`` win over the fixture's."""
        merged = {**self._settings, **settings}
        return self.add(WorkerProcess(self._folder, merged, name=name, concurrency=concurrency, queues=queues))

    def beat(self, name: str = "beat", **settings: str) -> BeatProcess:
        """Celery's beat, not started. ``settings`` win over the fixture's."""
        return self.add(BeatProcess(self._folder, {**self._settings, **settings}, name=name))

    def command(self, *arguments: str, **settings: str) -> CommandProcess:
        """A command of ours, not started. ``settings`` win over the fixture's."""
        return self.add(CommandProcess(self._folder, {**self._settings, **settings}, *arguments))

    def run(self, *arguments: str, **settings: str) -> tuple[int, str]:
        """Run a command of ours; its exit code and what it said."""
        process = self.command(*arguments, **settings)
        process.launch()
        return process.wait(120), process.output()

    def flower(
        self, *, login: str = "demo:demo", prefix: str = "", config: Path | None = None, **settings: str
    ) -> FlowerProcess:
        """A Flower, not started. ``settings`` win over the fixture's."""
        return self.add(
            FlowerProcess(self._folder, {**self._settings, **settings}, login=login, prefix=prefix, config=config)
        )

    def add(self, process: P) -> P:
        """Another program of the test's, not started, to be killed with the rest and its log shown."""
        self._shown.append(process)
        self._stack.callback(process.kill)
        return process


@pytest.fixture
def programs(settings: dict[str, str], tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Programs]:
    with ExitStack() as stack:
        yield Programs(tmp_path, settings, request.node.stash.setdefault(_programs, []), stack)


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    """Chromium without a screen and with a fresh profile; skips where there is none."""
    missing = missing_for_browser()
    if missing is not None:
        pytest.skip(f"no browser: {missing}")
    with open_browser(tmp_path / "browser") as opened:
        yield opened


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Where a test puts pictures of pages: the folder that the variable names (docs/images), else one that goes."""
    return Path(os.environ.get(PICTURES_VARIABLE) or tmp_path / "pictures")


def _show_log(request: pytest.FixtureRequest, *processes: Process) -> None:
    request.node.stash.setdefault(_programs, []).extend(processes)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed:
        for process in item.stash.get(_programs, []):
            report.sections.append((f"log of {process.name}", process.tail(_LOG_LINES)))
    return report
