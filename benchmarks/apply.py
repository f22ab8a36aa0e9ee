"""CPU per record in `storage.apply`, decoding included: ``python -m benchmarks.apply``.

Batches of 1,000 records of 10 runs go through `BatchApplier`, as in the task, on the in-memory double of FoundationDB
and on SQLite; with ``--store fdb`` on a real FoundationDB too, where the client's network thread counts. The reference,
measured in the same run, is the same records applied one to a transaction.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from demo.servers.foundationdb import FoundationCluster
from storage.batch import Record
from storage.recorded import Recorded
from storage.replay import Replay
from tests.engines import CLUSTER_VARIABLE, open_store_kind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

RECORDS = 20_000
BATCH = 1_000
REFERENCE = 2_000
RUNS = 10


def _metric(number: int) -> dict[str, object]:
    return {
        "name": f"loss_{number % 3}",
        "value": 1.0 / (number + 1),
        "step": number // RUNS,
        "epoch": number // 1_000,
        "context": {"subset": "train"},
        "dtype": "float",
        "client_datetime": "2026-01-01T00:00:00.000001+00:00",
    }


def _hparams(number: int) -> dict[str, object]:
    return {
        "value": {
            "hparams": {
                "lr": 0.1,
                "batch": 32,
                "epochs": number,
                "name": "mlp",
                "nesterov": True,
                "decay": 1e-4,
                "seed": number,
                "layers": [64, 64],
                "optimizer": {"name": "sgd", "momentum": 0.9},
                "none": None,
            }
        }
    }


def _line(number: int) -> dict[str, object]:
    return {
        "line": f"epoch {number}: loss 0.123456 accuracy 0.98765 lr 0.0001 took 12.3 s of 100.0 s",
        "step": number // RUNS,
    }


KINDS: dict[str, tuple[str, Callable[[int], dict[str, object]]]] = {
    "log_metric": ("log_metric", _metric),
    "log_hparams, 12 leaves": ("log_hparams", _hparams),
    "terminal line": ("log_terminal_line", _line),
}


def _records(kind: str, make: Callable[[int], dict[str, object]], count: int) -> Iterator[Recorded]:
    for number in range(count):
        run = f"{number % RUNS:032x}"
        envelope = {"type": kind, "run_id": run, "timestamp": "2026-01-01T00:00:00.123456Z", "payload": make(number)}
        value = json.dumps(envelope, separators=(",", ":")).encode()
        yield Recorded("data-ingestion", 0, Record(number, 0, run.encode(), value))


def metrics() -> Iterator[Recorded]:
    """A hundred thousand metrics, and more."""
    return _records("log_metric", _metric, 10_000_000)


def _measure(engine: str, kind: str, make: Callable[[int], dict[str, object]], count: int, size: int) -> float:
    """Microseconds of CPU a record."""
    records = list(_records(kind, make, count))
    with tempfile.TemporaryDirectory() as folder, open_store_kind(engine, Path(folder)) as store:
        replay = Replay(store)
        began = time.process_time()
        for start in range(0, count, size):
            result = replay.apply(records[start : start + size])
            assert not result.dead, result.dead
        spent = time.process_time() - began
        replay.finish()
    return spent / count * 1e6


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--store", choices=("fdb",), help="a store more: a real FoundationDB")
    options = parser.parse_args()
    with ExitStack() as stack:
        engines = ["double", "sqlite"]
        if options.store == "fdb":
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            cluster = stack.enter_context(FoundationCluster(folder))
            cluster.programs.load()
            os.environ[CLUSTER_VARIABLE] = str(cluster.cluster_file)
            engines.append("cluster")
        _print_all(engines)


def _print_all(engines: list[str]) -> None:
    print(f"CPU a record in apply, decoding included; batches of {BATCH}, {RUNS} runs, {RECORDS} records")
    for title, (kind, make) in KINDS.items():
        for engine in engines:
            batched = _measure(engine, kind, make, RECORDS, BATCH)
            single = _measure(engine, kind, make, REFERENCE, 1)
            ratio = f"one by one {single:7.1f} us   ratio {single / batched:5.1f}"
            print(f"  {title:24} {engine:7} {batched:7.1f} us   {ratio}")


if __name__ == "__main__":
    main()
