"""What only a real FoundationDB does to us: it is killed, stands still, is locked or full, moves, goes back in time.

Numbered log records go through bridge and worker meanwhile. Their steps are automatic, so one that is lost or applied
twice shows for ever.
"""

from __future__ import annotations

import resource
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from demo.servers.foundationdb import FoundationCluster
from demo.servers.kafka import KafkaServer
from demo.servers.process import Process, wait_until
from storage.engine import Transaction, open_engine
from storage.errors import TransactionTooOld
from tests.conftest import Programs
from tests.integration.traffic import all_numbers, log_records, produce, read_numbers, wait_applied

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

RUNS = 12
SMALL = {
    "BATCH_RECORDS": "15",
    "INGEST_LANES": "4",
    "INGEST_QUEUES": "4",
    "STALL_SECONDS": "2",
    "STORAGE_TIMEOUT_SECONDS": "2",
}
SECONDS = 120


@pytest.fixture
def settings(settings: dict[str, str], foundationdb: FoundationCluster) -> dict[str, str]:
    return {**settings, **SMALL, "STORAGE_URL": foundationdb.url}


class Traffic:
    """Numbered records into Kafka, and a look at what has come of them.

    Args:
        servers: Kafka's.
        settings: the product's.
    """

    def __init__(self, servers: str, settings: dict[str, str]) -> None:
        self._servers = servers
        self._topic, self._group = settings["KAFKA_DATA_INGESTION_TOPIC"], settings["INGEST_GROUP"]
        self._url = settings["STORAGE_URL"]
        self.sent = 0

    def send(self, count: int) -> None:
        """So many more records of each run."""
        produce(self._servers, self._topic, log_records(RUNS, range(self.sent, self.sent + count)))
        self.sent += count

    def applied(self) -> int:
        """Records in the store."""
        return sum(len(numbers) for numbers in read_numbers(self._url).values())

    def send_and_begin(self, count: int) -> None:
        """Send, and wait until the first of them are applied: the others are under way."""
        before = self.applied()
        self.send(count)
        wait_until(lambda: self.applied() > before, "the first are applied", seconds=SECONDS)

    def wait_whole(self) -> None:
        """Wait until all is applied; each record once, in its run's order."""
        wait_applied(self._servers, self._group, self._topic, seconds=SECONDS)
        assert read_numbers(self._url) == all_numbers(RUNS, self.sent)


@pytest.fixture
def traffic(kafka: KafkaServer, settings: dict[str, str]) -> Traffic:
    return Traffic(kafka.bootstrap_servers, settings)


@pytest.fixture
def ours(programs: Programs) -> list[Process]:
    """A bridge and a worker, running."""
    started: list[Process] = [programs.bridge(), programs.worker(concurrency=2)]
    for process in started:
        process.start()
    return started


@contextmanager
def killed(cluster: FoundationCluster) -> Iterator[None]:
    cluster.kill()
    yield
    cluster.start()


@contextmanager
def standing_still(cluster: FoundationCluster) -> Iterator[None]:
    cluster.processes[0].pause()
    yield
    cluster.processes[0].go_on()


@contextmanager
def locked(cluster: FoundationCluster) -> Iterator[None]:
    cluster.lock()
    yield
    cluster.unlock()


@contextmanager
def full(cluster: FoundationCluster) -> Iterator[None]:
    """No file may grow any more, as on a disk without space: it ends, or commits nothing, until it has space again."""
    pid = cluster.processes[0].pid
    _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (4_096, hard))
    yield
    cluster.kill()
    cluster.start()


Fault = Callable[[FoundationCluster], AbstractContextManager[None]]
FAULTS: dict[str, tuple[Fault, str]] = {
    "killed -9": (killed, "no connection to 127.0.0.1:"),
    "standing still": (standing_still, "127.0.0.1:"),
    "locked": (locked, "the database is locked"),
    "full": (full, "127.0.0.1:"),
}


def test_whatever_happens_to_the_cluster_is_waited_out_and_named(
    foundationdb: FoundationCluster, programs: Programs, traffic: Traffic, ours: list[Process]
) -> None:
    for name, (fault, words) in FAULTS.items():
        traffic.send_and_begin(100)
        said_before = [process.output().count(words) for process in ours]
        with fault(foundationdb):
            traffic.send(20)
            code, said = programs.run("wait", "--for", "store", "--timeout", "1")
            assert code == 1, name
            assert words in said, name
            assert "Traceback" not in said, name
            for process, before in zip(ours, said_before, strict=True):
                wait_until(says_more(process, words, before), f"{process.name} says {words!r}: {name}", seconds=SECONDS)
        traffic.wait_whole()
        assert all(process.is_alive() for process in ours), name
        assert programs.run("wait", "--for", "store", "--timeout", "60")[0] == 0, name


def says_more(process: Process, words: str, before: int) -> Callable[[], bool]:
    return lambda: process.output().count(words) > before


