"""The second act: two runs are deleted, S3 refuses for one, and a person requeues its cleanup when S3 is well again."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Final

import fdb.tuple

from demo.servers.process import wait_until
from demo.terminal import say, tell
from storage.cleanup import CleanupState
from storage.scan import scan
from storage.store import open_store

if TYPE_CHECKING:
    from demo.frontier import Frontier, Sent
    from demo.stage import Stage
    from storage.cleanup import Cleanup
    from storage.store import Store

_SECONDS: Final = 180.0  # for a cleanup to end in one way or the other
DELETED: Final = 2  # runs, those that began first


def show_deletion(stage: Stage, frontier: Frontier) -> list[str]:
    """Play it; the sentences that say what is wrong afterwards.

    Raises:
        TimeoutError: a cleanup did not end within three minutes.
    """
    sent = frontier.sent
    easy, hard = list(sent.blobs)[:DELETED]
    count = len(sent.blobs[easy]) + len(sent.blobs[hard])
    say(f"two runs are deleted, with {count} blobs in S3; S3 answers SlowDown to all that concerns the second")
    stage.fault_proxy.refuse(f"{hard}/")
    frontier.delete(easy)
    frontier.delete(hard)
    frontier.flush()
    with open_store(stage.settings["STORAGE_URL"]) as store:
        _wait_state(store, easy, CleanupState.DONE)
        _wait_state(store, hard, CleanupState.FAILED)
        say("the first one's blobs are gone; the second one's cleanup has used up its tries, and waits for a person")
        _command(stage, "cleanups", "list", "--all")
        stage.fault_proxy.relent()
        say("S3 is well again; a person requeues what has failed (or does it on Flower's page)")
        _command(stage, "cleanups", "requeue", "--all")
        _wait_state(store, hard, CleanupState.DONE)
        _command(stage, "cleanups", "list", "--all")
        wrong = _find_wrong(stage, store, sent, {easy, hard})
    if not wrong:
        others = sum(len(blobs) for run, blobs in sent.blobs.items() if run not in {easy, hard})
        say(f"the {count} blobs and both runs are gone; the {others} blobs of the other runs are all there")
    return wrong


def _wait_state(store: Store, run: str, state: CleanupState) -> None:
    def is_so() -> bool:
        entry = _read(store, run)
        return entry is not None and entry.state is state

    wait_until(is_so, f"the cleanup of run {run} is {state}", seconds=_SECONDS, pause=0.1)


def _read(store: Store, run: str) -> Cleanup | None:
    return store.engine.read(lambda transaction: store.cleanups.get(transaction, run))


def _command(stage: Stage, *arguments: str) -> None:
    """Show a command, run it, show what it says.

    Raises:
        subprocess.CalledProcessError: it ended badly.
    """
    tell(f"   {stage.folder.name}$ ../.venv/bin/matyan-celery {' '.join(arguments)}")
    done = subprocess.run(
        [sys.executable, "-m", "matyan_celery", *arguments],
        env=stage.environment(),
        cwd=stage.folder,
        capture_output=True,
        text=True,
        check=False,
    )
    for line in (done.stdout + done.stderr).splitlines():
        tell(f"   {line}")
    done.check_returncode()


def _find_wrong(stage: Stage, store: Store, sent: Sent, deleted: set[str]) -> list[str]:
    """Compare S3 and the store with what should be left."""
    wrong = []
    wanted = {key for run, blobs in sent.blobs.items() if run not in deleted for key in blobs.values()}
    present = set(stage.s3.keys())
    if wanted != present:
        wrong.append(f"blobs missing: {sorted(wanted - present)[:5]}; blobs too many: {sorted(present - wanted)[:5]}")
    left = {fdb.tuple.unpack(row.key)[0] for row in scan(store.engine, "data/runs")} & deleted
    wrong += [f"run {run} was deleted and is still in the store" for run in sorted(left)]
    for run in sorted(deleted):
        entry = _read(store, run)
        if entry is None or entry.objects != len(sent.blobs[run]):
            wrong.append(f"the cleanup of run {run} should have deleted {len(sent.blobs[run])} blobs: {entry}")
    return wrong
