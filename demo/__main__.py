"""``python -m demo``: the whole product on this machine, with a worker killed midway, and a check of every value."""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from demo.applied import wait_committed
from demo.check import compare
from demo.frontier import Frontier
from demo.servers.kafka import MockKafka, choose_kafka
from demo.servers.process import DidNotStart
from demo.servers.product import BridgeProcess, WorkerProcess
from demo.servers.redis import RedisServer
from demo.tally import Tally, count_tasks
from demo.training import PLANS, train_all
from storage.store import open_store

if TYPE_CHECKING:
    from collections.abc import Iterator

    from demo.servers.kafka import Kafka

TOPIC, GROUP = "data-ingestion", "ingestion-workers"
PARTITIONS = 6
FOLDER = Path(".demo")
_KILL_AT = 0.5  # of the training
_SLOWEST_LINE = 2.0  # seconds between plain lines of progress

console = Console(highlight=False)


def say(text: str) -> None:
    """What is happening now."""
    console.print(f"[bold]==[/bold] {text}", soft_wrap=True)


def main() -> int:
    """Run the demo; 0 only if the store holds what was sent."""
    parser = argparse.ArgumentParser(prog="python -m demo", description=__doc__)
    parser.add_argument("--epochs", type=int, default=100, help="of each training; more epochs, more records")
    options = parser.parse_args()
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir()
    try:
        with ExitStack() as stack:
            return _run(stack, options.epochs)
    except (DidNotStart, TimeoutError) as error:
        console.print(f"[red]the demo failed:[/red] {error}\nthe logs are in {FOLDER}/", markup=True)
        return 1
    except KeyboardInterrupt:
        console.print("interrupted; everything that was started is stopped")
        return 130


def _run(stack: ExitStack, epochs: int) -> int:
    folder = FOLDER.resolve()
    say("starting Redis, an embedded server")
    redis = stack.enter_context(RedisServer(folder / "redis"))
    kafka = _start_kafka(folder / "kafka")
    stack.callback(kafka.stop)
    kafka.create_topic(TOPIC, kafka.fixed_partitions or PARTITIONS)
    store_url = f"sqlite:///{FOLDER / 'store.db'}"
    settings = {
        "STORAGE_URL": f"sqlite:///{folder / 'store.db'}",
        "REDIS_URL": redis.url,
        "KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
        "STALL_SECONDS": "2",
    }
    say("starting the bridge and two Celery workers on a SQLite store")
    bridge = stack.enter_context(BridgeProcess(folder, settings))
    workers = [stack.enter_context(WorkerProcess(folder, settings, name=f"worker-{name}")) for name in "ab"]
    frontier = Frontier(kafka.bootstrap_servers, TOPIC)
    say(f"training {len(PLANS)} small models for {epochs} epochs; what they log goes through Kafka")
    began = time.monotonic()
    _train(frontier, workers[0], epochs)
    frontier.flush()
    say("the training is over; waiting until everything is applied and committed")
    sent = frontier.sent.records
    committed = wait_committed(kafka.bootstrap_servers, GROUP, TOPIC, frontier.partitions(), sent, seconds=60)
    seconds = time.monotonic() - began
    say("stopping the bridge: it drains, commits and leaves the group")
    bridge.stop()
    for worker in workers:
        worker.stop()
    return _report(frontier, count_tasks([worker.log for worker in workers]), committed, seconds, store_url)


def _start_kafka(folder: Path) -> Kafka:
    """A real broker, or where that does not come up (Java is too old, for example), the mock cluster."""
    kafka, words = choose_kafka(folder)
    say(f"starting Kafka: {words}")
    try:
        kafka.start()
    except DidNotStart as error:
        say(f"it did not start ({str(error).splitlines()[0]}); librdkafka's mock cluster in its place")
        kafka = MockKafka()
    return kafka


def _train(frontier: Frontier, victim: WorkerProcess, epochs: int) -> None:
    killed = False
    for part in _show(train_all(frontier, epochs), frontier):
        if part >= _KILL_AT and not killed:
            killed = True
            frontier.send_bytes("0" * 32, b'{"type":"log_metric","run_id":"' + b"0" * 32 + b'", a bad record')
            frontier.sent.bad += 1
            victim.kill()
            say(f"SIGKILL to {victim.name} and its children (process group {victim.pid}), in the middle of it")


def _show(parts: Iterator[float], frontier: Frontier) -> Iterator[float]:
    """Progress: a bar on a terminal, a line now and then elsewhere."""
    if console.is_terminal:
        columns = (TextColumn("   {task.description}"), BarColumn(), TimeElapsedColumn())
        with Progress(*columns, console=console) as progress:
            task = progress.add_task("", total=1.0)
            for part in parts:
                progress.update(task, completed=part, description=f"{frontier.sent.records:>7} records sent")
                yield part
        return
    last = time.monotonic()
    for part in parts:
        if time.monotonic() - last >= _SLOWEST_LINE:
            last = time.monotonic()
            console.print(f"   {frontier.sent.records} records sent, {part:.0%} of the training done")
        yield part


def _report(frontier: Frontier, tally: Tally, committed: int, seconds: float, store_url: str) -> int:
    sent = frontier.sent
    say("comparing every sequence in the store with what was sent")
    with open_store(store_url) as store:
        wrong = compare(sent, store.engine)
        letters = list(store.dead_letters.each(store.engine))
    if len(letters) != sent.bad:
        wrong.append(f"{len(letters)} dead letters, {sent.bad} bad records were sent")
    table = Table(title="what happened")
    table.add_column("what")
    table.add_column("count", justify="right")
    points = sum(len(steps) for steps in sent.points.values())
    for name, value in (
        ("records produced", sent.records),
        ("records applied", committed - len(letters)),
        ("records dead-lettered", len(letters)),
        ("duplicates turned away", tally.covered),
        ("batches", tally.batches),
        ("records a batch", round(sent.records / max(tally.batches, 1))),
        ("sequences compared", len(sent.points)),
        ("points compared", points),
    ):
        table.add_row(name, f"{value:,}")
    table.add_row("records per second, training included", f"{sent.records / seconds:,.0f}")
    console.print(table)
    for sentence in wrong:
        console.print(f"[red]WRONG[/red] {sentence}")
    if wrong:
        console.print(f"the check failed; the logs are in {FOLDER}/")
        return 1
    say(f"all {points:,} points are there once, in order, with their values: nothing lost, nothing twice")
    console.print(
        f"""
what to look at next
   the one bad record     .venv/bin/matyan-celery dead-letters list --store {store_url}
   keys and values        .venv/bin/matyan-celery dump --store {store_url} --directory data/runs | head
   what the workers did   {FOLDER}/worker-a.log, {FOLDER}/worker-b.log, {FOLDER}/bridge.log
   how it is done         docs/guarantees.md
   the tests              make test""",
        soft_wrap=True,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
