"""Faults that a test plants in a store of the double."""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import dataclass, field

from .codes import FDBError


@dataclass(frozen=True)
class Fault:
    """What happens to a commit: it fails with ``code``, and is done all the same if ``committed``."""

    code: int
    committed: bool = False


@dataclass
class Faults:
    """Planned faults: the next commits and reads take one each from the left, None is no fault.

    Commits are counted where they write something.
    """

    commits: deque[Fault | None] = field(default_factory=deque)
    reads: deque[int | None] = field(default_factory=deque)
    commits_begun: int = 0
    _here: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self._here.set()

    def leave(self) -> None:
        """From now on the store does not answer."""
        self._here.clear()

    def come_back(self) -> None:
        """It answers again."""
        self._here.set()

    def wait_for_store(self, deadline: float | None) -> None:
        """Returns at once, or when the store is back; raises 1031 at the transaction's ``deadline``."""
        if self._here.is_set():
            return
        if deadline is None:
            msg = "the store is away and this transaction has no timeout: it would wait for ever"
            raise AssertionError(msg)
        if not self._here.wait(max(0.0, deadline - time.monotonic())):
            raise FDBError(1031)

    def take_read(self) -> None:
        code = self.reads.popleft() if self.reads else None
        if code is not None:
            raise FDBError(code)

    def take_commit(self) -> Fault | None:
        self.commits_begun += 1
        return self.commits.popleft() if self.commits else None
