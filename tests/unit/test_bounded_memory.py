"""Jobs over many keys need no more memory than over few; `python -m benchmarks.tombstones` takes a million."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from pathlib import Path

import fdb.tuple
import pytest

from benchmarks.tombstones import Bucket
from storage.encoding import pack_time
from storage.jobs.order import JobOrder
from storage.jobs.orphans import sweep_orphans
from storage.jobs.tombstones import clear_tombstones, each_tombstone
from storage.scan import Row, write
from storage.store import Store, assemble_store
from tests.engines import open_kind

NOW = 1.8e9


def sweep(store: Store, count: int) -> int:
    order = JobOrder(store, NOW, dry_run=True)
    blobs = Bucket(count)
    return sweep_orphans(order, blobs=blobs, unknown=False, grace_hours=24, send_cleanup=lambda run: None)["folders"]


def clear(store: Store, count: int) -> int:
    order = JobOrder(store, NOW, dry_run=True)
    return clear_tombstones(order, older_than_hours=168, has_blobs=lambda run: False)["cleared"]


@pytest.mark.parametrize(
    "job", [lambda store, count: sum(1 for _ in each_tombstone(store)), clear, sweep], ids=["list", "clear", "sweep"]
)
def test_memory_does_not_grow_with_the_number(job: Callable[[Store, int], int], tmp_path: Path) -> None:
    peaks = []
    with assemble_store(open_kind("sqlite", tmp_path)) as store:
        done = 0
        for count in (5_000, 15_000):
            rows = (
                Row("data/indexes", fdb.tuple.pack(("_deleted", f"{number:032x}")), pack_time(1.7e9))
                for number in range(done, count)
            )
            write(store.engine, rows)
            job(store, 10)  # what is loaded or cached at first use
            tracemalloc.start()
            assert job(store, count) == count
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
            done = count
    few, many = peaks
    assert many < few * 1.3 + 50_000, peaks
