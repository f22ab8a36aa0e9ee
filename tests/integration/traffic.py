"""Traffic for the integration tests: records in, and what must have come of them."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from time import monotonic
from typing import Final

import fdb.tuple
import msgpack
from confluent_kafka import Consumer, Producer, TopicPartition

from demo.servers.process import wait_until
from storage.batch import Record
from storage.recorded import Recorded, read_recorded
from storage.scan import scan
from storage.store import open_store
from tests.conformance.vectors import State, dump, name_uuids

_CLOCKED: Final = b""  # stands for a value that no record holds


def load_streams(path: Path) -> list[Recorded]:
    """The ingestion records of a recorded stream, in its order."""
    return [item for item in read_recorded(path) if item.record.key is not None]


def produce(bootstrap_servers: str, topic: str, records: Iterable[Recorded]) -> None:
    """Send records to the partitions that they were recorded in; waits until the broker has them."""
    producer = Producer({"bootstrap.servers": bootstrap_servers, "linger.ms": 5, "message.max.bytes": 20_000_000})
    for _, partition, record in records:
        while True:
            try:
                producer.produce(
                    topic, record.value, record.key, partition=partition, timestamp=record.timestamp_ms or 0
                )
                break
            except BufferError:
                producer.poll(0.1)
    assert producer.flush(60) == 0


def is_applied(bootstrap_servers: str, group: str, topic: str) -> bool:
    """Whether the group has committed the log's end in every partition that has one."""
    consumer = Consumer({"bootstrap.servers": bootstrap_servers, "group.id": group, "enable.auto.commit": False})
    try:
        partitions = list(consumer.list_topics(topic, timeout=10).topics[topic].partitions)
        places = [TopicPartition(topic, number) for number in partitions]
        committed = {place.partition: place.offset for place in consumer.committed(places, timeout=10)}
        ends = {place.partition: consumer.get_watermark_offsets(place, timeout=10)[1] for place in places}
        return all(max(committed[number], 0) >= ends[number] for number in partitions)
    finally:
        consumer.close()


def wait_applied(bootstrap_servers: str, group: str, topic: str, *, seconds: float) -> float:
    """Wait until everything is applied and committed; the seconds it took."""
    began = monotonic()
    wait_until(lambda: is_applied(bootstrap_servers, group, topic), f"{topic} is applied", seconds=seconds, pause=0.2)
    return monotonic() - began


def final_state(store_url: str) -> State:
    """Matyan's three directories, without what no record decides.

    Ids of tags and experiments stand as their names; the times of tombstones, and of tags and experiments that several
    runs name (order across runs is not promised), are left out.
    """
    with open_store(store_url) as store:
        state = name_uuids(dump(store))
    for where, key in state:
        elements = fdb.tuple.unpack(key)
        made = (
            where == "system"
            and elements[0] in {"tags", "experiments"}
            and elements[-1] in {"created_at", "updated_at"}
        )
        if made or (where == "data/indexes" and elements[0] == "_deleted"):
            state[where, key] = _CLOCKED
    return state


def log_records(runs: int, numbers: range) -> Iterator[Recorded]:
    """Log records of several runs, numbered in each; as steps are automatic, one lost or doubled shows for ever."""
    for number in numbers:
        for run in range(runs):
            name = f"{run:032x}"
            payload = {"message": str(number), "level": 20, "timestamp": 1.0}
            envelope = {"type": "log_record", "run_id": name, "timestamp": "2026-01-01T00:00:00Z", "payload": payload}
            value = json.dumps(envelope).encode()
            yield Recorded("", run % 4, Record(0, 1, name.encode(), value))


def read_numbers(store_url: str) -> dict[str, list[int]]:
    """What `log_records` left: each run's numbers, in the order of their steps."""
    found: dict[str, list[int]] = defaultdict(list)
    with open_store(store_url) as store:
        for row in scan(store.engine, "data/runs"):
            match fdb.tuple.unpack(row.key):
                case (run, "seqs", 0, "__log_records", "val", step):
                    assert step == len(found[run]), f"run {run}: a step is missing before {step}"
                    found[run].append(int(msgpack.unpackb(row.value)["message"]))
    return dict(found)


def all_numbers(runs: int, count: int) -> dict[str, list[int]]:
    """What `read_numbers` gives when everything was applied once and in order."""
    return {f"{run:032x}": list(range(count)) for run in range(runs)}
