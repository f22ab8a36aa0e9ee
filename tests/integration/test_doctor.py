"""The doctor at real servers that answer and yet do not serve: it tries to write, and says what would be lost."""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
import redis as redis_client
from confluent_kafka import Consumer, Producer, TopicPartition

from demo.servers.foundationdb import FoundationCluster
from demo.servers.kafka import KafkaServer
from demo.servers.process import wait_until
from demo.servers.redis import RedisServer
from matyan_celery.commands.doctor import examine
from storage.store import open_store
from tasks.settings import load_settings
from tests.conftest import MakeTopic

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]


class Found:
    """What the doctor finds, by subject, with the settings of a test."""

    def __init__(self, settings: dict[str, str]) -> None:
        self._settings = settings

    def wrong(self, **settings: str) -> dict[str, str]:
        return self._look({**self._settings, **settings}, well=False)

    def well(self, **settings: str) -> dict[str, str]:
        return self._look({**self._settings, **settings}, well=True)

    def _look(self, settings: dict[str, str], *, well: bool) -> dict[str, str]:
        found: dict[str, str] = defaultdict(str)
        for finding in examine(load_settings(None, **{name.lower(): value for name, value in settings.items()})):
            assert finding.well or finding.remedy
            if finding.well == well:
                found[finding.subject] += f"{finding}\n"
        return found


@pytest.fixture
def found(settings: dict[str, str]) -> Found:
    return Found({**settings, "S3_ENDPOINT": "http://127.0.0.1:9"})


# -- Redis ---------------------------------------------------------------------------------------------------------


class OddRedis(RedisServer):
    """A Redis with options of the test's."""

    def __init__(self, folder: Path, *options: str) -> None:
        super().__init__(folder)
        self._command += options


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--maxmemory", "1", "--maxmemory-policy", "noeviction"], ["is out of memory", "raise maxmemory"]),
        (["--min-replicas-to-write", "1"], ["has fewer good replicas than it must have to take writes"]),
        (["--cluster-enabled", "yes"], ["is a node of a cluster", "Redis Cluster is not supported"]),
        (["--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru"], ["drops keys when its memory is full"]),
    ],
)
def test_a_redis_that_answers_and_keeps_nothing(
    found: Found, tmp_path: Path, options: list[str], says: list[str]
) -> None:
    with OddRedis(tmp_path / "odd", *options) as server:
        wrong = found.wrong(REDIS_URL=server.url)
    for text in says:
        assert text in wrong["redis"]


def test_a_replica(found: Found, redis: RedisServer, tmp_path: Path) -> None:
    with OddRedis(tmp_path / "replica", "--replicaof", "127.0.0.1", str(redis.port)) as server:
        wrong = found.wrong(REDIS_URL=server.url)
    assert "is a replica and takes no writes" in wrong["redis"]


def test_a_redis_that_cannot_save(found: Found, tmp_path: Path) -> None:
    gone = tmp_path / "odd" / "gone"
    gone.mkdir(parents=True)
    with OddRedis(tmp_path / "odd", "--save", "3600 1", "--dir", str(gone)) as server:
        with redis_client.Redis(port=server.port) as client:
            shutil.rmtree(gone)
            client.bgsave()
            wait_until(
                lambda: client.info("persistence")["rdb_last_bgsave_status"] == "err", "it has failed", seconds=60
            )
        wrong = found.wrong(REDIS_URL=server.url)
    assert "cannot save its data to disk and so takes no writes" in wrong["redis"]


def test_a_look_leaves_nothing_in_redis(found: Found, redis: RedisServer) -> None:
    well = found.well()
    assert "answers, and takes what is written" in well["redis"]
    assert "Redis' clock is 0." in well["clock"]
    with redis_client.Redis(port=redis.port) as client:
        assert [key for key in client.scan_iter() if not key.startswith(b"_kombu.binding")] == []


