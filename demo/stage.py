"""Everything that runs during the demo, started in one go and ended in reverse order."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from demo.servers.kafka import MockKafka, choose_kafka
from demo.servers.process import DidNotStart
from demo.servers.product import BridgeProcess, WorkerProcess
from demo.servers.redis import RedisServer
from demo.servers.s3 import MotoServer
from demo.terminal import say

if TYPE_CHECKING:
    from contextlib import ExitStack
    from pathlib import Path

    from demo.servers.kafka import Kafka
    from demo.servers.process import Process

TOPIC: Final = "data-ingestion"
GROUP: Final = "ingestion-workers"
CONTROL_TOPIC: Final = "control-events"
PARTITIONS: Final = 6
CONTROL_PARTITIONS: Final = 1


class Stage:
    """Servers and our programs, running.

    Args:
        folder: for logs, the store and Kafka's data.
        stack: ends what was started when it is closed.

    Attributes:
        store: the store's file.
        settings: what our programs are configured with, by names in the environment.
        workers: the Celery workers; the first one is the victim.
        programs: all processes that should be running.
    """

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self._folder = folder
        self._stack = stack
        self.store = folder / "store.db"
        self.programs: list[Process] = []
        say("starting Redis and an S3, embedded servers")
        redis, self.s3 = RedisServer(folder / "redis"), MotoServer(folder / "s3")
        self.start(redis, self.s3)
        self.s3.make_bucket()
        self.kafka = self._start_kafka()
        self.settings = {
            "STORAGE_URL": f"sqlite:///{self.store}",
            "REDIS_URL": redis.url,
            "KAFKA_BOOTSTRAP_SERVERS": self.kafka.bootstrap_servers,
            "STALL_SECONDS": "2",
            **self.s3.settings(),
        }
        say("starting the bridge and two Celery workers on a SQLite store")
        self.bridge = BridgeProcess(folder, self.settings)
        self.workers = [WorkerProcess(folder, self.settings, name=f"worker-{name}") for name in "ab"]
        self.start(self.bridge, *self.workers)

    def start(self, *programs: Process) -> None:
        """Start programs beside each other, and wait until all are ready.

        Raises:
            DidNotStart: one is not; those that are will be ended with the stack.
        """
        for program in programs:
            self._stack.callback(program.stop)
            program.launch()
        for program in programs:
            program.start()
        self.programs += programs

    def _start_kafka(self) -> Kafka:
        """A real broker, or where that does not come up (Java is too old, for example), the mock cluster."""
        kafka, words = choose_kafka(self._folder / "kafka")
        say(f"starting Kafka: {words}")
        try:
            kafka.start()
        except DidNotStart as error:
            say(f"it did not start ({str(error).splitlines()[0]}); librdkafka's mock cluster in its place")
            kafka = MockKafka()
        self._stack.callback(kafka.stop)
        kafka.create_topic(TOPIC, kafka.fixed_partitions or PARTITIONS)
        kafka.create_topic(CONTROL_TOPIC, kafka.fixed_partitions or CONTROL_PARTITIONS)
        return kafka
