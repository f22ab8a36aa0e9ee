"""Seconds without progress when a bridge joins, leaves or is killed: ``python -m benchmarks.rebalance``.

24 partitions, four bridges, a record a partition every 50 ms; both of Kafka's group protocols, each with our defaults
and the broker's. What counts is the cursor in the store: how long each partition's stood still in the time after the
event. The worst partition, the mean of all, and how long all of them stood still at once.
"""

from __future__ import annotations

import json
import tempfile
import threading
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from confluent_kafka import Producer

from demo.servers.kafka import KafkaServer
from demo.servers.process import wait_until
from demo.servers.product import BridgeProcess, WorkerProcess
from demo.servers.redis import RedisServer
from storage.store import open_store

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self

    from storage.engine import Transaction
    from storage.store import Store

PARTITIONS, BRIDGES = 24, 4
EVERY = 0.05  # seconds between two records of a partition
LOOK = 0.1  # seconds between two looks at the cursors
CALM = 12.0  # seconds of progress after which an event is over; longer than it takes a bridge to be given its share
LATEST = 300.0  # seconds
PROTOCOLS = {"classic": "{}", "consumer": '{"group.protocol": "consumer"}'}


class Load:
    """A record a partition, again and again, in a thread of its own."""

    def __init__(self, servers: str, topic: str) -> None:
        self._producer = Producer({"bootstrap.servers": servers, "linger.ms": 5})
        self._topic = topic
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        self._producer.flush(30)

    def _run(self) -> None:
        number = 0
        while not self._ended.wait(EVERY):
            number += 1
            for partition in range(PARTITIONS):
                run = f"{partition:032x}"
                payload = {"message": str(number), "level": 20, "timestamp": 1.0}
                record = {"type": "log_record", "run_id": run, "timestamp": "2026-01-01T00:00:00Z", "payload": payload}
                self._producer.produce(self._topic, json.dumps(record).encode(), run.encode(), partition=partition)
            self._producer.poll(0)


@dataclass
class Gaps:
    """How long each partition, and all of them together, stood still since the last event."""

    began: float = field(default_factory=time.monotonic)
    moved: dict[int, float] = field(default_factory=dict)
    longest: dict[int, float] = field(default_factory=dict)
    longest_of_all: float = 0.0

    def note(self, advanced: set[int], now: float) -> None:
        """These partitions' cursors have moved since the last look."""
        last = max(self.moved.values(), default=self.began)
        if advanced:
            self.longest_of_all = max(self.longest_of_all, now - last)
        for partition in advanced:
            gap = now - self.moved.get(partition, self.began)
            self.longest[partition] = max(self.longest.get(partition, 0.0), gap)
            self.moved[partition] = now

    def is_calm(self, now: float) -> bool:
        """Whether every partition has moved, and none has stood still for long, for a while."""
        late = [now - self.moved.get(partition, self.began) for partition in range(PARTITIONS)]
        return now - self.began > CALM and max(late) < 3.0


class Watcher:
    """Looks at the cursors."""

    def __init__(self, store: Store, topic: str) -> None:
        self._store = store
        self._topic = topic
        self._seen: dict[int, int] = {}

    def watch(self, over: Callable[[Gaps], bool]) -> Gaps:
        """The gaps from now on until it is over."""
        gaps = Gaps()
        while not over(gaps):
            time.sleep(LOOK)
            cursors = self._read()
            advanced = {partition for partition, cursor in cursors.items() if cursor > self._seen.get(partition, -1)}
            self._seen.update(cursors)
            now = time.monotonic()
            gaps.note(advanced, now)
            if now - gaps.began > LATEST:
                late = sorted(set(range(PARTITIONS)) - gaps.moved.keys())
                raise TimeoutError(f"not calm after {LATEST:g} s; never moved: {late}")
        return gaps

    def _read(self) -> dict[int, int]:
        ledger = self._store.ledger

        def work(transaction: Transaction) -> dict[int, int]:
            sources = [source for source in ledger.sources(transaction) if source.topic == self._topic]
            standings = ledger.standings(transaction, sources)
            return {
                source.partition: max(standing.cursors.values(), default=-1) for source, standing in standings.items()
            }

        return self._store.engine.read(work)


def measure(protocol: str, folder: Path, kafka: KafkaServer, redis: RedisServer) -> dict[str, Gaps]:
    """The gaps after each event, with one protocol."""
    topic = f"data-{protocol}"
    kafka.create_topic(topic, PARTITIONS)
    control = f"control-{protocol}"
    kafka.create_topic(control, 1)
    redis.flush()
    settings = {
        "STORAGE_URL": f"sqlite:///{folder / protocol}.db",
        "REDIS_URL": redis.url,
        "KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
        "KAFKA_DATA_INGESTION_TOPIC": topic,
        "KAFKA_CONTROL_EVENTS_TOPIC": control,
        "INGEST_GROUP": f"group-{protocol}",
        "CONTROL_GROUP": f"control-{protocol}",
        "KAFKA_CONFIG": PROTOCOLS[protocol],
    }
    found = {}
    with ExitStack() as stack:
        stack.enter_context(WorkerProcess(folder, settings, name=f"worker-{protocol}", concurrency=2))
        bridges = []
        for number in range(BRIDGES):
            bridge = BridgeProcess(folder, settings, name=f"{protocol}-{number}")
            stack.callback(bridge.kill)
            bridges.append(bridge)
        for bridge in bridges[:-1]:
            bridge.start()
        last = bridges[-1]
        stack.enter_context(Load(kafka.bootstrap_servers, topic))
        store = stack.enter_context(open_store(settings["STORAGE_URL"]))
        watcher = Watcher(store, topic)
        watcher.watch(lambda gaps: gaps.is_calm(time.monotonic()))
        last.start()
        found["joins"] = watcher.watch(lambda gaps: "taken over" in last.output() and gaps.is_calm(time.monotonic()))
        last.signal(15)
        found["leaves"] = watcher.watch(lambda gaps: not last.is_alive() and gaps.is_calm(time.monotonic()))
        last.start()
        watcher.watch(lambda gaps: "taken over" in last.output() and gaps.is_calm(time.monotonic()))
        last.kill()
        found["is killed"] = watcher.watch(lambda gaps: gaps.is_calm(time.monotonic()))
        for bridge in bridges[:-1]:
            bridge.stop()
        wait_until(lambda: not any(bridge.is_alive() for bridge in bridges), "all bridges have ended", seconds=60)
    return found


def main() -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        redis = stack.enter_context(RedisServer(folder / "redis"))
        kafka = stack.enter_context(KafkaServer(folder / "kafka"))
        found = {protocol: measure(protocol, folder, kafka, redis) for protocol in PROTOCOLS}
    print(f"seconds without progress, {PARTITIONS} partitions, {BRIDGES} bridges, SQLite store")
    print(f"  {'a bridge ...':<14}{'protocol':<12}{'worst partition':>16}{'mean':>8}{'all at once':>13}")
    for event in found["classic"]:
        for protocol, events in found.items():
            gaps = events[event]
            mean = sum(gaps.longest.values()) / len(gaps.longest)
            worst = max(gaps.longest.values())
            print(f"  {event:<14}{protocol:<12}{worst:>16.1f}{mean:>8.1f}{gaps.longest_of_all:>13.1f}")
        old, new = (max(found[protocol][event].longest.values()) for protocol in PROTOCOLS)
        print(f"  {'':<14}ratio of the worst, consumer to classic: {new / old:.1f}")


if __name__ == "__main__":
    main()
