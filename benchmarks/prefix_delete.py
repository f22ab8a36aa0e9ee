"""Objects a second that a cleanup deletes on versitygw: ``python -m benchmarks.prefix_delete``.

The reference, measured in the same run on the same server, is a plain loop: list a page, delete key by key, list the
next. The second is that loop with one bulk request a page, one after the other, as the stock control worker does it.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from demo.servers.s3 import BUCKET, KEY, SECRET, VersityServer
from storage.cleaner import Cleaner, Terms
from storage.cleanup import CleanupState
from storage.s3 import S3Blobs
from storage.store import open_store

if TYPE_CHECKING:
    from collections.abc import Callable


def delete_one_by_one(server: VersityServer, prefix: str) -> None:
    """The plain loop."""
    for page in server.client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix):
        for item in page.get("Contents", []):
            server.client.delete_object(Bucket=BUCKET, Key=item["Key"])


def delete_pages(server: VersityServer, prefix: str) -> None:
    """One bulk request a page."""
    for page in server.client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix):
        keys = [{"Key": item["Key"]} for item in page.get("Contents", [])]
        if keys:
            server.client.delete_objects(Bucket=BUCKET, Delete={"Objects": keys, "Quiet": True})


def clean(server: VersityServer, folder: Path, run: str, requests: int) -> None:
    """A cleanup: ledger, a look at the truth before each page, a last listing that finds nothing."""
    terms = Terms(tries=1, backoff=1.0, requests=requests, slice=3_600.0, lease=3_600.0, foreign_keys=False)
    blobs = S3Blobs(BUCKET, endpoint=server.endpoint, key=KEY, secret=SECRET, region="us-east-1", requests=requests + 1)
    with open_store(f"sqlite:///{folder / 'store.db'}") as store:
        store.engine.transact(
            lambda transaction: store.cleanups.ask(transaction, run, source="event", now=time.time() - 1)
        )
        entry = Cleaner(store, blobs, terms).clean(run, task_id="benchmark").entry
        assert entry is not None
        assert entry.state is CleanupState.DONE, entry.error
    blobs.close()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--objects", type=int, default=5_000)
    parser.add_argument("--requests", type=int, default=4, help="delete requests in flight")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, VersityServer(Path(name) / "s3") as server:
        server.make_bucket()

        def measure(run: str, delete: Callable[[], None]) -> float:
            server.fill(f"{run}/seq/images/{number:06}.png" for number in range(options.objects))
            began = time.monotonic()
            delete()
            seconds = time.monotonic() - began
            assert not server.client.list_objects_v2(Bucket=BUCKET, Prefix=f"{run}/").get("Contents")
            return options.objects / seconds

        plain = measure("a" * 32, lambda: delete_one_by_one(server, f"{'a' * 32}/"))
        pages = measure("b" * 32, lambda: delete_pages(server, f"{'b' * 32}/"))
        ours = measure("c" * 32, lambda: clean(server, Path(name), "c" * 32, options.requests))
    print(f"prefix delete of {options.objects} objects on versitygw")
    print(f"  cleanup, {options.requests} requests in flight: {ours:,.0f} objects/s")
    print(f"  page by page, one request after the other: {pages:,.0f} objects/s")
    print(f"  plain loop, key by key: {plain:,.0f} objects/s")
    print(f"  ratio {ours / plain:.1f} to the plain loop, {ours / pages:.1f} to page by page")


if __name__ == "__main__":
    main()
