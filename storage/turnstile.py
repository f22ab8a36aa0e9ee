"""A place in line before SQLite's write lock, so that several writing processes take turns.

SQLite's lock goes to whoever asks at the right moment: a writer that begins again right after its commit can starve the
others for as long as it is busy. Here a writer first takes a lock of its own (``flock`` on a side file), holds it while
it waits for SQLite's lock, and gives it back once it has that one. So whoever is next in line has no rival, and the
writer that has just committed queues behind it. The kernel gives the lock back when a process dies.
"""

from __future__ import annotations

import fcntl
import os
import random
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

FIRST_PAUSE: Final = 0.000_1  # seconds; a commit takes a few milliseconds
LONGEST_PAUSE: Final = 0.001


def poll(attempt: Callable[[], bool], deadline: float) -> bool:
    """Call ``attempt`` until it is true, with short pauses; False once ``time.monotonic()`` is beyond ``deadline``."""
    pause = FIRST_PAUSE
    while not attempt():
        if time.monotonic() >= deadline:
            return False
        time.sleep(pause * random.uniform(0.5, 1.0))
        pause = min(pause * 1.5, LONGEST_PAUSE)
    return True


class Turnstile:
    """One way in to the line at ``path``. Each connection has its own: the lock is between open files."""

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)

    def try_enter(self) -> bool:
        """Be next in line, if nobody is."""
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def leave(self) -> None:
        """Let the next one be next."""
        fcntl.flock(self._file, fcntl.LOCK_UN)

    def close(self) -> None:
        """Give the file back. Closing twice is fine."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
