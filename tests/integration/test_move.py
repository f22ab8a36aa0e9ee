"""The move from the stock workers to ours and back, in the same group, over the same store, cut in mid-stream."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from confluent_kafka import Consumer, TopicPartition

from bridge.lanes import choose_lane
from bridge.lookup import Lookup
from demo.servers.foundationdb import FoundationCluster
from demo.servers.foundationdb_programs import missing_for_foundationdb
from demo.servers.kafka import KafkaServer
from demo.servers.process import DidNotStart, wait_until
from demo.servers.s3 import MotoServer
from storage.batch import Record
from storage.cleanups import CleanupState
from storage.control import make_run_deleted
from storage.engine import Transaction, open_engine
from storage.recorded import Recorded, format_recorded
from storage.store import open_store
from tests.conformance.vectors import SHARED, State, show, show_value
from tests.conftest import MakeTopic, Programs
from tests.integration.commands import run_command
from tests.integration.stock_backend import NoStockBackend, stock_python
from tests.integration.stock_workers import CONTROL_GROUP, INGEST_GROUP, StockWorker
from tests.integration.traffic import (
    all_numbers,
    comparable_with_stock,
    cut,
    final_state,
    load_streams,
    log_records,
    produce,
    read_numbers,
    read_topic,
    replay_singly,
    wait_applied,
)

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]

STREAMS = [
    SHARED.parent / "streams" / name for name in ("digits.jsonl", "sweep.jsonl", "deletes.jsonl", "stalls.jsonl.gz")
]
PARTITIONS = 6
RUNS = 12  # of numbered log records beside the streams, whose automatic steps show what is lost or doubled
SMALL = {"BATCH_RECORDS": "20", "INGEST_LANES": "4", "INGEST_QUEUES": "4", "STALL_SECONDS": "2", "DRAIN_SECONDS": "3"}
ALL_BUT_ONE = ["ingest.01", "ingest.02", "ingest.03"]

needs_streams = pytest.mark.skipif(not all(path.is_file() for path in STREAMS), reason="no recorded streams")


@pytest.fixture
def topic(make_topic: MakeTopic) -> str:
    return make_topic(PARTITIONS)


@pytest.fixture
def group() -> str:
    return INGEST_GROUP  # the stock workers know no other


@pytest.fixture
def settings(settings: dict[str, str], request: pytest.FixtureRequest) -> dict[str, str]:
    """On a real FoundationDB; where there is none, on an embedded store, which stock workers open by the double."""
    if missing_for_foundationdb() is None:
        cluster: FoundationCluster = request.getfixturevalue("foundationdb")
        settings = {**settings, "STORAGE_URL": cluster.url}
    return {**settings, "CONTROL_GROUP": CONTROL_GROUP}


@pytest.fixture
def store_url(settings: dict[str, str]) -> str:
    """The store, empty: whoever comes first makes the directories."""
    open_engine(settings["STORAGE_URL"]).close()
    return settings["STORAGE_URL"]


@pytest.fixture
def stock(store_url: str, settings: dict[str, str], tmp_path: Path, programs: Programs) -> StockWorker:
    return programs.add(StockWorker(find_stock(), store_url, tmp_path, kafka_of(settings)))


def find_stock() -> Path:
    try:
        return stock_python()
    except NoStockBackend as error:
        pytest.skip(str(error))


def kafka_of(settings: dict[str, str]) -> dict[str, str]:
    """The settings that the stock workers share with ours."""
    return {name: value for name, value in settings.items() if name.startswith("KAFKA_")}


def cleanup_states(settings: dict[str, str]) -> list[CleanupState]:
    with open_store(settings["STORAGE_URL"]) as store:
        return [cleanup.state for cleanup in store.cleanups.each(store.engine)]


def traffic(parts: int, streams: Sequence[Path] = STREAMS) -> list[list[Recorded]]:
    """Recorded streams and numbered log records, cut in so many parts."""
    recorded = [record for path in streams for record in load_streams(path)]
    numbered = cut(log_records(RUNS, range(60 * parts)), parts)
    return [one + other for one, other in zip(cut(recorded, parts), numbered, strict=True)]


def commits(kafka: KafkaServer, topic: str) -> dict[int, int]:
    with Lookup({"bootstrap.servers": kafka.bootstrap_servers}, INGEST_GROUP) as lookup:
        return {number: lookup.offsets(topic, number).committed or 0 for number in range(PARTITIONS)}


def wait_nobody(kafka: KafkaServer, group: str = INGEST_GROUP) -> None:
    """Wait until the sessions of those who left the group without a word have run out."""
    with Lookup({"bootstrap.servers": kafka.bootstrap_servers}, group) as lookup:
        wait_until(lambda: lookup.members() == [], "nobody is in the group", seconds=90, pause=0.5)


def set_commits(kafka: KafkaServer, topic: str, offsets: dict[int, int]) -> None:
    """What ``kafka-consumer-groups.sh --reset-offsets --to-offset`` does: commits without metadata."""
    wait_nobody(kafka)
    places = [TopicPartition(topic, number, offset) for number, offset in offsets.items()]
    consumer = Consumer({"bootstrap.servers": kafka.bootstrap_servers, "group.id": INGEST_GROUP})
    try:
        consumer.commit(offsets=places, asynchronous=False)
    finally:
        consumer.close()


def replay(settings: dict[str, str], folder: Path, records: list[Recorded]) -> None:
    """``matyan-celery replay`` of records that are kept in a file."""
    path = folder / "kept.jsonl"
    path.write_text("".join(format_recorded(record) + "\n" for record in records))
    done = run_command(settings, folder, "replay", "--strict", str(path))
    assert done.returncode == 0, done.stdout + done.stderr


def differences(found: State, expected: State) -> list[str]:
    """Where two states differ, in words; nothing where they are the same."""
    return [
        f"{show(entry)}: expected {show_value(expected.get(entry))}, found {show_value(found.get(entry))}"
        for entry in sorted(expected.keys() | found.keys())
        if expected.get(entry) != found.get(entry)
    ]


def truth(kafka: KafkaServer, topic: str, folder: Path) -> str:
    """The URL of a store to which all that the topic holds was applied record by record."""
    url = f"sqlite:///{folder / 'truth.db'}"
    replay_singly(url, read_topic(kafka.bootstrap_servers, topic))
    return url


def highest_cursors(settings: dict[str, str]) -> dict[int, int]:
    """Of each ingestion partition that was ever taken over, the offset up to which the foremost lane has applied."""
    with open_store(settings["STORAGE_URL"]) as store:

        def work(transaction: Transaction) -> dict[int, int]:
            standings = store.ledger.standings(transaction, store.ledger.sources(transaction))
            return {
                source.partition: max(standing.cursors.values(), default=-1) for source, standing in standings.items()
            }

        return store.engine.read(work)


def lanes_ahead(kafka: KafkaServer, topic: str, settings: dict[str, str]) -> dict[int, int]:
    """How many records beyond its commit each partition has lanes that applied, where it has any."""
    committed = commits(kafka, topic)
    ahead = {number: cursor + 1 - committed[number] for number, cursor in highest_cursors(settings).items()}
    return {number: count for number, count in ahead.items() if count > 0}


@needs_streams
@pytest.mark.stock
def test_from_the_stock_worker_and_back_in_mid_stream(
    kafka: KafkaServer,
    topic: str,
    group: str,
    programs: Programs,
    settings: dict[str, str],
    stock: StockWorker,
    tmp_path: Path,
) -> None:
    servers = kafka.bootstrap_servers
    first, second, third = traffic(3)

    stock.start()
    produce(servers, topic, first)
    wait_applied(servers, group, topic, seconds=120)
    stock.stop()
    begun = commits(kafka, topic)

    produce(servers, topic, second)
    bridge, half = programs.bridge(**SMALL), programs.worker("half", concurrency=2, queues=ALL_BUT_ONE, **SMALL)
    bridge.start()
    half.start()
    bridge.wait_output("partition taken over", 60)  # once the session of the stock worker has run out
    wait_until(
        lambda: sum(lanes_ahead(kafka, topic, settings).values()) > 500,
        "lanes are ahead of the one that nobody works on",
        seconds=60,
    )
    assert bridge.stop() == 0
    assert lanes_ahead(kafka, topic, settings), "a stock worker would apply these again"

    produce(servers, topic, third)
    worker = programs.worker("worker", concurrency=2, **SMALL)
    worker.start()
    half.stop()
    drained = run_command({**settings, **SMALL}, tmp_path, "drain")
    assert drained.returncode == 0, drained.stderr[-3_000:]
    worker.stop()
    assert lanes_ahead(kafka, topic, settings) == {}
    handed_back = commits(kafka, topic)
    assert all(begun[number] <= handed_back[number] for number in range(PARTITIONS))
    held = [record.partition for record in (*first, *second, *third)]
    assert any(handed_back[number] < held.count(number) for number in range(PARTITIONS)), "cut in mid-stream"

    stock.start()
    wait_applied(servers, group, topic, seconds=120)
    stock.stop()

    found, expected = final_state(settings["STORAGE_URL"]), final_state(truth(kafka, topic, tmp_path))
    assert differences(comparable_with_stock(found), comparable_with_stock(expected)) == []


@pytest.mark.stock
def test_after_a_kill_without_drain_the_stock_worker_applies_again(
    kafka: KafkaServer, topic: str, group: str, programs: Programs, settings: dict[str, str], stock: StockWorker
) -> None:
    """Why the guide says `drain`: what lanes ahead of the commit had applied is applied twice, and nothing else."""
    produce(kafka.bootstrap_servers, topic, log_records(RUNS, range(30)))
    bridge, half = programs.bridge(**SMALL), programs.worker("half", concurrency=1, queues=ALL_BUT_ONE, **SMALL)
    bridge.start()
    half.start()
    lane_of = {run: choose_lane(run.encode(), 4) for run in all_numbers(RUNS, 0)}
    whole = {run: list(range(30)) for run, lane in lane_of.items() if lane != 0}
    assert 0 < len(whole) < RUNS
    wait_until(lambda: read_numbers(settings["STORAGE_URL"]) == whole, "all lanes but one are applied", seconds=60)
    with pytest.raises(DidNotStart, match="InconsistentGroupProtocol"):
        stock.start()  # while a bridge is in the group, Kafka lets no stock worker in
    bridge.kill()
    half.stop()
    wait_nobody(kafka)
    stock.start()
    wait_applied(kafka.bootstrap_servers, INGEST_GROUP, topic, seconds=120)
    found = read_numbers(settings["STORAGE_URL"])
    for run, lane in lane_of.items():
        again = found[run][30:] if lane != 0 else []
        assert found[run][:30] == list(range(30))
        assert again == list(range(30 - len(again), 30))
    assert sum(len(numbers) for numbers in found.values()) > RUNS * 30


@needs_streams
def test_records_replayed_before_the_cut_and_after_the_way_back(
    kafka: KafkaServer, topic: str, group: str, programs: Programs, settings: dict[str, str], tmp_path: Path
) -> None:
    """`replay` stands for the stock worker: offsets are set by hand; and after a kill, `drain` still comes to rest."""
    servers = kafka.bootstrap_servers
    first, second, third = traffic(3, STREAMS[:3])
    produce(servers, topic, first)
    replay(settings, tmp_path, read_topic(servers, topic))
    set_commits(kafka, topic, Counter(record.partition for record in first))

    produce(servers, topic, second)
    bridge, half = programs.bridge(**SMALL), programs.worker("half", concurrency=2, queues=ALL_BUT_ONE, **SMALL)
    bridge.start()
    half.start()
    wait_until(lambda: sum(lanes_ahead(kafka, topic, settings).values()) > 200, "lanes are ahead", seconds=60)
    bridge.kill()
    produce(servers, topic, third)
    worker = programs.worker(concurrency=2, **SMALL)
    worker.start()
    drained = run_command({**settings, **SMALL}, tmp_path, "drain")
    assert drained.returncode == 0, drained.stderr[-3_000:]
    half.stop()
    worker.stop()
    assert lanes_ahead(kafka, topic, settings) == {}

    handed_back = commits(kafka, topic)
    rest = [item for item in read_topic(servers, topic) if item.record.offset >= handed_back[item.partition]]
    assert rest, "cut in mid-stream"
    replay(settings, tmp_path, rest)
    assert differences(final_state(settings["STORAGE_URL"]), final_state(truth(kafka, topic, tmp_path))) == []


@pytest.fixture
def s3(tmp_path: Path) -> Iterator[MotoServer]:
    with MotoServer(tmp_path / "s3") as server:
        server.make_bucket()
        yield server


@pytest.mark.stock
def test_the_control_group_moves_too(
    kafka: KafkaServer,
    programs: Programs,
    settings: dict[str, str],
    store_url: str,
    s3: MotoServer,
    tmp_path: Path,
) -> None:
    servers, topic = kafka.bootstrap_servers, settings["KAFKA_CONTROL_EVENTS_TOPIC"]
    deleted = [f"{number:032x}" for number in range(12)]
    living = f"{99:032x}"
    s3.put(f"{run}/{name}" for run in (*deleted, living) for name in ("model.bin", "seq/images/0.png"))

    def left() -> set[str]:
        return {key.partition("/")[0] for key in s3.keys("")}

    stock = programs.add(
        StockWorker(find_stock(), store_url, tmp_path, kafka_of(settings) | s3.settings(), command="control-worker")
    )
    stock.start()
    produce(servers, topic, deletions(deleted[:4]))
    wait_applied(servers, CONTROL_GROUP, topic, seconds=60)
    stock.stop()
    assert left() == {*deleted[4:], living}

    produce(servers, topic, deletions(deleted[4:8]))
    ours = {**SMALL, **s3.settings()}
    bridge, worker = programs.bridge(**ours), programs.worker(concurrency=2, **ours)
    bridge.start()
    worker.start()
    wait_until(lambda: left() == {*deleted[8:], living}, "the next four are gone too", seconds=90, pause=0.5)
    assert bridge.stop() == 0

    produce(servers, topic, deletions(deleted[8:]))
    drained = run_command({**settings, **ours}, tmp_path, "drain")
    assert drained.returncode == 0, drained.stderr[-3_000:]
    worker.stop()
    with Lookup({"bootstrap.servers": servers}, CONTROL_GROUP) as lookup:
        assert lookup.offsets(topic, 0).committed == 8
    assert cleanup_states(settings) == [CleanupState.DONE] * 4

    stock.start()
    wait_applied(servers, CONTROL_GROUP, topic, seconds=60)
    stock.stop()
    assert left() == {living}


def deletions(runs: list[str]) -> list[Recorded]:
    """What the stock ingestion worker publishes when runs are deleted."""
    return [Recorded("", 0, Record(0, 1, None, make_run_deleted(run, 1_767_225_600.0))) for run in runs]
