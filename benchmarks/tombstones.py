"""A million tombstones: ``python -m benchmarks.tombstones [COUNT]``. Seconds, and the most MB that the process had.

Each way runs in a process of its own on the same SQLite store: listed in our pages, and for comparison all of them
read in one, as the stock job does; then the job itself (dry run, and in earnest on a tenth), and the sweep for orphans
over a bucket of as many folders, of which one in a thousand is a deleted run's.
"""

from __future__ import annotations

import multiprocessing
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import fdb.tuple

from storage.blobs import PAGE, Blob, BlobPage, NamePage, Refusal
from storage.encoding import pack_key, pack_time, span, unpack_key
from storage.jobs.order import JobOrder
from storage.jobs.orphans import sweep_orphans
from storage.jobs.tombstones import clear_tombstones, each_tombstone
from storage.scan import Row, write
from storage.store import Store, open_store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

COUNT = 1_000_000
NOW = 1.8e9


class Cost(NamedTuple):
    """Of one way: what it did, of how many, in how many seconds, and the most MB of memory before it and after."""

    what: str
    number: int
    seconds: float
    before: float
    after: float


class Bucket:
    """A bucket of folders, one in a thousand of a deleted run's."""

    def __init__(self, count: int) -> None:
        self._count = count

    def names(self, after: str = "", *, limit: int = PAGE) -> NamePage:
        start = int(after or 0)
        names = [
            _run(number) if number % 1_000 == 0 else f"{number:032x}f"
            for number in range(start, min(start + limit, self._count))
        ]
        return NamePage(names, str(start + limit), start + limit < self._count)

    def page(self, prefix: str, after: str = "", *, limit: int = PAGE) -> BlobPage:
        del limit
        return BlobPage([Blob(f"{prefix}x", modified=NOW)], after, more=False)

    def find(self, keys: Sequence[str]) -> list[Blob]:
        raise NotImplementedError(keys)

    def delete(self, blobs: Sequence[Blob]) -> list[Refusal]:
        raise NotImplementedError(blobs)

    def close(self) -> None:
        pass


def _run(number: int) -> str:
    return f"{number:032x}"


def _fill(url: str, count: int) -> None:
    value = pack_time(1.7e9)
    rows = (Row("data/indexes", fdb.tuple.pack(("_deleted", _run(number))), value) for number in range(count))
    with open_store(url) as store:
        write(store.engine, rows)


def _list_in_pages(store: Store, _: int) -> int:
    return sum(1 for _ in each_tombstone(store))


def _list_in_one(store: Store, _: int) -> int:
    prefix = store.directories.indexes + pack_key("_deleted")
    pairs = store.engine.read(lambda transaction: transaction.get_range(*span(prefix)).wait())
    return len([(unpack_key(key[len(prefix) :])[0], value) for key, value in pairs])


def _dry_run(store: Store, _: int) -> int:
    order = JobOrder(store, NOW, dry_run=True)
    return clear_tombstones(order, older_than_hours=168, has_blobs=_has_none)["cleared"]


def _clear_some(store: Store, count: int) -> int:
    order = JobOrder(store, NOW, limit=count // 10)
    return clear_tombstones(order, older_than_hours=168, has_blobs=_has_none)["cleared"]


def _sweep(store: Store, count: int) -> int:
    order = JobOrder(store, NOW)
    sent: list[str] = []
    tally = sweep_orphans(order, blobs=Bucket(count), unknown=False, grace_hours=24, send_cleanup=sent.append)
    return tally["folders"]


def _has_none(_: str) -> bool:
    return False


WAYS: dict[str, Callable[[Store, int], int]] = {
    "listed in pages (ours)": _list_in_pages,
    "listed in one (as the stock job)": _list_in_one,
    "job tombstones, dry run": _dry_run,
    "job orphan-blobs, all folders": _sweep,
    "job tombstones, a tenth deleted": _clear_some,
}


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1_024


def _measure(url: str, what: str, count: int, costs: multiprocessing.SimpleQueue[Cost]) -> None:
    with open_store(url) as store:
        began, before = time.perf_counter(), _peak()
        done = WAYS[what](store, count)
        costs.put(Cost(what, done, time.perf_counter() - began, before, _peak()))


def measure(count: int) -> Iterator[Cost]:
    """The cost of each way, with so many tombstones."""
    spawn = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:///{Path(folder) / 'store.db'}"
        _fill(url, count)
        for what in WAYS:
            costs: multiprocessing.SimpleQueue[Cost] = spawn.SimpleQueue()
            process = spawn.Process(target=_measure, args=(url, what, count, costs))
            process.start()
            process.join()
            if process.exitcode:
                sys.exit(f"{what}: exit code {process.exitcode}")
            yield costs.get()


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else COUNT
    print(f"{count:,} tombstones on SQLite")
    for cost in measure(count):
        rate = cost.number / max(cost.seconds, 1e-9)
        memory = f"{cost.after - cost.before:6.0f} MB more (peak {cost.after:,.0f})"
        print(f"  {cost.what:<34} {cost.number:>9,}  {cost.seconds:7.2f} s  {rate:>9,.0f}/s  {memory}")


if __name__ == "__main__":
    main()