# -- the store -----------------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of four megabytes, which only root may make; skips where we are not."""
    folder = tmp_path / "disk"
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.skip(f"no file system of our own: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def fill(folder: Path) -> None:
    """Leave no byte of the disk."""
    with (folder / "ballast").open("ab", buffering=0) as file:
        for size in (65_536, 1):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                pass


def test_a_full_disk(found: Found, small_disk: Path) -> None:
    url = f"sqlite:///{small_disk / 'store.db'}"
    assert "is not there yet; the bridge makes it" in found.well(STORAGE_URL=url)["store"]
    assert list(small_disk.iterdir()) == []
    open_store(url).close()
    well = found.well(STORAGE_URL=url)
    assert "answers, and took and gave back a probe" in well["store"]
    assert "MB left: make room" in well["disk"]
    fill(small_disk)
    assert "full" in found.wrong(STORAGE_URL=url)["store"]
    url = f"sqlite:///{small_disk / 'another.db'}"
    assert "its folder takes no file (No space left on device): make room" in found.wrong(STORAGE_URL=url)["store"]


def test_a_cluster(found: Found, foundationdb: FoundationCluster) -> None:
    url = f"fdb://{foundationdb.cluster_file}"
    well = found.well(STORAGE_URL=url)
    assert "answers, and took and gave back a probe" in well["store"]
    assert "FoundationDB's clock is 0." in well["clock"]
    with open_store(url) as store:
        left = store.engine.read(lambda transaction: transaction.get_range(b"matyan-celery", b"n").wait())
    assert left == []


# -- Kafka ---------------------------------------------------------------------------------------------------------


def test_topics_that_do_not_keep_what_is_still_to_be_read(found: Found, make_topic: MakeTopic) -> None:
    compacted, short = make_topic(1, {"cleanup.policy": "compact"}), make_topic(2, {"retention.ms": "86400000"})
    names = {"KAFKA_DATA_INGESTION_TOPIC": compacted, "KAFKA_CONTROL_EVENTS_TOPIC": short}
    wrong = found.wrong(**names)["topics"]
    assert f"{compacted} is compacted: of each run Kafka keeps the last record" in wrong
    assert f"{short} keeps records for 1 days, which is shorter than a weekend" in wrong
    well = found.well(**names)["topics"]
    assert f"{short} has one replica: what its broker's disk loses is lost (the cluster has one broker)" in well


def test_a_record_of_the_future(found: Found, kafka: KafkaServer, topic: str) -> None:
    # Kafka refuses what is more than an hour ahead of its own clock.
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers})
    producer.produce(topic, b"{}", timestamp=int((time.time() + 1_800) * 1_000))
    producer.flush()
    wrong = found.wrong()["clock"]
    assert re.search(rf"{topic} has a record of 1,[78]\d\d s ahead of this machine's clock", wrong)


def test_a_foreign_member(found: Found, kafka: KafkaServer, topic: str, settings: dict[str, str]) -> None:
    group = settings["INGEST_GROUP"]
    stock = Consumer({"bootstrap.servers": kafka.bootstrap_servers, "group.id": group, "client.id": "stock-worker"})
    try:
        stock.subscribe([topic])

        def has_joined() -> bool:
            stock.poll(0.2)
            return bool(stock.assignment())

        wait_until(has_joined, "it is in the group", seconds=60)
        wrong = found.wrong()["groups"]
    finally:
        stock.close()
    assert f"the group '{group}' has members that are no bridge (stock-worker): stop them" in wrong


def test_the_doctor_writes_nothing_to_topics(found: Found, kafka: KafkaServer, topic: str) -> None:
    found.well()
    reader = Consumer({"bootstrap.servers": kafka.bootstrap_servers, "group.id": uuid4().hex})
    try:
        ends = [reader.get_watermark_offsets(TopicPartition(topic, number), timeout=30)[1] for number in range(4)]
    finally:
        reader.close()
    assert ends == [0, 0, 0, 0]
