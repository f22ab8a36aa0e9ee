"""Everything that runs during the demo, started in one go and ended in two: first our programs, then the servers."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from demo.servers.ending import end_all
from demo.servers.fault_proxy import FaultProxy
from demo.servers.foundationdb import FoundationCluster
from demo.servers.kafka import KafkaServer, MockKafka, choose_kafka
from demo.servers.process import DidNotStart
from demo.servers.product import BeatProcess, BridgeProcess, FlowerProcess, WorkerProcess, clear_settings
from demo.servers.redis import RedisServer
from demo.servers.s3 import MotoServer
from demo.terminal import say
from tasks.celeryconfig import find_queues
from tasks.queues import CLEANUP_QUEUE
from tasks.settings import Settings

if TYPE_CHECKING:
    from contextlib import ExitStack
    from pathlib import Path

    from demo.servers.kafka import Kafka
    from demo.servers.process import Process

SQLITE: Final = "sqlite"
FDB: Final = "fdb"
STORES: Final = {SQLITE: "a SQLite store", FDB: "FoundationDB"}
TOPIC: Final = "data-ingestion"
GROUP: Final = "ingestion-workers"
CONTROL_TOPIC: Final = "control-events"
PARTITIONS: Final = 6
CONTROL_PARTITIONS: Final = 1
_CLIENT_SECONDS: Final = 9.0  # to drain, commit and leave, all together
_SERVER_SECONDS: Final = 5.0
_BUT_CLEANUP: Final = [queue for queue in find_queues(Settings.model_construct()) if queue != CLEANUP_QUEUE]


class Stage:
    """Servers and our programs, running.

    Args:
        folder: for logs, the store and Kafka's data.
        stack: ends what was started when it is closed.
        flower: start Flower too.
        store: the kind of store, one of `STORES`.

    Attributes:
        folder: for logs, the store and Kafka's data.
        store_url: of the store.
        cluster: the store's, where it has one.
        fault_proxy: through which our programs reach S3.
        settings: what our programs are configured with, by names in the environment.
        workers: the Celery workers; the first one is the victim.
        flower: with the recovery page; None if it was not asked for.
        programs: all processes that should be running.
    """

    def __init__(self, folder: Path, stack: ExitStack, *, flower: bool = False, store: str = SQLITE) -> None:
        self.folder = folder
        self.programs: list[Process] = []
        self._clients: list[Process] = []  # whatever was begun, ready or not
        self._servers: list[Process] = []
        self._mock: MockKafka | None = None
        stack.callback(self.stop)
        say("starting Redis and S3, embedded servers")
        redis, self.s3 = RedisServer(folder / "redis"), MotoServer(folder / "s3")
        self._start(self._servers, redis, self.s3)
        self.s3.make_bucket()
        self.fault_proxy = FaultProxy(folder / "s3", self.s3.endpoint)
        self._start(self._servers, self.fault_proxy)
        self.cluster = self._start_foundationdb() if store == FDB else None
        self.store_url = f"sqlite:///{folder / 'store.db'}" if self.cluster is None else self.cluster.url
        self.kafka = self._start_kafka()
        self.settings = {
            "STORAGE_URL": self.store_url,
            "REDIS_URL": redis.url,
            "KAFKA_BOOTSTRAP_SERVERS": self.kafka.bootstrap_servers,
            "STALL_SECONDS": "2",
            **self.s3.settings(),
            "S3_ENDPOINT": self.fault_proxy.endpoint,
            "CLEANUP_TRIES": "3",  # so that giving up takes seconds, and not ten minutes
            "CLEANUP_BACKOFF_SECONDS": "0.2",
        }
        (folder / ".env").write_text("".join(f"{name}={value}\n" for name, value in self.settings.items()))
        say(f"starting the bridge, two Celery workers, one for cleanups, and beat, on {STORES[store]}")
        self.bridge = BridgeProcess(folder, self.settings)
        self.workers = [
            WorkerProcess(folder, self.settings, name=f"worker-{name}", queues=_BUT_CLEANUP) for name in "ab"
        ]
        cleaner = WorkerProcess(folder, self.settings, name="cleaner", queues=[CLEANUP_QUEUE])
        beat = BeatProcess(folder, self.settings)
        self.flower = FlowerProcess(folder, self.settings) if flower else None
        self.start(self.bridge, *self.workers, cleaner, beat, *([self.flower] if self.flower else []))

    def environment(self) -> dict[str, str]:
        """The environment of a command of ours that is to be configured by the folder's ``.env`` alone."""
        merged = {**os.environ, **clear_settings({})}
        return {name: value for name, value in merged.items() if value is not None}

    def start(self, *programs: Process) -> None:
        """Start programs beside each other, and wait until all are ready.

        Raises:
            DidNotStart: one is not; those that are will be ended with the stack.
        """
        self._start(self._clients, *programs)

    def stop(self) -> None:
        """End all that runs: our programs side by side, which need the servers for that, and then these.

        At Ctrl-C all is killed. Stopping twice is fine.
        """
        calm = end_all(self._clients, seconds=_CLIENT_SECONDS, tell=say)
        end_all(self._servers, seconds=_SERVER_SECONDS if calm else 0.0, tell=say)
        if self._mock is not None:
            self._mock.stop()

    def _start(self, kind: list[Process], *programs: Process) -> None:
        for program in programs:
            kind.append(program)
            program.launch()
        for program in programs:
            program.start()
        self.programs += programs

    def _start_foundationdb(self) -> FoundationCluster:
        """A FoundationDB, whose client our programs and this one load.

        Raises:
            DidNotStart: there is none on this machine, or it does not come up.
        """
        cluster = FoundationCluster(self.folder / "foundationdb")
        say("starting FoundationDB, one process")
        cluster.programs.load()
        self._servers += cluster.processes
        cluster.start()
        self.programs += cluster.processes
        return cluster

    def _start_kafka(self) -> Kafka:
        """A real broker, or where that does not come up (Java is too old, for example), the mock cluster."""
        kafka, words = choose_kafka(self.folder / "kafka")
        say(f"starting Kafka: {words}")
        try:
            if isinstance(kafka, KafkaServer):
                self._servers.append(kafka)
            kafka.start()
        except DidNotStart as error:
            say(f"it did not start ({str(error).splitlines()[0]}); librdkafka's mock cluster in its place")
            kafka = MockKafka()
        if isinstance(kafka, MockKafka):
            self._mock = kafka
        kafka.create_topic(TOPIC, kafka.fixed_partitions or PARTITIONS)
        kafka.create_topic(CONTROL_TOPIC, kafka.fixed_partitions or CONTROL_PARTITIONS)
        return kafka
