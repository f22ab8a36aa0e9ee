"""Logs as they are after months in production: cut by retention, with transactions in them, their commits expired."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from demo.servers.kafka import KafkaServer
from demo.servers.process import free_port, wait_until
from demo.servers.product import BridgeProcess
from storage.recorded import Recorded
from tests.conftest import MakeTopic, Programs
from tests.integration.commands import run_command
from tests.integration.test_watching import Watched
from tests.integration.traffic import all_numbers, is_applied, log_records, produce, read_numbers, wait_applied

pytestmark = [pytest.mark.integration, pytest.mark.timeout(500)]

RUNS = 12
QUICK = {"STALL_SECONDS": "1", "CHECK_SECONDS": "2"}


def spread(numbers: range, partitions: int) -> list[Recorded]:
    """One run a partition."""
    return [
        item._replace(partition=number % partitions) for number, item in enumerate(log_records(partitions, numbers))
    ]


def cut_start(kafka: KafkaServer, topic: str, offsets: dict[int, int]) -> None:
    """Retention: the log begins at these offsets."""
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap_servers})
    places = [TopicPartition(topic, number, offset) for number, offset in offsets.items()]
    for answer in admin.delete_records(places).values():
        answer.result(timeout=30)


@contextmanager
def transactional(kafka: KafkaServer, topic: str) -> Iterator[Producer]:
    """A producer whose transaction has begun; one that is left open at the end is aborted."""
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers, "transactional.id": f"transactions-of-{topic}"})
    producer.init_transactions(30)
    producer.begin_transaction()
    try:
        yield producer
    finally:
        producer.abort_transaction(30)


def send(producer: Producer, topic: str, records: Iterable[Recorded]) -> None:
    for _, partition, record in records:
        producer.produce(topic, record.value, record.key, partition=partition)
    assert producer.flush(30) == 0


def status(settings: dict[str, str], folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(run_command(settings, folder, "status", "--json").stdout)
    return found


def commit(kafka: KafkaServer, group: str, places: list[TopicPartition]) -> None:
    consumer = Consumer({"bootstrap.servers": kafka.bootstrap_servers, "group.id": group, "enable.auto.commit": False})
    consumer.commit(offsets=places, asynchronous=False)
    consumer.close()


def wait_numbers(settings: dict[str, str], expected: dict[str, list[int]]) -> None:
    wait_until(lambda: read_numbers(settings["STORAGE_URL"]) == expected, "all is applied", seconds=90, pause=0.3)


def test_a_log_whose_start_is_gone_is_read(
    kafka: KafkaServer, group: str, programs: Programs, settings: dict[str, str], make_topic: MakeTopic
) -> None:
    """Every installation older than its retention: the log does not begin at 0."""
    topic = make_topic(6)
    own = {**QUICK, "KAFKA_DATA_INGESTION_TOPIC": topic}
    programs.worker(concurrency=2, **own).start()
    bridge = programs.bridge(**own)
    bridge.start()
    produce(kafka.bootstrap_servers, topic, spread(range(100), 6))
    wait_applied(kafka.bootstrap_servers, group, topic, seconds=90)
    for begin in (50, 150):
        assert bridge.stop() == 0
        cut_start(kafka, topic, dict.fromkeys(range(6), begin))
        bridge.start()
        produce(kafka.bootstrap_servers, topic, spread(range(begin + 50, begin + 150), 6))
        wait_applied(kafka.bootstrap_servers, group, topic, seconds=90)
    assert read_numbers(settings["STORAGE_URL"]) == all_numbers(6, 300)


def test_a_fresh_group_begins_where_the_log_begins(
    kafka: KafkaServer, topic: str, group: str, programs: Programs, settings: dict[str, str]
) -> None:
    produce(kafka.bootstrap_servers, topic, spread(range(100), 4))
    cut_start(kafka, topic, dict.fromkeys(range(4), 100))
    produce(kafka.bootstrap_servers, topic, spread(range(20), 4))
    programs.worker(concurrency=1, **QUICK).start()
    programs.bridge(**QUICK).start()
    wait_applied(kafka.bootstrap_servers, group, topic, seconds=90)
    assert read_numbers(settings["STORAGE_URL"]) == all_numbers(4, 20)


def test_retention_that_passes_a_paused_partition_is_a_gap_that_is_counted_once(
    kafka: KafkaServer, topic: str, group: str, programs: Programs, settings: dict[str, str], tmp_path: Path
) -> None:
    """Reading is paused, as nothing is applied; what was not read is gone when it goes on."""
    watched = Watched(free_port())
    own = {**QUICK, "AHEAD_RECORDS": "100", "METRICS_PORT": str(watched.port)}
    bridge = programs.bridge(**own)
    bridge.start()
    produce(kafka.bootstrap_servers, topic, spread(range(2_000), 4))
    wait_until(lambda: bridge.output().count("reading pauses") >= 4, "all partitions are full", seconds=90)
    cut_start(kafka, topic, dict.fromkeys(range(4), 1_990))
    worker = programs.worker(concurrency=1, **QUICK)
    worker.start()
    wait_applied(kafka.bootstrap_servers, group, topic, seconds=90)
    produce(kafka.bootstrap_servers, topic, spread(range(2_000, 2_020), 4))
    wait_applied(kafka.bootstrap_servers, group, topic, seconds=90)

    report = status(settings, tmp_path)
    gaps = {row["partition"]: (row["first"], row["last"]) for row in report["gaps"]}
    assert len(gaps) == len(report["gaps"]) == 4
    for number, (first, last) in gaps.items():
        read = [int(message) for message in read_messages(settings)[f"{number:032x}"]]
        assert read == [*range(first), *range(last + 1, 2_020)]
    lost = sum(last - first + 1 for first, last in gaps.values())
    wait_until(lambda: watched.sum("matyan_bridge_lost_offsets_total", topic=topic) == lost, "counted", seconds=20)
    bridge.kill()
    bridge.start()
    produce(kafka.bootstrap_servers, topic, spread(range(2_020, 2_030), 4))
    wait_applied(kafka.bootstrap_servers, group, topic, seconds=90)
    assert watched.sum("matyan_bridge_lost_offsets_total", topic=topic) == 0  # of this process
    assert status(settings, tmp_path)["gaps"] == report["gaps"]


def read_messages(settings: dict[str, str]) -> dict[str, list[int]]:
    """What runs hold, whatever is missing in them."""
    return read_numbers(settings["STORAGE_URL"])


def test_expired_offsets_are_no_reason_to_read_all_again(
    kafka: KafkaServer, topic: str, group: str, programs: Programs, settings: dict[str, str]
) -> None:
    watched = Watched(free_port())
    worker, bridge = programs.worker(concurrency=1, **QUICK), programs.bridge(METRICS_PORT=str(watched.port), **QUICK)
    worker.start()
    bridge.start()
    produce(kafka.bootstrap_servers, topic, log_records(RUNS, range(50)))
    wait_applied(kafka.bootstrap_servers, group, topic, seconds=90)
    assert bridge.stop() == 0
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap_servers})
    admin.delete_consumer_groups([group])[group].result(timeout=30)
    assert not is_applied(kafka.bootstrap_servers, group, topic)
    bridge.start()
    produce(kafka.bootstrap_servers, topic, log_records(RUNS, range(50, 60)))
    wait_applied(kafka.bootstrap_servers, group, topic, seconds=90)
    assert read_numbers(settings["STORAGE_URL"]) == all_numbers(RUNS, 60)
    wait_until(
        lambda: watched.sum("matyan_ingestion_messages_consumed_total") == RUNS * 10, "only what is new", seconds=20
    )


def test_transactions_leave_no_lag_and_no_gap(
    kafka: KafkaServer, topic: str, group: str, programs: Programs, settings: dict[str, str], tmp_path: Path
) -> None:
    """Markers and aborted records have offsets, and are never handed to a consumer."""
    watched = Watched(free_port())
    programs.worker(concurrency=1, **QUICK).start()
    bridge = programs.bridge(METRICS_PORT=str(watched.port), **QUICK)
    bridge.start()
    with transactional(kafka, topic) as producer:
        send(producer, topic, spread(range(10), 4))
        producer.commit_transaction(30)
        producer.begin_transaction()
        send(producer, topic, spread(range(500, 510), 4))
    wait_applied(kafka.bootstrap_servers, group, topic, seconds=90)  # committed is the log's end, markers and all
    assert read_numbers(settings["STORAGE_URL"]) == all_numbers(4, 10)
    wait_until(lambda: watched.sum("matyan_bridge_lag_records", topic=topic) == 0, "no lag", seconds=30)
    assert watched.sum("matyan_bridge_oldest_unapplied_seconds", topic=topic) == 0
    report = status(settings, tmp_path)
    assert [row["lag"] for row in report["partitions"] if row["topic"] == topic] == [0] * 4
    assert report["wrong"] == []

    assert bridge.stop() == 0
    ends = {row["partition"]: row["log_end"] for row in report["partitions"] if row["topic"] == topic}
    assert set(ends.values()) == {22}
    cut_start(kafka, topic, ends)
    bridge.start()
    produce(kafka.bootstrap_servers, topic, spread(range(10, 15), 4))
    wait_applied(kafka.bootstrap_servers, group, topic, seconds=90)
    assert read_numbers(settings["STORAGE_URL"]) == all_numbers(4, 15)
    assert watched.sum("matyan_bridge_lost_offsets_total", topic=topic) == 0
    assert status(settings, tmp_path)["gaps"] == []


def test_an_open_transaction_at_a_take_over_is_waited_for(
    kafka: KafkaServer, topic: str, group: str, programs: Programs, settings: dict[str, str], tmp_path: Path
) -> None:
    """The stock workers read what is not committed, and so commit beyond what a consumer like ours sees of the log."""
    produce(kafka.bootstrap_servers, topic, spread(range(10), 4))
    worker, bridge = programs.worker(concurrency=1, **QUICK), programs.bridge(**QUICK)
    with transactional(kafka, topic) as producer:
        send(producer, topic, spread(range(500, 505), 4))
        commit(kafka, group, [TopicPartition(topic, number, 15) for number in range(4)])
        outsider = Consumer({"bootstrap.servers": kafka.bootstrap_servers, "group.id": group})
        pending = [TopicPartition(topic, 0, 12)]  # a commit that a default consumer would wait for
        producer.send_offsets_to_transaction(pending, outsider.consumer_group_metadata(), 30)
        outsider.close()
        worker.start()
        bridge.start()
        wait_until(lambda: bridge.output().count("partition taken over") >= 5, "all are taken over", seconds=90)
        report = status(settings, tmp_path)
        rows = [row for row in report["partitions"] if row["topic"] == topic]
        assert [(row["log_end"], row["readable"], row["lag"]) for row in rows] == [(15, 10, 0)] * 4
        assert "open transaction" in run_command(settings, tmp_path, "status").stdout
        produce(kafka.bootstrap_servers, topic, spread(range(5), 4))
        assert bridge.is_alive()
    wait_applied(kafka.bootstrap_servers, group, topic, seconds=90)
    assert read_numbers(settings["STORAGE_URL"]) == all_numbers(4, 5)
    assert bridge.is_alive()


def test_a_log_that_was_cut_is_refused_though_it_has_grown_since(
    kafka: KafkaServer, topic: str, group: str, programs: Programs, settings: dict[str, str]
) -> None:
    """An unclean election, played by a disk that lost the last records. Offsets alone do not tell it any more."""
    programs.worker(concurrency=1, **QUICK).start()
    bridge = programs.bridge(**QUICK)
    bridge.start()
    produce(kafka.bootstrap_servers, topic, spread(range(50), 4))
    wait_applied(kafka.bootstrap_servers, group, topic, seconds=90)
    kafka.stop()
    kafka.start()  # another leader, by Kafka's count: what was committed is in the log still
    produce(kafka.bootstrap_servers, topic, spread(range(50, 100), 4))
    with transactional(kafka, topic) as producer:
        send(producer, topic, spread(range(500, 505), 4))
    wait_applied(kafka.bootstrap_servers, group, topic, seconds=90)
    assert bridge.stop() == 0
    bridge.start()  # nothing was cut so far, and behind the last record is a marker
    produce(kafka.bootstrap_servers, topic, spread(range(100, 110), 4))
    wait_applied(kafka.bootstrap_servers, group, topic, seconds=90)
    assert read_numbers(settings["STORAGE_URL"]) == all_numbers(4, 110)
    assert bridge.stop() == 0

    kafka.kill()
    cut_end(kafka, topic, 3)
    kafka.start()
    produce(kafka.bootstrap_servers, topic, spread(range(200, 300), 4))
    bridge.launch()
    assert bridge.wait(90) == 1
    said = bridge.output()
    assert f"{topic}[3]: all below offset 116 is read, and the log was cut" in said
    assert "truncation detected at offset 116" in said
    assert "Make the topic anew" in said


def cut_end(kafka: KafkaServer, topic: str, partition: int) -> None:
    """Lose the last third of the last part of a partition's log; the broker is down."""
    folder = kafka.data / f"{topic}-{partition}"
    last = max((log for log in folder.glob("*.log") if log.stat().st_size), key=lambda log: log.name)
    with last.open("r+b") as file:
        file.truncate(last.stat().st_size * 2 // 3)
    for made in (*folder.glob("*.index"), *folder.glob("*.timeindex"), *folder.glob("*.snapshot")):
        made.unlink()


HANGING = """
import bridge.progress, bridge.report
from bridge.__main__ import main
from bridge.holdings import Holdings

bridge.progress.TOLD_AFTER, bridge.report.HUNG_AFTER = 3.0, 6.0
begin = Holdings.begin

def forget_one(holdings, holding, state, now, **more):
    begun = begin(holdings, holding, state, now, **more)
    if holding.number == 2:
        holdings._stop(holding)  # nobody notices: no call fails, and no batch stalls
    return begun

Holdings.begin = forget_one
main()
"""


class HangingBridge(BridgeProcess):
    def __init__(self, folder: Path, settings: Mapping[str, str], *, name: str) -> None:
        super().__init__(folder, settings, name=name)
        self._command = [sys.executable, "-c", HANGING]


def test_a_partition_that_is_held_and_not_read_is_named_by_everything(
    kafka: KafkaServer, topic: str, group: str, programs: Programs, settings: dict[str, str], tmp_path: Path
) -> None:
    """A bug is planted in a real bridge: one partition's reading ends without a word. (And it is told sooner.)"""
    watched = Watched(free_port())
    programs.worker(concurrency=1, **QUICK).start()
    own = {"METRICS_PORT": str(watched.port), **QUICK}
    bridge = programs.add(HangingBridge(tmp_path, {**settings, **own}, name="hanging"))
    bridge.start()
    wait_until(watched.is_ready, "the bridge is ready", seconds=90)
    produce(kafka.bootstrap_servers, topic, spread(range(10), 4))

    def told() -> bool:
        return "not read it for" in " ".join(status(settings, tmp_path)["wrong"])

    wait_until(lambda: watched.probe("/livez")[0] == 503, "it is to be restarted", seconds=90)
    assert f"{topic}[2]: a bridge has it and has not read it for" in watched.probe("/livez")[1]
    assert "at offset 0 of 10" in watched.probe("/readyz")[1]
    assert watched.sum("matyan_bridge_standing_seconds", topic=topic, partition="2") >= 3
    assert watched.sum("matyan_bridge_standing_seconds", topic=topic) < 300  # no other partition's
    wait_until(told, "status names it", seconds=30, pause=0.5)
    assert [(row["partition"], row["step"]) for row in status(settings, tmp_path)["standstills"]] == [(2, "read")]
    bridge.kill()

    programs.bridge("sound", **own).start()
    wait_applied(kafka.bootstrap_servers, group, topic, seconds=90)
    assert read_numbers(settings["STORAGE_URL"]) == all_numbers(4, 10)
    assert watched.probe("/livez")[0] == 200
    assert watched.sum("matyan_bridge_standing_seconds", topic=topic) == -1
