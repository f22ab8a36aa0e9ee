"""What a test session has left running: processes and threads that somebody forgot to stop."""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass
from pathlib import Path

from demo.servers.guard import guard

_PROC = Path("/proc")


@dataclass(frozen=True)
class LivingProcess:
    pid: int
    parent: int
    group: int
    command: str

    def __str__(self) -> str:
        return f"process {self.pid}: {self.command}"


def living_processes() -> dict[int, LivingProcess]:
    """All processes but zombies, by id. Linux; empty elsewhere."""
    found = {}
    for folder in _PROC.glob("[0-9]*"):
        try:
            # "pid (name) state parent group ...": the name may hold spaces and parentheses.
            state, parent, group = (folder / "stat").read_text().rpartition(")")[2].split()[:3]
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        except OSError:  # it ended while we looked
            continue
        if state not in "ZX":
            pid = int(folder.name)
            found[pid] = LivingProcess(pid, int(parent), int(group), command)
    return found


def our_processes() -> set[LivingProcess]:
    """Our children, and whatever is left in the process groups that we started and did not end."""
    return {
        process
        for process in living_processes().values()
        if (process.parent == os.getpid() or process.group in guard.groups)
        and process.pid != guard.pid
        # Python's own, one a session, ends with us.
        and "multiprocessing.resource_tracker" not in process.command
    }


def left_running(folder: Path) -> list[str]:
    """The processes that work in a folder or name it: what a program that used it has left behind."""
    here = str(folder)
    found = living_processes().values()
    return [str(process) for process in found if here in process.command or _folder_of(process.pid).startswith(here)]


def _folder_of(pid: int) -> str:
    try:
        return str((_PROC / str(pid) / "cwd").readlink())
    except OSError:  # it has ended, or is not ours to ask
        return ""


def our_threads() -> set[threading.Thread]:
    """Threads made by Python code. (Python gives a dummy to each C thread that calls it, and keeps it for ever.)

    FoundationDB's client has one for its network, which cannot be ended before the process.
    """
    return {
        thread
        for thread in threading.enumerate()
        if not isinstance(thread, threading._DummyThread) and thread.name != "fdb-network-thread"
    }
