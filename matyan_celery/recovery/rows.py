"""What the templates show: rows of the tables, and facts as text. Nothing is escaped here; the templates do."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from matyan_celery.commands.printing import show_time
from matyan_celery.recovery.query import Item

if TYPE_CHECKING:
    from storage.cleanups import Cleanup
    from storage.dead_letters import DeadLetter
    from storage.stalls import Stall

_SUMMARY: Final = 140  # characters of an error that stand in its row
_UNITS: Final = ("bytes", "kB", "MB", "GB", "TB")

HEADS: Final = {
    "cleanups": ("Run", "Attempts", "Deleted", "Changed", "Last error", "Task"),
    "letters": ("Run", "Type", "Reason", "Kept", "Last error", "Record"),
    "lanes": ("Lane", "Offsets", "Attempt", "Still since", "Last error", "Task"),
}


@dataclass(frozen=True, slots=True)
class Row:
    """A row of a table.

    Attributes:
        item: what its checkbox stands for.
        name: the first column.
        cells: the columns between that and the error.
        error: the last error, in full.
        last: the last column's text.
        task: the id of the task to link to; empty: none that Flower knows.
    """

    item: Item
    name: str
    cells: tuple[str, ...]
    error: str
    last: str = ""
    task: str = ""

    @property
    def summary(self) -> str:
        """The end of a traceback, or the beginning of any other error."""
        lines = self.error.strip().splitlines() or [""]
        line = lines[-1] if "Traceback" in lines[0] else lines[0]
        return line if len(line) <= _SUMMARY else f"{line[:_SUMMARY]}…"

    @property
    def is_cut(self) -> bool:
        """Whether the summary is less than the error."""
        return self.summary != self.error.strip()


def show_cleanup(entry: Cleanup, *, known: bool) -> Row:
    """A cleanup's row; ``known``: Flower knows its task."""
    cells = (str(entry.attempts), show_deleted(entry), show_when(entry.updated))
    return Row(Item("cleanup", entry.run), entry.run, cells, entry.error, "", entry.task_id if known else "")


def show_letter(letter: DeadLetter) -> Row:
    """A dead letter's row."""
    item = Item("letter", source=letter.source, number=letter.offset)
    again = f", requeued {letter.requeues} times" if letter.requeues else ""
    cells = (letter.type or "-", letter.reason, show_when(letter.time) + again)
    return Row(item, letter.run or "(no run id)", cells, letter.error, f"{letter.source} @ {letter.offset}")


def show_stall(stall: Stall, *, error: str, task: str) -> Row:
    """A stalled lane's row, with what Flower knows of its task."""
    item = Item("lane", source=stall.source, number=stall.lane)
    cells = (f"{stall.first} to {stall.last}", str(stall.attempt), show_when(stall.since))
    unknown = "no worker has told one: look at the queue, the workers, and their logs"
    return Row(item, f"{stall.source} lane {stall.lane}", cells, error or unknown, "", task)


def show_deleted(entry: Cleanup) -> str:
    """How much of a run is gone."""
    return f"{entry.objects:,} objects, {show_size(entry.bytes)}" if entry.objects else "nothing"


def show_size(size: int) -> str:
    """Bytes for reading."""
    value = float(size)
    for unit in _UNITS[:-1]:
        if value < 1_000:
            return f"{value:.3g} {unit}"
        value /= 1_000
    return f"{value:.3g} {_UNITS[-1]}"


def show_when(seconds: float, now: float | None = None) -> str:
    """A time, and how long ago that is on a second line."""
    passed = (time.time() if now is None else now) - seconds
    stamp = f"{show_time(seconds)[:19].replace('T', ' ')} UTC"
    if passed < 0:
        return stamp
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if passed >= length:
            return f"{stamp}\n{passed / length:.0f} {unit} ago"
    return f"{stamp}\n{passed:.0f} s ago"


def show_count(count: int, most: int) -> str:
    """A count that stops at ``most``."""
    return f"{most:,}+" if count > most else f"{count:,}"
