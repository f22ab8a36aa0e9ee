"""Traffic for the tests of the control path: runs that are deleted, events, and what the ledger says of them."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import dataclass, field
from os import environ
from pathlib import Path
from typing import Any
from uuid import uuid4

from confluent_kafka import Producer

from demo.servers.process import wait_until
from demo.servers.product import clear_settings
from demo.servers.s3 import VersityServer
from storage.cleanup import Cleanup, CleanupState
from storage.store import open_store
from tasks.app import make_app
from tasks.cleanup import send_cleanup
from tasks.kafka_clients import PARTITIONER
from tasks.settings import load_settings

TIME = "2026-11-23T06:39:48.287461Z"


def new_run() -> str:
    return uuid4().hex


@dataclass
class Control:
    """What a test does to the control path, and sees of it. ``settings`` are those of its programs."""

    settings: dict[str, str]
    s3: VersityServer
    folder: Path
    bucket: str = field(default_factory=lambda: f"test-{uuid4().hex[:12]}")

    def __post_init__(self) -> None:
        self.settings.update(self.s3.settings(self.bucket))
        self.s3.make_bucket(self.bucket)

    def put(self, run: str, count: int = 3) -> list[str]:
        """Blobs of a run; their keys."""
        keys = [f"{run}/seq/images/{number:06}.png" for number in range(count)]
        self.s3.fill(keys, bucket=self.bucket)
        return keys

    def left(self, run: str) -> list[str]:
        """The keys of a run's blobs that are there."""
        return self.s3.keys(f"{run}/", self.bucket)

    def ingest(self, kind: str, run: str, **payload: Any) -> None:
        """A record of the ingestion topic; waits until Kafka has it."""
        envelope = {"type": kind, "run_id": run, "timestamp": TIME, "payload": payload}
        self._send(self.settings["KAFKA_DATA_INGESTION_TOPIC"], run.encode(), envelope)

    def event(self, kind: str, **payload: Any) -> None:
        """A record of the control topic; waits until Kafka has it."""
        envelope = {"type": kind, "timestamp": TIME, "payload": payload}
        self._send(self.settings["KAFKA_CONTROL_EVENTS_TOPIC"], None, envelope)

    def _send(self, topic: str, key: bytes | None, envelope: dict[str, Any]) -> None:
        producer = Producer(
            {
                "bootstrap.servers": self.settings["KAFKA_BOOTSTRAP_SERVERS"],
                "enable.idempotence": True,
                "partitioner": PARTITIONER,
            }
        )
        producer.produce(topic, json.dumps(envelope).encode(), key)
        assert producer.flush(60) == 0

    def cleanup(self, run: str) -> Cleanup | None:
        """The ledger's entry."""
        with open_store(self.settings["STORAGE_URL"]) as store:
            return store.engine.read(lambda transaction: store.cleanups.get(transaction, run))

    def count(self) -> int:
        """How many cleanups there are."""
        with open_store(self.settings["STORAGE_URL"]) as store:
            return sum(1 for _ in store.cleanups.each(store.engine))

    def waiting_events(self) -> int:
        """How many events are in the outbox."""
        with open_store(self.settings["STORAGE_URL"]) as store:
            return store.outbox.count(store.engine)

    def requeue(self, run: str, *, force: bool = False) -> None:
        """As a person does it: in the ledger, then its task."""
        with open_store(self.settings["STORAGE_URL"]) as store:
            store.engine.transact(
                lambda transaction: store.cleanups.requeue(transaction, run, now=time.time(), force=force)
            )
        self.send_task(run)

    def wait(self, run: str, state: CleanupState, *, seconds: float = 60, since: int = 0) -> Cleanup:
        """Wait until a run's cleanup is in this state, in this round (``since``) or a later one."""
        found: list[Cleanup] = []

        def look() -> bool:
            entry = self.cleanup(run)
            if entry is not None:
                found[:] = [entry]
            return entry is not None and entry.state is state and entry.round >= since

        try:
            wait_until(look, f"the cleanup of {run} is {state}", seconds=seconds, pause=0.2)
        except TimeoutError as error:
            msg = f"{error}; it is {found}"
            raise TimeoutError(msg) from error
        return found[0]

    def send_task(self, run: str) -> None:
        """The task of a run's cleanup, as beat sends it."""
        app = make_app(load_settings(None, redis_url=self.settings["REDIS_URL"]))
        assert send_cleanup(app, run)
        app.close()

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """``matyan-celery`` with the test's settings."""
        ours = {name: value for name, value in clear_settings(self.settings).items() if value is not None}
        command = [sys.executable, "-m", "matyan_celery", *arguments]
        return subprocess.run(
            command,
            env={**environ, **ours},
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )
