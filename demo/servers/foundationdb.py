"""FoundationDB as processes on 127.0.0.1: one, or several that keep everything twice."""

from __future__ import annotations

import secrets
import signal
import string
import subprocess
from typing import TYPE_CHECKING, Final

from demo.servers.foundationdb_programs import find_foundationdb
from demo.servers.process import DidNotStart, Process, free_port, wait_until

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from types import TracebackType
    from typing import Self

    from demo.servers.foundationdb_programs import FoundationPrograms

_MEMORY: Final = ("--memory", "2GiB", "--cache-memory", "64MiB")
_LOGS: Final = ("--logsize", "2MiB", "--maxlogssize", "20MiB")
_CLI_SECONDS: Final = 10  # that fdbcli waits for an answer
_READY_SECONDS: Final = 90.0
_AVAILABLE: Final = "The database is available"


class CliFailed(Exception):
    """fdbcli did not do what it was asked; the message holds what it said."""


class FoundationProcess(Process):
    """One process of a cluster, always at the same port and on the same data.

    Args:
        programs: where the server is.
        folder: for its data and logs.
        cluster_file: of the cluster that it belongs to.
        name: for messages; its last letter makes it a machine and zone of its own.
        port: where it listens.
        options: further options of ``fdbserver``.
    """

    def __init__(
        self,
        programs: FoundationPrograms,
        folder: Path,
        cluster_file: Path,
        *,
        name: str,
        port: int,
        options: Sequence[str] = (),
    ) -> None:
        self.port = port
        self.data = folder / "data"
        for made in (self.data, folder / "log"):
            made.mkdir(parents=True, exist_ok=True)
        command = [str(programs.program("fdbserver")), "--public-address", f"127.0.0.1:{port}"]
        command += ["--cluster-file", str(cluster_file), "--datadir", str(self.data), "--logdir", str(folder / "log")]
        command += ["--locality-machineid", name[-1], "--locality-zoneid", name[-1], *_MEMORY, *_LOGS, *options]
        super().__init__(name, command, folder / f"{name}.log")

    def pause(self) -> None:
        """Let it stand still, as a machine that hangs, until `go_on`."""
        self.signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Let it run on."""
        self.signal(signal.SIGCONT)


class FoundationCluster:
    """A cluster, made at its first start. Starting twice, stopping twice or unstarted: fine.

    With several processes each is a machine of its own and a coordinator, and everything is kept twice, so that any one
    of three may die.

    Args:
        folder: for data, logs and the cluster file.
        processes: how many.
        options: further options of each ``fdbserver``.

    Attributes:
        programs: what it runs.
        cluster_file: for clients; the servers have one of their own, as on other machines.
        processes: the servers.
    """

    def __init__(self, folder: Path, *, processes: int = 1, options: Sequence[str] = ()) -> None:
        self.programs = find_foundationdb()
        folder.mkdir(parents=True, exist_ok=True)
        self.cluster_file = folder / "fdb.cluster"
        self._servers_file = folder / "servers.cluster"
        self._mode = "single" if processes == 1 else "double"
        self._made = False
        names = [f"foundationdb-{letter}" for letter in string.ascii_lowercase[:processes]]
        ports: set[int] = set()
        while len(ports) < processes:
            ports.add(free_port())
        self.processes = [
            FoundationProcess(self.programs, folder / name, self._servers_file, name=name, port=port, options=options)
            for name, port in zip(names, sorted(ports), strict=True)
        ]
        description = f"matyan:{secrets.token_hex(4)}"
        coordinators = ",".join(f"127.0.0.1:{process.port}" for process in self.processes)
        for path in (self.cluster_file, self._servers_file):
            path.write_text(f"{description}@{coordinators}\n")

    @property
    def url(self) -> str:
        """What our programs open it by."""
        return f"fdb://{self.cluster_file}"

    def start(self) -> None:
        """Start what does not run of it, and wait until the database is available.

        Raises:
            DidNotStart: a process ended, or the database was not available in time; nothing is left running.
        """
        for process in self.processes:
            process.launch()
            process.go_on()
        try:
            if not self._made:
                wait_until(self._is_made, "FoundationDB's database is made", seconds=_READY_SECONDS, pause=0.1)
            wait_until(self._is_there, "FoundationDB is available", seconds=_READY_SECONDS, pause=0.1)
        except TimeoutError as error:
            said = self._try("status")
            self.kill()
            msg = f"{error}; fdbcli says:\n{said}"
            raise DidNotStart(msg) from error

    def stop(self) -> None:
        """End all processes, side by side."""
        for process in self.processes:
            process.go_on()
            if process.is_alive():
                process.signal(signal.SIGTERM)
        for process in self.processes:
            process.stop()

    def kill(self) -> None:
        """SIGKILL to all processes: what the machine's page cache holds stays, nothing else."""
        for process in self.processes:
            process.kill()

    def cli(self, command: str, *, seconds: int = _CLI_SECONDS) -> str:
        """What ``fdbcli`` says to a command, or several with semicolons between them.

        Raises:
            CliFailed: it could not do it, or had no answer in ``seconds``.
        """
        arguments = ["-C", str(self.cluster_file), "--timeout", str(seconds), "--exec", command]
        return self.run("fdbcli", *arguments, seconds=seconds + 20)

    def run(self, name: str, *arguments: str, seconds: float = 60) -> str:
        """What a program of FoundationDB's says.

        Raises:
            CliFailed: it ended badly, or not in ``seconds``.
        """
        command = [str(self.programs.program(name)), *arguments]
        try:
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=seconds, check=False
            )
        except subprocess.TimeoutExpired as error:
            msg = f"{name} {' '.join(arguments)}: not within {seconds:g} s: {error.stdout!r}"
            raise CliFailed(msg) from error
        if done.returncode != 0:
            msg = f"{name} {' '.join(arguments)}: code {done.returncode}: {done.stdout}{done.stderr}"
            raise CliFailed(msg)
        return done.stdout

    def clear(self) -> None:
        """Lose everything that clients have written.

        Raises:
            CliFailed: it does not answer.
        """
        self.cli(r'writemode on; clearrange "" \xff')

    def lock(self) -> None:
        """Lock the database, as an operator does before a restore: nobody reads or writes it any more.

        Raises:
            CliFailed: it does not answer.
        """
        self.cli("lock")

    def unlock(self) -> None:
        """Take the lock away, if there is one; ``fdbcli unlock`` would want a passphrase typed.

        Raises:
            CliFailed: it does not answer.
        """
        self.cli(r"option on LOCK_AWARE; option on ACCESS_SYSTEM_KEYS; writemode on; clear \xff/dbLocked")

    def _is_made(self) -> bool:
        self._check_alive()
        said = self._try(f"configure new {self._mode} ssd")
        self._made = "Database created" in said or "already exists" in said
        return self._made

    def _is_there(self) -> bool:
        self._check_alive()
        return _AVAILABLE in self._try("status minimal")

    def _try(self, command: str) -> str:
        try:
            return self.cli(command)
        except CliFailed as error:
            return str(error)

    def _check_alive(self) -> None:
        for process in self.processes:
            if not process.is_alive():
                self.kill()
                msg = f"{process.name} ended with code {process.code}; the end of {process.log}:\n{process.tail()}"
                raise DidNotStart(msg)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
