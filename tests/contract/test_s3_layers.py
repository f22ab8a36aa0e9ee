"""Real servers behind what users have before theirs: listings with empty pages, and no DeleteObjects."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from demo.servers.fault_proxy import FaultProxy
from demo.servers.s3 import KEY, SECRET, S3Server
from storage.batch import Record
from storage.blobs import Blob
from storage.cleaner import Cleaner, Terms
from storage.cleanup import Cleanup, CleanupState
from storage.errors import BlobsRefused
from storage.jobs.order import JobOrder
from storage.jobs.orphans import sweep_orphans
from storage.s3 import S3Blobs
from storage.store import Store, assemble_store
from tests.conformance.vectors import apply
from tests.engines import open_kind

pytestmark = pytest.mark.timeout(900)  # versitygw may have to be built

RUN = "0123456789abcdef0123456789abcdef"
TERMS = Terms(tries=3, backoff=1.0, requests=2, slice=600.0, lease=600.0, foreign_keys=False)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with assemble_store(open_kind("sqlite", tmp_path, timeout=5.0)) as opened:
        yield opened


class Place:
    """A bucket of versitygw's behind the proxy, and the store that knows which runs are deleted."""

    def __init__(self, store: Store, server: S3Server, proxy: FaultProxy, *, versions: bool) -> None:
        self.store, self.server, self.proxy = store, server, proxy
        self.now = 1_000.0
        self.bucket = f"test-{uuid4().hex[:12]}"
        server.make_bucket(self.bucket, versions=versions)
        self.blobs = S3Blobs(
            self.bucket, endpoint=proxy.endpoint, key=KEY, secret=SECRET, region="us-east-1", versions=versions
        )

    def fill(self, run: str, count: int = 5) -> None:
        keys = [f"{run}/seq/{number}" for number in range(count)]
        for body in (b"old", b"new"):
            self.server.put(keys, body, self.bucket)

    def left(self) -> int:
        """Versions and markers that are there, with or without versions."""
        answer = self.server.client.list_object_versions(Bucket=self.bucket)
        return len(answer.get("Versions", ())) + len(answer.get("DeleteMarkers", ()))

    def bury(self, run: str) -> None:
        envelope = {"type": "delete_run", "run_id": run, "timestamp": "2026-01-01T00:00:00Z", "payload": {}}
        outcomes = apply(self.store, [Record(0, 0, run.encode(), json.dumps(envelope).encode())], 1)
        assert outcomes[0].kind == "applied"

    def clean(self, run: str = RUN) -> Cleanup:
        def ask(transaction: Any) -> None:
            self.store.cleanups.ask(transaction, run, source="event", now=0.0)

        self.store.engine.transact(ask)
        self.now += 100.0  # every next try is due
        entry = Cleaner(self.store, self.blobs, TERMS, clock=lambda: self.now).clean(run, task_id="task").entry
        assert entry is not None
        return entry


@pytest.fixture(params=[False, True], ids=["plain", "versions"])
def place(store: Store, versity: S3Server, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Place]:
    with FaultProxy(tmp_path, versity.endpoint) as proxy:
        opened = Place(store, versity, proxy, versions=request.param)
        yield opened
        opened.blobs.close()


def test_a_cleanup_is_done_where_a_listing_is_empty_to_its_end(place: Place) -> None:
    place.fill(RUN)
    place.bury(RUN)
    place.proxy.empty_pages(3)
    assert (place.clean().state, place.left()) == (CleanupState.DONE, 0)


def test_a_cleanup_whose_listing_leads_back_is_not_done(place: Place) -> None:
    place.fill(RUN)
    place.bury(RUN)
    place.proxy.empty_pages(2, circle=True)
    before, entry = place.left(), place.clean()
    assert (entry.state, entry.attempts, place.left()) == (CleanupState.PENDING, 1, before)
    assert f"the listing of '{RUN}/' does not move on" in entry.error
    place.proxy.relent()
    assert (place.clean().state, place.left()) == (CleanupState.DONE, 0)


def test_the_walk_over_the_bucket_goes_through_empty_pages(place: Place) -> None:
    runs = [f"{number:032x}" for number in range(4)]
    for run in runs:
        place.fill(run, 1)
        place.bury(run)
    place.proxy.empty_pages(2)
    sent = list[str]()
    order = JobOrder(place.store, 2e9)
    tally = sweep_orphans(order, blobs=place.blobs, unknown=False, grace_hours=0.0, send_cleanup=sent.append)
    assert (sent, tally["folders"]) == (runs, 4)
    place.proxy.empty_pages(2, circle=True)
    with pytest.raises(BlobsRefused, match="the listing of the bucket does not move on"):
        sweep_orphans(order, blobs=place.blobs, unknown=False, grace_hours=0.0, send_cleanup=sent.append)


@pytest.mark.parametrize(
    ("status", "code"),
    [(501, "NotImplemented"), (405, "MethodNotAllowed"), (400, "MissingContentMD5"), (400, "InvalidRequest")],
)
def test_a_layer_that_takes_no_bulk_deletion_gets_single_ones(place: Place, status: int, code: str) -> None:
    place.fill(RUN, 20)
    place.bury(RUN)
    place.proxy.refuse_bulk(status, code)
    entry = place.clean()
    assert (entry.state, place.left()) == (CleanupState.DONE, 0), entry.error
    assert place.blobs.delete([Blob(f"{RUN}/never-there")]) == [], "what is not there is gone"
