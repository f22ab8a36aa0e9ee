"""A command run as a container would run it: process 1 of its own, a root file system that cannot be written.

No container engine is needed: Linux' namespaces do it, by ``unshare``. The network is the machine's.
"""

from __future__ import annotations

import functools
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import psutil

from demo.servers.process import Process, wait_until
from tests.deploy.tools import ROOT

DATA: Final = Path("/mnt")  # where the container sees the folder that it is given
_ENTER: Final = (
    "mount --make-rprivate / && mount --bind {folder} /mnt && mount --bind {root} /srv && mount -o remount,bind,ro / "
    # A checkout below /tmp would be hidden by the container's own.
    "&& mount -t tmpfs tmpfs /tmp && {{ test -d {root} || {{ mkdir -p {root} && mount --bind /srv {root}; }}; }} "
    "&& cd / && exec {program}"
)


@functools.cache
def find_obstacle() -> str | None:
    """Why no command can be run so here; None if it can."""
    script = _ENTER.format(folder="/tmp", root=ROOT, program="sh -c 'test $$ = 1 && ! touch /left && touch /tmp/x'")
    try:
        done = subprocess.run([*_UNSHARE, "sh", "-c", script], capture_output=True, text=True, timeout=30, check=False)
    except OSError as error:
        return str(error)
    return done.stderr.strip() or f"exit code {done.returncode}" if done.returncode != 0 else None


class Container(Process):
    """One command line of an image of ours.

    Args:
        name: for messages, and of its log file.
        command: as the image is given it; programs are found in our environment.
        environment: all that it has, beside the paths of programs.
        folder: for its log; the container may write it, at `DATA`.
    """

    def __init__(self, name: str, command: Sequence[str], environment: Mapping[str, str], folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        script = _ENTER.format(folder=folder, root=ROOT, program='"$@"')
        super().__init__(
            name,
            [*_UNSHARE, "sh", "-c", script, "sh", *command],
            folder / f"{name}.log",
            environment={**dict.fromkeys(os.environ), **_paths(), **environment},
            ready_seconds=90,
        )

    def find_first(self) -> psutil.Process | None:
        """Process 1 of the container, once its program runs there."""
        try:
            for child in psutil.Process(self.pid).children():
                if child.cmdline()[:2] != ["sh", "-c"]:
                    return child
        except psutil.Error:
            pass
        return None

    def terminate(self, seconds: float) -> int:
        """SIGTERM to process 1, as an engine sends it, and its exit code.

        Raises:
            TimeoutError: it did not end in time.
        """
        wait_until(lambda: self.find_first() is not None, f"{self.name} has begun", seconds=30)
        first = self.find_first()
        assert first is not None
        first.send_signal(signal.SIGTERM)
        return self.wait(seconds)

    def run_inside(self, command: Sequence[str], environment: Mapping[str, str]) -> int:
        """Run a command beside process 1, as an exec probe; its exit code."""
        first = self.find_first()
        assert first is not None
        entering = ["nsenter", "--target", str(first.pid), "--mount", "--pid", "--", *command]
        done = subprocess.run(entering, env={**_paths(), **environment}, capture_output=True, timeout=60, check=False)
        return done.returncode


def _paths() -> dict[str, str]:
    """So that commands find the programs of our environment first, and Python finds this checkout."""
    programs = Path(sys.executable).parent
    return {"PATH": f"{programs}:/usr/sbin:/usr/bin:/sbin:/bin", "PYTHONPATH": str(ROOT), "HOME": "/tmp"}


_UNSHARE: Final = ("unshare", "--pid", "--fork", "--kill-child", "--mount", "--mount-proc")
