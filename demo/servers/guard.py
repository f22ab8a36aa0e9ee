"""Ends what we started if we die without doing so ourselves, by SIGKILL for example.

One small process beside us holds the reading end of a pipe. When we are gone, whatever the way, the pipe ends, and it
kills the process groups that are still on its list. (Linux's PR_SET_PDEATHSIG would do it without a process, but it
fires when the *thread* that started the child ends, reaches no grandchildren, and other systems lack it.)
"""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import subprocess
import sys
import threading
from typing import Final

_PROGRAM: Final = """
import os, signal, sys
groups = set()
for line in sys.stdin:
    (groups.add if line[0] == "+" else groups.discard)(int(line[1:]))
for group in groups:
    try:
        os.killpg(group, signal.SIGKILL)
    except OSError:
        pass
"""


class Guard:
    """The list of process groups that must not outlive us."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._groups: set[int] = set()
        self._process: subprocess.Popen[str] | None = None

    @property
    def pid(self) -> int | None:
        """Process id of the guarding process, if there is one yet."""
        return self._process.pid if self._process is not None else None

    @property
    def groups(self) -> frozenset[int]:
        """The process groups that nobody has ended yet."""
        return frozenset(self._groups)

    def watch(self, group: int) -> None:
        """Put a process group on the list."""
        with self._lock:
            self._groups.add(group)
            self._tell(f"+{group}")

    def end(self, group: int) -> None:
        """SIGKILL a process group and take it off the list."""
        with contextlib.suppress(ProcessLookupError, PermissionError):  # gone; macOS: only zombies left
            os.killpg(group, signal.SIGKILL)
        with self._lock:
            self._groups.discard(group)
            self._tell(f"-{group}")

    def close(self) -> None:
        """End all that is on the list, and the guarding process. Closing twice is fine."""
        for group in self.groups:
            self.end(group)
        with self._lock:
            process, self._process = self._process, None
            if process is not None:
                process.communicate()

    def _tell(self, line: str) -> None:
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", _PROGRAM],
                stdin=subprocess.PIPE,
                text=True,
                start_new_session=True,  # Ctrl-C in a terminal must not reach it
            )
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()


guard: Final = Guard()
atexit.register(guard.close)
