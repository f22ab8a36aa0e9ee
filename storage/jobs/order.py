"""What a job is told, and what it says it did."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from storage.store import Store

T = TypeVar("T")

Tally = dict[str, int]
"""How many of what, in the order in which it is told: ``{"found": 5, "cleared": 2}``."""

CHUNK: Final = 200  # entries of one transaction that writes
SCAN: Final = 500  # entries that are only looked at between two signs of life


def _do_nothing(*_: object) -> None:
    pass


@dataclass(frozen=True, slots=True)
class JobOrder:
    """What every job is told.

    Attributes:
        store: the open store.
        now: Unix seconds.
        dry_run: change nothing; say what would be done.
        limit: do so many at most; 0: all.
        tell: given one line for each thing done, for people.
        keep: called at least once a page; renews the job's lock, and raises `LockLost` where it is lost.
    """

    store: Store
    now: float
    dry_run: bool = False
    limit: int = 0
    tell: Callable[[str], None] = _do_nothing
    keep: Callable[[], None] = _do_nothing

    def chunks(self, items: Iterable[T], size: int = CHUNK) -> Iterator[list[T]]:
        """``items``, at most ``limit`` of them, in lists for one transaction each; the lock is kept at each."""
        iterator = iter(items if not self.limit else islice(items, self.limit))
        while chunk := list(islice(iterator, size)):
            self.keep()
            yield chunk

    def scan(self, items: Iterable[T]) -> Iterator[T]:
        """``items``, the lock kept every `SCAN` of them: for those of which few or none may come to a chunk."""
        for number, item in enumerate(items, 1):
            if number % SCAN == 0:
                self.keep()
            yield item


def show_tally(tally: Tally) -> str:
    """A tally in words."""
    return ", ".join(f"{what} {count}" for what, count in tally.items())
