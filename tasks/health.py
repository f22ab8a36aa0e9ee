"""Is this process alive, ready, started? Said over HTTP (`tasks.endpoint`) and in a file (`tasks.heartbeat`).

* alive: its loops turn, and none has stood still for minutes though it could move. No dependency is asked, so none that
  is away gets the process restarted.
* ready: what it needs answered not long ago, and it has its share of the work, or stands by for it; and does it.
* started: its loops have turned once.
"""

from __future__ import annotations

import json
import os
import threading
import time
from typing import TYPE_CHECKING, Final, NamedTuple

import structlog

from tasks.heartbeat import WRITE_EVERY, find_hung, heartbeat_file

if TYPE_CHECKING:
    from pathlib import Path

    from tasks.metrics import Role

log = structlog.get_logger("tasks.health")

MAIN: Final = "main"


class _Answer(NamedTuple):
    time: float
    complaint: str | None


class Health:
    """What a process knows of its own health. Safe to use from several threads.

    Args:
        role: what the process is.
        folder: where its heartbeat file goes; made if it is absent.
        stale: seconds without a turn after which a loop counts as hung.
        needs: what must have answered, each within its seconds; infinity: once is enough.
    """

    def __init__(self, role: Role, folder: Path, *, stale: float, needs: dict[str, float]) -> None:
        self._file = heartbeat_file(folder, role)
        self._stale = stale
        self._needs = needs
        self._answers: dict[str, _Answer] = {}
        self._turns: dict[str, float] = {}
        self._standing: dict[str, list[str]] = {}
        self._stuck: dict[str, list[str]] = {}
        self._lock = threading.Lock()
        self._written = 0.0
        self._ended = False
        self._complained = False
        self.role = role
        folder.mkdir(parents=True, exist_ok=True)

    def turn(self, loop: str = MAIN) -> None:
        """A loop has turned."""
        now = time.monotonic()
        self._turns[loop] = now
        if now - self._written >= WRITE_EVERY:
            self.write()

    def end_loop(self, loop: str) -> None:
        """A loop has ended as it should: it need not turn any more."""
        self._turns.pop(loop, None)
        self.stand(loop, [], hung=False)

    def stand(self, loop: str, complaints: list[str], *, hung: bool) -> None:
        """What stands still in a loop that turns, though it could move; ``hung``: for so long that a restart is due."""
        self._standing[loop] = complaints
        self._stuck[loop] = complaints if hung else []

    def answered(self, need: str) -> None:
        """What we need has answered just now."""
        self._answers[need] = _Answer(time.monotonic(), None)

    def failed(self, need: str, complaint: str) -> None:
        """What we need has not answered, or we do not have it any more."""
        self._answers[need] = _Answer(time.monotonic(), complaint)

    def write(self) -> None:
        """Leave a heartbeat in the file. Where it cannot be written that is logged once; the file tells by its age."""
        with self._lock:
            if self._ended:
                return
            self._written = time.monotonic()
            beat = {
                "pid": os.getpid(),
                "stale": self._stale,
                "loops": dict(self._turns),
                "unready": self.find_unready(),
                "stuck": self._find_stuck(),
            }
            new = self._file.with_suffix(".new")
            try:
                new.write_text(json.dumps(beat), encoding="utf-8")
                new.replace(self._file)
            except OSError as error:
                if not self._complained:
                    log.warning("cannot leave a heartbeat", file=str(self._file), error=str(error))
                self._complained = True

    def close(self) -> None:
        """Take the heartbeat away. Closing twice is fine."""
        with self._lock:
            self._ended = True
            self._file.unlink(missing_ok=True)

    # -- the three questions -----------------------------------------------------------------------------------------

    def find_hung(self) -> list[str]:
        """What speaks against being alive, in sentences."""
        return find_hung(self._turns, self._stale) + self._find_stuck()

    def _find_stuck(self) -> list[str]:
        return [complaint for complaints in self._stuck.values() for complaint in complaints]

    def find_unready(self) -> list[str]:
        """What speaks against being ready, in sentences."""
        now = time.monotonic()
        found = []
        for need, fresh in self._needs.items():
            answer = self._answers.get(need)
            if answer is None:
                found.append(f"{need}: no answer yet")
            elif answer.complaint is not None:
                found.append(f"{need}: {answer.complaint}")
            elif now - answer.time > fresh:
                found.append(f"{need}: no answer for {now - answer.time:.0f} s")
        return found + [complaint for complaints in self._standing.values() for complaint in complaints]

    def find_unstarted(self) -> list[str]:
        """What speaks against having started, in sentences."""
        return [] if self._turns else ["no loop has turned yet"]
