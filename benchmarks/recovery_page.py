"""Seconds a view of Flower's page over many: ``python -m benchmarks.recovery_page [LETTERS [CLEANUPS]]``.

By default 1,000,000 dead letters and 50,000 failed cleanups in SQLite, seen through a real Flower. The reference,
measured in the same run, is what the page would have to do without indexes: read all of them once.
"""

from __future__ import annotations

import re
import sys
import tempfile
import time
import urllib.request
from base64 import b64encode
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlencode

from demo.servers.product import FlowerProcess
from demo.servers.redis import RedisServer
from storage.batch import Record, Source
from storage.dead_letters import DeadLetter
from storage.store import Store, open_store

if TYPE_CHECKING:
    from storage.engine import Transaction

LETTERS: Final = 1_000_000
CLEANUPS: Final = 50_000
VIEWS: Final = 5
_TOGETHER: Final = 2_000
_REASONS: Final = ("invalid", "invalid", "invalid", "unknown_type", "value_too_large")


def main() -> None:
    """Fill a store, look at it, print the table."""
    letters = int(sys.argv[1]) if len(sys.argv) > 1 else LETTERS
    cleanups = int(sys.argv[2]) if len(sys.argv) > 2 else CLEANUPS
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        url = f"sqlite:///{folder / 'store.db'}"
        with open_store(url) as store:
            began = time.perf_counter()
            for start in range(0, letters, _TOGETHER):
                _keep(store, range(start, min(start + _TOGETHER, letters)))
            middle = time.perf_counter()
            for start in range(0, cleanups, _TOGETHER):
                _fail(store, range(start, min(start + _TOGETHER, cleanups)))
            ended = time.perf_counter()
            print(f"{letters:,} dead letters kept in {middle - began:.0f} s, {cleanups:,} cleanups failed in "
                  f"{ended - middle:.0f} s")  # fmt: skip
            reference = _read_all(store)
        print(f"reading all of them once (the reference): {reference:.1f} s")
        with RedisServer(folder / "redis") as redis:
            flower = FlowerProcess(folder / "flower", {"STORAGE_URL": url, "REDIS_URL": redis.url})
            with flower:
                _look(flower, letters, reference)


def _keep(store: Store, numbers: range) -> None:
    def work(transaction: Transaction) -> None:
        for number in numbers:
            source = Source("cluster", "data-ingestion", "topic-id", number % 6)
            run = f"{number % 20_000:032x}"
            reason, value = _REASONS[number % len(_REASONS)], b'{"type":"log_metric","run_id":"%s"}' % run.encode()
            error = f"payload.value: {number} is not what it should be"
            letter = DeadLetter(source, number % 8, number, reason, error, 1.7e9, run, "log_metric", len(value))
            store.dead_letters.keep(transaction, letter, Record(number, 0, run.encode(), value))

    store.engine.transact(work)


def _fail(store: Store, numbers: range) -> None:
    def work(transaction: Transaction) -> None:
        for number in numbers:
            run = f"{number:032x}"
            store.cleanups.ask(transaction, run, source="event", now=1.7e9)
            store.cleanups.begin(transaction, run, task_id=f"task-{number}", token="t", now=1.7e9, lease=9.0)
            error = f"AccessDenied when calling DeleteObjects for {number}"
            store.cleanups.fail(transaction, run, token="t", error=error, tries=1, due=1.7e9, now=1.7e9)

    store.engine.transact(work)


def _read_all(store: Store) -> float:
    began = time.perf_counter()
    for _ in store.dead_letters.each(store.engine):
        pass
    for _ in store.cleanups.each(store.engine):
        pass
    return time.perf_counter() - began


def _look(flower: FlowerProcess, letters: int, reference: float) -> None:
    run = f"{letters // 2 % 20_000:032x}"
    views = {
        "failed cleanups": {"show": "failed"},
        "failed cleanups, last page by run": {"show": "failed", "find": f"{49_990:032x}"[:31]},
        "dead letters": {"show": "letters"},
        "dead letters of a reason": {"show": "letters", "reason": "unknown_type"},
        "dead letters of a run": {"show": "letters", "find": run},
        "dead letters, a text that none has": {"show": "letters", "find": "no such text", "how": "text"},
    }
    print(f"{'view':<36} {'first s':>8} {'next s':>8} {'kB':>6} {'all / next':>11}")
    for name, query in views.items():
        seconds = []
        for _ in range(VIEWS):
            began = time.perf_counter()
            body = _get(flower, query)
            seconds.append(time.perf_counter() - began)
        following = sorted(seconds[1:])[len(seconds[1:]) // 2]
        print(
            f"{name:<36} {seconds[0]:>8.3f} {following:>8.3f} {len(body) / 1_000:>6.0f} {reference / following:>10.0f}x"
        )
    deep = _get(flower, {"show": "letters"})
    for _ in range(20):
        found = re.search(r'href="[^"?]*\?([^"]*)" rel="next"', deep)
        if found is None:
            break
        began = time.perf_counter()
        deep = _get(flower, found.group(1).replace("&amp;", "&"))
        last = time.perf_counter() - began
    print(f"{'dead letters, page 21':<36} {'':>8} {last:>8.3f} {len(deep) / 1_000:>6.0f} {reference / last:>10.0f}x")


def _get(flower: FlowerProcess, query: dict[str, str] | str) -> str:
    text = query if isinstance(query, str) else urlencode(query)
    login = b64encode(flower.login.encode()).decode()
    request = urllib.request.Request(f"{flower.url}/recovery?{text}", headers={"Authorization": f"Basic {login}"})
    with urllib.request.urlopen(request, timeout=300) as answer:
        body: bytes = answer.read()
        return body.decode()


if __name__ == "__main__":
    main()
