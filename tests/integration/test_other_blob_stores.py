"""A real worker deletes blobs from Google's and Azure's stores: their libraries come to life after a fork."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from demo.servers.azurite import AzuriteServer
from demo.servers.gcs import GcsServer
from demo.servers.go_programs import FAKE_GCS, missing_for_go
from demo.servers.npm_programs import missing_for_npm
from demo.servers.process import wait_until
from demo.servers.product import WorkerProcess
from demo.servers.redis import RedisServer
from storage.cleanup import Cleanup, CleanupState
from storage.store import Store, open_store
from tasks.app import make_app
from tasks.cleanup import send_cleanup
from tasks.settings import load_settings

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]  # both servers may have to be built


@pytest.fixture(params=["gcs", "azurite"])
def server(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[GcsServer | AzuriteServer]:
    missing = missing_for_go(FAKE_GCS) if request.param == "gcs" else missing_for_npm()
    if missing is not None:
        pytest.skip(f"no {request.param}: {missing}")
    with GcsServer(tmp_path) if request.param == "gcs" else AzuriteServer(tmp_path) as running:
        if isinstance(running, GcsServer):
            for name, value in running.environment.items():
                monkeypatch.setenv(name, value)
        yield running


def ask(store: Store, run: str, redis_url: str) -> None:
    store.engine.transact(lambda transaction: store.cleanups.ask(transaction, run, source="event", now=time.time()))
    app = make_app(load_settings(None, redis_url=redis_url))
    assert send_cleanup(app, run)
    app.close()


def wait(store: Store, run: str, state: CleanupState) -> Cleanup:
    found: list[Cleanup] = []

    def look() -> bool:
        found[:] = [
            entry
            for entry in [store.engine.read(lambda transaction: store.cleanups.get(transaction, run))]
            if entry is not None and entry.state is state
        ]
        return bool(found)

    wait_until(look, f"the cleanup of {run} is {state}", seconds=120, pause=0.2)
    return found[0]


def test_a_worker_deletes_a_runs_blobs(server: GcsServer | AzuriteServer, redis: RedisServer, tmp_path: Path) -> None:
    bucket, run, other = f"test-{uuid4().hex[:12]}", uuid4().hex, uuid4().hex
    url = f"sqlite:///{tmp_path / 'store.db'}"
    settings = {"STORAGE_URL": url, "REDIS_URL": redis.url, "CLEANUP_TRIES": "1", **server.settings(bucket)}
    with open_store(url) as store, WorkerProcess(tmp_path, settings):
        ask(store, run, redis.url)
        error = wait(store, run, CleanupState.FAILED).error
        assert f"'{bucket}': make it, or look at" in error

        server.make_bucket(bucket)
        keys = [f"{run}/seq/images/{number:06}.png" for number in range(5)]
        server.put([*keys, f"{other}/x", f"{run}0/x"], b"blob", bucket)
        ask(store, run, redis.url)
        entry = wait(store, run, CleanupState.DONE)
        assert (entry.objects, entry.bytes) == (5, 20)
        assert sorted(server.keys(bucket)) == sorted([f"{other}/x", f"{run}0/x"])
