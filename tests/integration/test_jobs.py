"""The periodic jobs on real parts: beat, workers, Redis, S3, and processes that are killed while they do one."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import fdb.tuple
import msgpack
import pytest

from demo.servers.process import Process, wait_until
from demo.servers.product import BeatProcess, WorkerProcess, clear_settings
from demo.servers.redis import RedisServer
from demo.servers.s3 import MotoServer
from storage.cascades import Cascade, CascadeKind, CascadeState
from storage.cleanup import CleanupState
from storage.engine import Transaction
from storage.store import Store, open_store
from tasks.app import make_app
from tasks.job_list import JOBS
from tasks.settings import load_settings
from tests.unit.matyan import INDEXES, RUNS, SYSTEM, id_of, mentions, put, read, send

pytestmark = pytest.mark.integration

ORPHANS = JOBS["orphan-blobs"]
RUN, OTHER, LIVES, NEVER_KNOWN = (letter * 32 for letter in "abcd")
KEYS = [f"{RUN}/{number}" for number in range(5)] + [f"{OTHER}/x", f"{LIVES}/x", f"{NEVER_KNOWN}/x", "backups/x"]
BIG = 6_000


@pytest.fixture(scope="module")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MotoServer]:
    with MotoServer(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture
def s3(s3_server: MotoServer) -> MotoServer:
    """A bucket with blobs of two deleted runs, of one that lives, of one never known, and what is no run's."""
    s3_server.make_bucket()
    for key in list(s3_server.keys("")):
        s3_server.client.delete_object(Bucket="matyan-artifacts", Key=key)
    s3_server.put(KEYS)
    return s3_server


@pytest.fixture
def settings(redis: RedisServer, s3: MotoServer, tmp_path: Path) -> dict[str, str]:
    off = {job.setting: "" for job in JOBS.values()}
    return {"STORAGE_URL": f"sqlite:///{tmp_path / 'store.db'}", "REDIS_URL": redis.url, **s3.settings(), **off}


@pytest.fixture
def store(settings: dict[str, str]) -> Iterator[Store]:
    with open_store(settings["STORAGE_URL"]) as opened:
        send(opened, "create_run", LIVES)
        for run in (RUN, OTHER):
            put(opened, INDEXES, 1.7e9, "_deleted", run)
        yield opened


@pytest.fixture
def processes() -> Iterator[ExitStack]:
    """Kills what is pushed when the test ends."""
    with ExitStack() as stack:
        yield stack


def start(stack: ExitStack, process: Process) -> None:
    stack.callback(process.kill)
    process.start()


