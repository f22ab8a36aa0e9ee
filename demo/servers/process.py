"""A program as a child process that never outlives us: started, stopped, killed, its log kept in a file."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path
    from types import TracebackType
    from typing import Self

_PR_SET_PDEATHSIG: Final = 1
_LIBC: Final = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


class DidNotStart(Exception):
    """A server did not come up; the message holds the end of its log."""


def free_port() -> int:
    """A port on 127.0.0.1 that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_until(found: Callable[[], bool], what: str, *, seconds: float, pause: float = 0.05) -> None:
    """Ask until it is so.

    Raises:
        TimeoutError: it was not so within ``seconds``; names ``what``.
    """
    deadline = time.monotonic() + seconds
    while not found():
        if time.monotonic() > deadline:
            msg = f"{what}: not within {seconds:g} s"
            raise TimeoutError(msg)
        time.sleep(pause)


def _die_with_parent() -> None:
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


class Process:
    """One program in a process group of its own. Starting twice, stopping twice: fine.

    Args:
        name: for messages.
        command: program and arguments.
        log: file that its output is appended to.
        environment: added to ours; a value of None takes the variable away.
        folder: working directory.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        log: Path,
        *,
        environment: Mapping[str, str | None] | None = None,
        folder: Path | None = None,
    ) -> None:
        self.name = name
        self.log = log
        self._command = list(command)
        self._environment = dict(environment or {})
        self._folder = folder
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Process id of the program (also its group's)."""
        if self._child is None:
            msg = f"{self.name} was not started"
            raise RuntimeError(msg)
        return self._child.pid

    @property
    def code(self) -> int | None:
        """Exit code; None while it runs or was never started."""
        return self._child.poll() if self._child is not None else None

    def is_alive(self) -> bool:
        """Whether it runs."""
        return self._child is not None and self._child.poll() is None

    def start(self) -> None:
        """Start it, unless it runs."""
        if self.is_alive():
            return
        merged = {**os.environ, **self._environment}
        environment = {key: value for key, value in merged.items() if value is not None}
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as output:
            self._child = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=self._folder,
                env=environment,
                start_new_session=True,
                preexec_fn=_die_with_parent,  # noqa: PLW1509 - one system call, no locks
            )

    def signal(self, number: int) -> None:
        """Send a signal to the program alone, if it runs."""
        if self._child is not None and self._child.poll() is None:
            self._child.send_signal(number)

    def stop(self, seconds: float = 30.0) -> int | None:
        """SIGTERM, and SIGKILL to the whole group if that takes longer than ``seconds``; the exit code."""
        if self._child is None:
            return None
        if self._child.poll() is None:
            self._child.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._child.wait(seconds)
        self.kill()
        return self._child.returncode

    def kill(self) -> None:
        """SIGKILL to the program and all that it started."""
        if self._child is None:
            return
        with contextlib.suppress(ProcessLookupError):  # all gone
            os.killpg(self._child.pid, signal.SIGKILL)
        self._child.wait()

    def wait(self, seconds: float) -> int:
        """The exit code once it ends.

        Raises:
            TimeoutError: it still runs after ``seconds``.
        """
        wait_until(lambda: not self.is_alive(), f"{self.name} ends", seconds=seconds)
        return self._child.returncode if self._child is not None else 0

    def tail(self, lines: int = 20) -> str:
        """The end of its log."""
        if not self.log.exists():
            return ""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def wait_ready(self, answers: Callable[[], bool], *, seconds: float) -> None:
        """Wait until the server answers.

        Raises:
            DidNotStart: it ended, or did not answer in time.
        """
        try:
            wait_until(lambda: not self.is_alive() or answers(), f"{self.name} answers", seconds=seconds)
        except TimeoutError as error:
            self.kill()
            msg = f"{error}\n{self.tail()}"
            raise DidNotStart(msg) from error
        if not self.is_alive():
            msg = f"{self.name} ended with code {self.code}:\n{self.tail()}"
            raise DidNotStart(msg)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
