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
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition

from demo.servers.process import wait_until
from storage.batch import Record
from storage.recorded import Recorded, read_recorded
from storage.replay import Replay
from storage.scan import scan
from storage.store import open_store
from tests.conformance.vectors import State, dump, name_uuids

_CLOCKED: Final = b""  # stands for a value that no record holds
_NULL: Final = msgpack.packb(None)


def load_streams(path: Path) -> list[Recorded]:
    """The ingestion records of a recorded stream, in its order."""
    return [item for item in read_recorded(path) if item.record.key is not None]


def produce(bootstrap_servers: str, topic: str, records: Iterable[Recorded]) -> None:
    """Send records to the partitions that they were recorded in; waits until the broker has them, once and in order."""
    producer = Producer(
        {
            "bootstrap.servers": bootstrap_servers,
            "linger.ms": 5,
            "message.max.bytes": 20_000_000,
            # Else what is tried again, to a topic that was just made for example, may come behind what was sent later.
            "enable.idempotence": True,
        }
    )
    for _, partition, record in records:
        while True:
            try:
                producer.produce(
                    topic, record.value, record.key, partition=partition, timestamp=max(0, record.timestamp_ms)
                )
                break
            except BufferError:
                producer.poll(0.1)
    assert producer.flush(60) == 0


def is_applied(bootstrap_servers: str, group: str, topic: str) -> bool:
    """Whether the group has committed the log's end in every partition that has one. False while Kafka says nothing."""
    consumer = Consumer({"bootstrap.servers": bootstrap_servers, "group.id": group, "enable.auto.commit": False})
    try:
        partitions = list(consumer.list_topics(topic, timeout=10).topics[topic].partitions)
        places = [TopicPartition(topic, number) for number in partitions]
        committed = {place.partition: place.offset for place in consumer.committed(places, timeout=10)}
        ends = {place.partition: consumer.get_watermark_offsets(place, timeout=10)[1] for place in places}
        return all(max(committed[number], 0) >= ends[number] for number in partitions)
    except KafkaException:  # a broker that was just started does not know its groups for a moment
        return False
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


def read_topic(bootstrap_servers: str, topic: str) -> list[Recorded]:
    """All that a topic holds, partition by partition."""
    found: list[Recorded] = []
    consumer = Consumer({"bootstrap.servers": bootstrap_servers, "group.id": "nobody", "enable.auto.commit": False})
    try:
        for number in sorted(consumer.list_topics(topic, timeout=10).topics[topic].partitions):
            place = TopicPartition(topic, number, 0)
            _, end = consumer.get_watermark_offsets(place, timeout=10)
            consumer.assign([place])
            left = end
            while left:
                messages = consumer.consume(min(left, 10_000), timeout=30)
                assert messages, f"{topic}[{number}]: {left} records do not come"
                for message in messages:
                    assert message.error() is None
                    key, value = message.key(), message.value()
                    record = Record(message.offset() or 0, message.timestamp()[1], as_bytes(key), as_bytes(value))
                    found.append(Recorded(topic, number, record))
                left -= len(messages)
    finally:
        consumer.close()
    return found


def as_bytes(data: str | bytes | None) -> bytes | None:
    return data.encode() if isinstance(data, str) else data


def cut(records: Iterable[Recorded], parts: int) -> list[list[Recorded]]:
    """Records in so many parts: of each partition the first part, the second, and so on."""
    by_partition: dict[int, list[Recorded]] = defaultdict(list)
    for record in records:
        by_partition[record.partition].append(record)
    return [
        [
            record
            for stream in by_partition.values()
            for record in stream[part * len(stream) // parts : (part + 1) * len(stream) // parts]
        ]
        for part in range(parts)
    ]


def replay_singly(store_url: str, records: Iterable[Recorded]) -> None:
    """Apply records one by one, in their order: what every other way of applying them is held to."""
    with open_store(store_url) as store:
        replay = Replay(store)
        for record in records:
            replay.apply([record])
        replay.finish()


def comparable_with_stock(state: State) -> State:
    """A state without what the stock worker does otherwise in good traffic; the letters are docs/compatibility.md's.

    The times of its own clock (a), `created_at` entries of a run made twice (f), and run counts (g).
    """
    found: State = {}
    for (where, key), value in state.items():
        match where, fdb.tuple.unpack(key):
            case "data/runs", (_, "meta", "created_at" | "updated_at" | "finalized_at", _) if value != _NULL:
                found[where, key] = _CLOCKED
            case "data/runs", (_, "seqs", _, _, "time", _):
                found[where, key] = _CLOCKED
            case "data/indexes", ("created_at", float(), run):
                found[where, fdb.tuple.pack(("created_at", run))] = value
            case "data/indexes", ("_rev", run, "created_at", float(), _):
                found[where, fdb.tuple.pack(("_rev", run, "created_at"))] = value
            case "system", ("tags" | "experiments", _, "run_count"):
                pass
            case _:
                found[where, key] = value
    return found


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