def call(folder: Path, settings: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    given = {**os.environ, **clear_settings(settings)}
    return subprocess.run(
        [sys.executable, "-m", "matyan_celery", *arguments],
        cwd=folder,
        env={name: value for name, value in given.items() if value is not None},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def events_of(process: Process, event: str) -> list[dict[str, object]]:
    """The lines of a worker's log that are this event of ours."""
    lines = [line for line in process.output().splitlines() if line.startswith("{")]
    return [fields for line in lines if (fields := json.loads(line)).get("event") == event]


@contextmanager
def silent_server() -> Iterator[str]:
    """The address of a server that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        taken: list[socket.socket] = []

        def take() -> None:
            while True:
                try:
                    taken.append(listening.accept()[0])
                except OSError:
                    return

        thread = threading.Thread(target=take)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            thread.join()
            for connection in taken:
                connection.close()


def test_two_beats_fire_a_job_and_it_is_done_once_a_turn(
    settings: dict[str, str], store: Store, s3: MotoServer, tmp_path: Path, processes: ExitStack
) -> None:
    settings = {**settings, "CRON_ORPHAN_BLOBS": "* * * * *"}
    worker = WorkerProcess(tmp_path / "worker", settings, concurrency=2)
    beats = [BeatProcess(tmp_path / "beats", settings, name=f"beat-{number}") for number in (1, 2)]
    for process in (worker, *beats):
        start(processes, process)
    gone = {key for key in KEYS if key.startswith((RUN, OTHER))}
    wait_until(lambda: not gone & set(s3.keys()), "the orphans' blobs are gone", seconds=150)
    said = "Sending due task orphan-blobs"
    for beat in beats:
        beat.wait_output(said, seconds=100)
        assert beat.stop() == 0
    sent = [beat.output().count(said) for beat in beats]
    turns = max(sent)  # both have begun before the first
    wait_until(
        lambda: len(events_of(worker, "job")) + len(events_of(worker, "job passed over")) == sum(sent),
        "the worker has taken all that the beats have sent",
        seconds=60,
    )
    assert len(events_of(worker, "job")) == turns
    assert set(s3.keys()) == set(KEYS) - gone
    assert {cleanup.run: cleanup.source for cleanup in store.cleanups.each(store.engine)} == {
        RUN: "orphans",
        OTHER: "orphans",
    }
    assert store.job_locks().holder(ORPHANS.lock) is None


def test_killed_in_a_job_its_lock_is_soon_free(
    settings: dict[str, str], store: Store, tmp_path: Path, processes: ExitStack
) -> None:
    settings = {**settings, "CLEANUP_JOB_LOCK_TTL_SECONDS": "5"}
    worker_of = {**settings, "CLEANUP_JOB_LOCK_TTL_SECONDS": "20"}
    with silent_server() as address, make_app(load_settings(None, redis_url=settings["REDIS_URL"])) as app:
        worker = WorkerProcess(tmp_path / "worker", {**worker_of, "S3_ENDPOINT": address}, queues=["jobs"])
        start(processes, worker)
        app.send_task(ORPHANS.task, queue="jobs")
        locks = store.job_locks()
        wait_until(lambda: locks.holder(ORPHANS.lock) is not None, "the worker has the lock", seconds=60)
        worker.kill()
    refused = call(tmp_path, settings, "jobs", "run", "orphan-blobs")
    assert refused.returncode == 1, refused.stdout + refused.stderr
    assert "the lock cleanup_orphan_blobs is held by" in refused.stderr

    def is_done() -> bool:
        return call(tmp_path, settings, "jobs", "run", "orphan-blobs").returncode == 0

    wait_until(is_done, "the lock of the killed worker is free", seconds=90, pause=1.0)
    asked = [cleanup.run for cleanup in store.cleanups.each(store.engine, states=[CleanupState.PENDING])]
    assert asked == [RUN, OTHER]
    with make_app(load_settings(None, redis_url=settings["REDIS_URL"])) as app, app.connection_for_read() as connection:
        assert connection.default_channel.client.llen("cleanup") == 2, "their tasks were sent"


def test_by_hand_on_a_real_bucket(settings: dict[str, str], store: Store, tmp_path: Path) -> None:
    dry = call(tmp_path, settings, "jobs", "run", "orphan-blobs", "--dry-run", "--unknown")
    assert dry.returncode == 0, dry.stderr
    assert f"would ask for the cleanup of '{RUN}'" in dry.stdout
    assert f"keep '{NEVER_KNOWN}' (unknown): too young" in dry.stdout
    assert "keep 'backups' (unknown): no run id" in dry.stdout
    assert list(store.cleanups.each(store.engine)) == []
    wide = call(
        tmp_path, settings, "jobs", "run", "orphan-blobs", "--unknown", "--older-than-hours", "0", "--limit", "3"
    )
    assert wide.returncode == 0, wide.stderr
    assert [cleanup.run for cleanup in store.cleanups.each(store.engine)] == [RUN, OTHER, NEVER_KNOWN]
    tombstones = call(tmp_path, settings, "jobs", "run", "tombstones")
    assert "cleared 0, cleanup not done 2" in tombstones.stdout
    for run in (RUN, OTHER):
        store.engine.transact(lambda transaction: store.cleanups.purge(transaction, run))  # noqa: B023 - run at once
    tombstones = call(tmp_path, settings, "jobs", "run", "tombstones")
    assert "cleared 0, cleanup not done 0, has blobs 2" in tombstones.stdout


def test_cascade_goes_on_after_kills_and_leaves_newer_associations(
    settings: dict[str, str], store: Store, tmp_path: Path, processes: ExitStack
) -> None:
    settings = {**settings, "CLEANUP_STALL_SECONDS": "1"}
    _point_many_at(store, "dead")
    store.engine.transact(lambda transaction: store.cascades.ask(transaction, "experiment", "dead", 1.0))

    def entry() -> Cascade:
        found = store.engine.read(lambda transaction: store.cascades.get(transaction, CascadeKind.EXPERIMENT, "dead"))
        assert found is not None
        return found

    worker = WorkerProcess(tmp_path / "worker", settings, queues=["cleanup"])
    processes.callback(worker.kill)

    def kill_beyond(beyond: int) -> bool:
        """Kill the worker once it is so far; it cannot go on meanwhile, as there is one writer at a time."""

        def work(transaction: Transaction) -> bool:
            found = store.cascades.get(transaction, CascadeKind.EXPERIMENT, "dead")
            if found is None or found.scanned < beyond:
                return False
            worker.kill()
            return True

        return store.engine.transact(work)

    for beyond in (500, 2_500, BIG + 500):
        sent = call(tmp_path, settings, "jobs", "run", "stalled-cleanups")
        assert "cascades 1" in sent.stdout, sent.stderr
        worker.launch()
        wait_until(lambda: kill_beyond(beyond), f"it has looked at {beyond} keys", seconds=90, pause=0.001)  # noqa: B023
        assert entry().is_open, "killed in the middle"
        if beyond == 500:
            send(store, "set_run_property", _big(BIG - 1), experiment="newer")
        wait_until(lambda: _is_stalled(entry()), "it counts as stalled", seconds=30)
    assert call(tmp_path, settings, "jobs", "run", "stalled-cleanups").returncode == 0
    worker.start()
    wait_until(lambda: entry().state is CascadeState.DONE, "the cascade is done", seconds=120)
    assert entry().changed == BIG
    assert mentions(store, "dead") == []
    assert [key[2] for where, key in mentions(store, "experiment") if key[0] == "experiment"] == [_big(BIG - 1)]
    assert read(store, SYSTEM, "run_experiment", _big(BIG - 1)) == id_of(store, "experiment", "newer")


def _is_stalled(entry: Cascade) -> bool:
    return not entry.is_open or time.time() - entry.updated > 1.0


def _big(number: int) -> str:
    return f"{number:032x}"


def _point_many_at(store: Store, experiment: str) -> None:
    """Runs that point to an experiment which the API has deleted."""
    prefixes = {RUNS: store.directories.runs, INDEXES: store.directories.indexes, SYSTEM: store.directories.system}

    def rows(run: str) -> Iterator[tuple[bytes, bytes]]:
        packed = msgpack.packb(experiment)
        for where, value, key in (
            (RUNS, packed, (run, "meta", "experiment_id", "__leaf__")),
            (SYSTEM, packed, ("run_experiment", run)),
            (INDEXES, b"", ("created_at", 1.7e9, run)),
            (INDEXES, b"", ("_rev", run, "created_at", 1.7e9, run)),
            (INDEXES, b"", ("experiment", "name", run)),
            (INDEXES, b"", ("_rev", run, "experiment", "name", run)),
        ):
            yield prefixes[where] + fdb.tuple.pack(key), value

    for begin in range(0, BIG, 1_000):

        def work(transaction: Transaction) -> None:
            for number in range(begin, begin + 1_000):  # noqa: B023 - run at once
                for key, value in rows(_big(number)):
                    transaction.set(key, value)

        store.engine.transact(work)
