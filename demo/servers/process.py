"""A program as a child process that never outlives us: started, stopped, killed, its log kept in a file."""

from __future__ import annotations

import contextlib
import os
import random
import socket
import subprocess
import time
from typing import TYPE_CHECKING, Final

from demo.servers.guard import guard

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path
    from types import TracebackType
    from typing import Self

# Below the ports that systems give to outgoing connections (Linux from 32768, others from 49152): a server that is down
# for a moment would lose such a port to one of them, and a client that keeps trying it can even connect to itself.
_PORTS: Final = range(15_000, 32_000)
_RANDOM: Final = random.SystemRandom()  # unseeded: several test runs may share a machine


class DidNotStart(Exception):
    """A server did not come up; the message holds the end of its log."""


def free_port() -> int:
    """A port on 127.0.0.1 that nobody listens on now.

    Raises:
        DidNotStart: a hundred ports in a row were taken.
    """
    for _ in range(100):
        port = _RANDOM.choice(_PORTS)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    msg = f"no free port on 127.0.0.1 between {_PORTS.start} and {_PORTS.stop}"
    raise DidNotStart(msg)


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


class Process:
    """One program in a process group of its own. Starting twice, stopping twice or unstarted: fine.

    A subclass says in `is_ready` how to tell that it is up.

    Args:
        name: for messages.
        command: program and arguments.
        log: file that its output is appended to.
        environment: added to ours; a value of None takes the variable away.
        folder: working directory.
        ready_seconds: how long `start` waits for `is_ready`.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        log: Path,
        *,
        environment: Mapping[str, str | None] | None = None,
        folder: Path | None = None,
        ready_seconds: float = 30.0,
    ) -> None:
        self.name = name
        self.log = log
        self._command = list(command)
        self._environment = dict(environment or {})
        self._folder = folder
        self._ready_seconds = ready_seconds
        self._child: subprocess.Popen[bytes] | None = None
        self._group: int | None = None  # while something of it may run
        self._log_start = 0

    @property
    def pid(self) -> int:
        """Process id of the program, also its group's.

        Raises:
            RuntimeError: it was never started.
        """
        if self._child is None:
            msg = f"{self.name} was not started"
            raise RuntimeError(msg)
        return self._child.pid

    @property
    def code(self) -> int | None:
        """Exit code, minus the signal's number where one ended it; None while it runs or was never started."""
        return self._child.poll() if self._child is not None else None

    def is_alive(self) -> bool:
        """Whether it runs."""
        return self._child is not None and self._child.poll() is None

    def is_ready(self) -> bool:
        """Whether it is up and answers."""
        return self.is_alive()

    def start(self) -> None:
        """Start it, unless it runs, and wait until it is ready.

        Raises:
            DidNotStart: it ended, or was not ready in time; nothing of it is left running.
        """
        self.launch()
        try:
            wait_until(
                lambda: not self.is_alive() or self.is_ready(), f"{self.name} is ready", seconds=self._ready_seconds
            )
        except TimeoutError as error:
            self.kill()
            msg = f"{error}; the end of {self.log}:\n{self.tail()}"
            raise DidNotStart(msg) from error
        if not self.is_alive():
            msg = f"{self.name} ended with code {self.code}; the end of {self.log}:\n{self.tail()}"
            raise DidNotStart(msg)

    def launch(self) -> None:
        """Start it, unless it runs, and wait for nothing.

        Raises:
            DidNotStart: there is no such program.
        """
        if self.is_alive():
            return
        self.kill()  # children of a program that ended by itself
        merged = {**os.environ, **self._environment}
        environment = {key: value for key, value in merged.items() if value is not None}
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as output:
            self._log_start = output.tell()
            try:
                self._child = subprocess.Popen(
                    self._command,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    cwd=self._folder,
                    env=environment,
                    start_new_session=True,
                )
            except OSError as error:
                msg = f"{self.name}: {error}"
                raise DidNotStart(msg) from error
        self._group = self._child.pid
        guard.watch(self._group)

    def signal(self, number: int) -> None:
        """Send a signal to the program alone, if it runs."""
        if self._child is not None:
            self._child.send_signal(number)

    def stop(self, seconds: float = 30.0) -> int | None:
        """SIGTERM, SIGKILL to the group if that takes longer than ``seconds``; the exit code."""
        if self.is_alive() and self._child is not None:
            self._child.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._child.wait(seconds)
        self.kill()
        return self.code

    def kill(self) -> None:
        """SIGKILL to the program and all that it started."""
        if self._child is not None and self._group is not None:
            guard.end(self._group)
            self._group = None
            self._child.wait()

    def restart(self) -> None:
        """Stop it and start it again."""
        self.stop()
        self.start()

    def wait(self, seconds: float) -> int:
        """The exit code once it ends.

        Raises:
            TimeoutError: it still runs after ``seconds``; holds the end of its log.
            RuntimeError: it was never started.
        """
        wait_until(lambda: not self.is_alive(), f"{self.name} (process {self.pid}) ends", seconds=seconds)
        self.kill()
        assert self.code is not None
        return self.code

    def output(self) -> str:
        """What it has written since its last start."""
        if not self.log.exists():
            return ""
        with self.log.open("rb") as log:
            log.seek(self._log_start)
            return log.read().decode(errors="replace")

    def tail(self, lines: int = 20) -> str:
        """The last lines that it has written since its last start."""
        return "\n".join(self.output().splitlines()[-lines:])

    def wait_output(self, text: str, seconds: float) -> None:
        """Wait until it has written ``text``, since its last start.

        Raises:
            TimeoutError: it ended or the time passed before that; holds the end of its log.
        """
        try:
            wait_until(
                lambda: text in self.output() or not self.is_alive(), f"{self.name} says {text!r}", seconds=seconds
            )
        except TimeoutError as error:
            msg = f"{error}; the end of {self.log}:\n{self.tail()}"
            raise TimeoutError(msg) from error
        if text not in self.output():
            msg = f"{self.name} ended with code {self.code} before it said {text!r}:\n{self.tail()}"
            raise TimeoutError(msg)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
