"""``python -m demo``: the whole product on this machine, with a worker killed midway, and a check of every value."""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from demo.applied import wait_committed
from demo.deletion import show_deletion
from demo.frontier import Frontier
from demo.matyan import Matyan, prepare_matyan
from demo.report import report
from demo.servers.process import DidNotStart
from demo.stage import GROUP, SQLITE, STORES, TOPIC, Stage
from demo.tally import count_tasks
from demo.terminal import console, say, show_progress, tell
from demo.training import PLANS, train_all

if TYPE_CHECKING:
    from demo.servers.product import WorkerProcess

FOLDER = Path(".demo")
_KILL_AT = 0.5  # of the training
_APPLY_SECONDS = 180.0  # until what Kafka has is applied; a fraction, unless the machine has a lot else to do
_LOOK_SECONDS = 1.0  # between looks whether all is still running


def main() -> int:
    """Run the demo; 0 only if the store holds what was sent."""
    parser = argparse.ArgumentParser(prog="python -m demo", description=__doc__)
    parser.add_argument("--epochs", type=int, default=100, help="of each training; more epochs, more records")
    parser.add_argument("--keep", action="store_true", help="leave everything running afterwards, until Ctrl-C")
    parser.add_argument("--ui", action="store_true", help="the same, with the stock Matyan's user interface on top")
    parser.add_argument("--store", choices=STORES, default=SQLITE, help="what it is kept in; fdb: a real FoundationDB")
    options = parser.parse_args()
    # Python leaves SIGINT alone where whoever started us ignores it, as shells do for what they start with "&".
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir()
    try:
        with ExitStack() as stack:
            return _run(stack, options.epochs, keep=options.keep or options.ui, ui=options.ui, store=options.store)
    except (DidNotStart, TimeoutError) as error:
        console.print("[red]the demo failed:[/red]", end=" ")
        tell(f"{error}\nthe logs are in {FOLDER}/")
        return 1
    except KeyboardInterrupt:
        tell("interrupted; everything that was started is stopped")
        return 130


def _run(stack: ExitStack, epochs: int, *, keep: bool, ui: bool, store: str) -> int:
    folder = FOLDER.resolve()
    python = prepare_matyan() if ui else None
    stage = Stage(folder, stack, flower=keep, store=store)
    matyan = Matyan(stage, folder, python) if python else None
    addresses = _addresses(stage, matyan)
    if addresses:
        tell(addresses)
    frontier = Frontier(stage.kafka.bootstrap_servers, TOPIC, lambda key, body: stage.s3.put([key], body))
    say(f"training {len(PLANS)} small models for {epochs} epochs; what they log goes through Kafka")
    began = time.monotonic()
    _train(frontier, stage.workers[0], epochs)
    frontier.flush()
    say("the training is over; waiting until everything is applied and committed")
    partitions = frontier.partitions()
    committed = wait_committed(
        stage.kafka.bootstrap_servers, GROUP, TOPIC, partitions, frontier.sent.records, seconds=_APPLY_SECONDS
    )
    seconds = time.monotonic() - began
    tally = count_tasks([worker.log for worker in stage.workers])
    wrong = report(frontier.sent, tally, committed, seconds, stage.store_url)
    wrong += show_deletion(stage, frontier)
    if not keep:
        say("stopping the bridge: it drains, commits and leaves the group")
        stage.bridge.stop()
    if wrong:
        for sentence in wrong:
            console.print("[red]WRONG[/red]", end=" ")
            tell(sentence)
        tell(f"the check failed; the logs are in {FOLDER}/")
        return 1
    tell(_next_steps(stage, keep=keep))
    return _keep(stage, matyan) if keep else 0


def _addresses(stage: Stage, matyan: Matyan | None) -> str:
    """Pages that are there while it runs."""
    lines = []
    if stage.flower is not None:
        user, password = stage.flower.login.split(":")
        lines.append(f"   Flower                 {stage.flower.url}   (user {user}, password {password})")
        lines.append(f"   what waits for you     {stage.flower.url}/recovery")
    if matyan is not None:
        lines.append(f"   the user interface     {matyan.ui.url}")
    return "\n".join(lines)


def _train(frontier: Frontier, victim: WorkerProcess, epochs: int) -> None:
    killed = False
    parts = train_all(frontier, epochs)
    for part in show_progress(parts, lambda: f"{frontier.sent.records:>7} records sent"):
        if part >= _KILL_AT and not killed:
            killed = True
            frontier.send_bytes("0" * 32, b'{"type":"log_metric","run_id":"' + b"0" * 32 + b'", a bad record')
            frontier.sent.bad += 1
            victim.kill()
            say(f"SIGKILL to {victim.name} and its children (process group {victim.pid}), in the middle of it")


def _library_path(stage: Stage) -> str:
    """What a command in a shell needs before it to find FoundationDB's client library, where that is not installed."""
    found = {} if stage.cluster is None else stage.cluster.programs.environment()
    return "".join(f"{name}={value} " for name, value in found.items())


def _next_steps(stage: Stage, *, keep: bool) -> str:
    command = f"{_library_path(stage)}.venv/bin/matyan-celery"
    store = f"sqlite:///{FOLDER / 'store.db'}" if stage.cluster is None else stage.store_url
    looks = f"""
   the one bad record     {command} dead-letters list --store {store}
   keys and values        {command} dump --store {store} --directory data/runs | head"""
    if stage.cluster is not None and not keep:
        looks = """
   keys and values        make demo STORE=fdb KEEP=1 leaves FoundationDB running, and says how to look at it"""
    return f"""
what to look at next{looks}
   what the workers did   {FOLDER}/worker-a.log, {FOLDER}/worker-b.log, {FOLDER}/bridge.log
   how it is done         docs/guarantees.md
   the tests              make test"""


def _status_command(stage: Stage) -> str:
    return f"cd {FOLDER} && {_library_path(stage)}../.venv/bin/matyan-celery status"


def _keep(stage: Stage, matyan: Matyan | None) -> int:
    """Leave it running until Ctrl-C; 1 if something of it ends by itself."""
    victim = stage.workers[0]
    say(f"starting {victim.name} again")
    victim.start()
    tell(f"\n{_addresses(stage, matyan)}\n   where all stands       {_status_command(stage)}")
    if matyan is not None:
        tell(f"   log a run of your own  {matyan.client_command()}")
    tell("")
    say("everything goes on running; Ctrl-C ends it")
    try:
        while True:
            for program in stage.programs:
                if not program.is_alive():
                    tell(f"{program.name} has ended with code {program.code}; the end of {program.log}:")
                    tell(program.tail())
                    return 1
            time.sleep(_LOOK_SECONDS)
    except KeyboardInterrupt:
        say("stopping everything; Ctrl-C once more kills it")
        return 0


if __name__ == "__main__":
    sys.exit(main())
