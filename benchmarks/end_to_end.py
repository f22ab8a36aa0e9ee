"""Records a second through real Kafka, bridge, Redis and prefork workers: ``python -m benchmarks.end_to_end``.

Records of ten runs wait in Kafka; the clock runs from the first batch applied to the last, by the workers' own logs.
The reference, measured in the same run, is the same code without Kafka, bridge and Redis, one record a transaction.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from contextlib import ExitStack
from itertools import islice
from pathlib import Path

import psutil

from benchmarks.apply import metrics
from demo.applied import wait_committed
from demo.frontier import Frontier
from demo.servers.foundationdb import FoundationCluster
from demo.servers.kafka import KafkaServer
from demo.servers.product import BridgeProcess, WorkerProcess
from demo.servers.redis import RedisServer
from demo.tally import count_tasks
from storage.replay import Replay
from storage.store import open_store

TOPIC, GROUP, PARTITIONS = "data-ingestion", "ingestion-workers", 6
REFERENCE = 3_000


def _cpu(pid: int) -> float:
    """Seconds of CPU of a process and its children."""
    process = psutil.Process(pid)
    times = [one.cpu_times() for one in (process, *process.children(recursive=True))]
    return float(sum(one.user + one.system for one in times))


def _reference(store_url: str) -> float:
    """Records a second, one by one."""
    with open_store(store_url) as store:
        replay = Replay(store)
        began = time.monotonic()
        for record in islice(metrics(), REFERENCE):
            replay.apply([record])
        seconds = time.monotonic() - began
        replay.finish()
    return REFERENCE / seconds


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=100_000)
    parser.add_argument("--concurrency", type=int, default=2, help="children of the worker")
    parser.add_argument("--store", choices=("sqlite", "fdb"), default="sqlite", help="fdb: a real FoundationDB")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        redis = stack.enter_context(RedisServer(folder / "redis"))
        kafka = stack.enter_context(KafkaServer(folder / "kafka"))
        kafka.create_topic(TOPIC, PARTITIONS)
        cluster = None
        if options.store == "fdb":
            cluster = stack.enter_context(FoundationCluster(folder / "foundationdb"))
            cluster.programs.load()
        settings = {
            "STORAGE_URL": f"sqlite:///{folder / 'store.db'}" if cluster is None else cluster.url,
            "REDIS_URL": redis.url,
            "KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
        }
        bridge = stack.enter_context(BridgeProcess(folder, settings))
        bridge.wait_output("partition taken over", 60)  # nothing to read yet: this is what starting costs
        start = _cpu(bridge.pid)
        bridge.stop()
        frontier = Frontier(kafka.bootstrap_servers, TOPIC)
        for _, _, record in islice(metrics(), options.records):
            frontier.send_bytes((record.key or b"").decode(), record.value or b"")
        frontier.flush()
        worker = stack.enter_context(WorkerProcess(folder, settings, concurrency=options.concurrency))
        idle = _cpu(worker.pid)
        bridge.start()
        wait_committed(kafka.bootstrap_servers, GROUP, TOPIC, range(PARTITIONS), options.records, seconds=300)
        bridge_cpu, worker_cpu = _cpu(bridge.pid) - start, _cpu(worker.pid) - idle
        bridge.stop()
        worker.stop()
        tally = count_tasks([worker.log])
        if cluster is not None:
            cluster.clear()
        reference = _reference(f"sqlite:///{folder / 'reference.db'}" if cluster is None else cluster.url)
        rate = tally.applied / tally.seconds
    count = options.records
    name = "SQLite" if cluster is None else "FoundationDB"
    print(f"end to end, {count} log_metric of 10 runs, {options.concurrency} worker children, {name} store")
    print(f"  {rate:,.0f} records/s, {tally.applied / tally.batches:.0f} records a task, {tally.batches} tasks")
    bridge_share, worker_share = bridge_cpu / count * 1e6, worker_cpu / count * 1e6
    print(f"  CPU a record: bridge {bridge_share:.1f} us, workers {worker_share:.1f} us")
    print(f"  one record a transaction, without Kafka and Redis: {reference:,.0f} records/s")
    print(f"  ratio {rate / reference:.1f}")


if __name__ == "__main__":
    main()