@pytest.fixture
def three(tmp_path: Path, foundationdb_server: FoundationCluster) -> Iterator[FoundationCluster]:
    """Three processes that keep everything twice."""
    with FoundationCluster(tmp_path / "three", processes=3) as cluster:
        yield cluster


def test_a_process_of_three_dies_and_the_coordinators_move(
    kafka: KafkaServer, three: FoundationCluster, programs: Programs, settings: dict[str, str], tmp_path: Path
) -> None:
    """Each program has a cluster file of its own, as on other machines; the client keeps it up to date."""
    files = {name: tmp_path / f"{name}.cluster" for name in ("bridge", "worker", "late")}
    for path in files.values():
        shutil.copy(three.cluster_file, path)
    urls = {name: f"fdb://{path}" for name, path in files.items()}
    traffic = Traffic(kafka.bootstrap_servers, {**settings, "STORAGE_URL": three.url})
    bridge = programs.bridge(STORAGE_URL=urls["bridge"])
    worker = programs.worker(concurrency=2, STORAGE_URL=urls["worker"])
    bridge.start()
    worker.start()

    traffic.send_and_begin(60)
    three.processes[1].kill()
    traffic.send_and_begin(60)
    traffic.wait_whole()
    three.start()

    first, second, third = (f"127.0.0.1:{process.port}" for process in three.processes)
    traffic.send_and_begin(60)
    three.cli(f"coordinators {third}", seconds=60)
    traffic.send_and_begin(20)
    for name in ("bridge", "worker"):
        wait_until(lambda name=name: names(files[name], [third]), f"{name} has the new coordinators", seconds=SECONDS)  # type: ignore[misc]
    assert names(files["late"], [first, second, third])
    # Whoever begins with the old file, as from a ConfigMap, is sent on by the old coordinators, while they are there.
    code, said = programs.run("wait", "--for", "store", "--timeout", "60", STORAGE_URL=urls["late"])
    assert code == 0, said
    assert names(files["late"], [third])
    traffic.wait_whole()
    for process in (bridge, worker):
        assert process.stop() == 0


def names(cluster_file: Path, coordinators: list[str]) -> bool:
    """Whether a cluster file names these coordinators."""
    return sorted(cluster_file.read_text().strip().rpartition("@")[2].split(",")) == sorted(coordinators)


@pytest.fixture
def backup_agent(foundationdb: FoundationCluster, tmp_path: Path) -> Iterator[Process]:
    command = [str(foundationdb.programs.program("backup_agent")), "-C", str(foundationdb.cluster_file)]
    with Process("backup-agent", [*command, "--logdir", str(tmp_path)], tmp_path / "backup-agent.log") as agent:
        yield agent


@pytest.mark.usefixtures("backup_agent")
def test_a_backup_restored_to_an_earlier_moment_while_the_bridge_runs(
    foundationdb: FoundationCluster, traffic: Traffic, ours: list[Process], tmp_path: Path
) -> None:
    """What was applied and committed since the backup is gone from the store: the bridge reads it again."""
    bridge = ours[0]
    traffic.send(40)
    traffic.wait_whole()
    cluster_file = str(foundationdb.cluster_file)
    folder = tmp_path / "backup"
    folder.mkdir()
    foundationdb.run("fdbbackup", "start", "-C", cluster_file, "-d", f"file://{folder}", "-w", seconds=200)
    traffic.send(40)
    traffic.wait_whole()

    for process in ours:  # nobody may write between the clearing and the restore, which wants an empty store
        process.signal(signal.SIGSTOP)
    foundationdb.clear()
    (made,) = folder.glob("backup-*")
    restore = ["--dest-cluster-file", cluster_file, "-r", f"file://{made}", "-w"]
    foundationdb.run("fdbrestore", "start", *restore, seconds=200)
    for process in ours:
        process.signal(signal.SIGCONT)
    traffic.send(20)
    traffic.wait_whole()
    assert all(process.is_alive() for process in ours)
    assert "the store has gone back" in bridge.output()


def test_a_transaction_older_than_five_seconds(foundationdb: FoundationCluster) -> None:
    """An impatient one is told, and does less; another is tried again. The limit is the cluster's own."""
    engine = open_engine(foundationdb.url, timeout=60.0)
    runs: list[int] = []

    def work(transaction: Transaction) -> None:
        transaction.get(b"a").wait()
        runs.append(1)
        if len(runs) == 1:
            time.sleep(6.5)
        transaction.get(b"b").wait()
        transaction.set(b"a", b"1")

    try:
        with pytest.raises(TransactionTooOld, match="1007"):
            engine.transact(work, impatient=True)
        assert len(runs) == 1
        engine.transact(work)
        assert engine.read(lambda transaction: transaction.get(b"a").wait()) == b"1"
        runs.clear()
        engine.transact(work)
        assert len(runs) == 2
    finally:
        engine.close()
