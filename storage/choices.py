"""What a person chose of the dead letters and cleanups, read page by page in bounded time, however many there are.

A page ends when it is full, or when so many keys were looked at: then it may hold less, and reading goes on from its
position. Positions are text that may come from outside: a wrong one can only make a page begin elsewhere.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from storage.cleanups import CleanupState

if TYPE_CHECKING:
    from collections.abc import Iterator

    from storage.cleanups import Cleanup
    from storage.dead_letters import DeadLetter
    from storage.store import Store

T = TypeVar("T")

SCAN: Final = 5_000  # keys that one page looks at, at most
_READ: Final = 500  # keys of one transaction


@dataclass(frozen=True, slots=True)
class LetterChoice:
    """Which dead letters.

    Attributes:
        reason: only with this reason; empty: any.
        runs: only those whose run id begins so.
        text: only those that have this somewhere in run id, type, reason or error, whatever the case.
    """

    reason: str = ""
    runs: str = ""
    text: str = ""

    def takes(self, letter: DeadLetter) -> bool:
        """Whether a letter is chosen."""
        return (
            (not self.reason or letter.reason == self.reason)
            and letter.run.startswith(self.runs)
            and _has(self.text, letter.run, letter.type, letter.reason, letter.error)
        )


@dataclass(frozen=True, slots=True)
class CleanupChoice:
    """Which cleanups.

    Attributes:
        state: the state they are in.
        runs: only those whose run id begins so.
        text: only those that have this somewhere in run id or error, whatever the case.
    """

    state: CleanupState = CleanupState.FAILED
    runs: str = ""
    text: str = ""

    def takes(self, cleanup: Cleanup) -> bool:
        """Whether a cleanup is chosen."""
        return _has(self.text, cleanup.run, cleanup.error)


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """A page.

    Attributes:
        items: what it holds.
        position: where the next one begins; None if this is the last.
        looked_at: how many were looked at.
        ends: for each item, the position behind it: for who stops in the middle of a page.
    """

    items: list[T]
    position: str | None
    looked_at: int
    ends: list[str]


def read_letters(
    store: Store, choice: LetterChoice, position: str | None = None, *, limit: int, scan: int = SCAN
) -> Page[DeadLetter]:
    """A page of dead letters, by reason or run and then by topic, partition and offset.

    Args:
        store: the open store.
        choice: which ones.
        position: of the page before; None: the first page.
        limit: most letters.
        scan: most keys to look at.
    """
    letters, engine, prefix = store.dead_letters, store.engine, store.ledger.prefix
    begin, end = letters.span(engine, reason=choice.reason or None, runs=choice.runs)
    if position is not None:
        begin = max(begin, prefix + _decode(position) + b"\x00")
    items: list[DeadLetter] = []
    ends: list[str] = []
    looked_at = 0
    read = _READ if choice.text or (choice.reason and choice.runs) else limit + 1
    while begin < end and looked_at < scan:
        some = letters.read(engine, begin, end, limit=min(read, scan - looked_at))
        for number, (key, letter) in enumerate(some.pairs, 1):
            looked_at += 1
            begin = key + b"\x00"
            if letter is not None and choice.takes(letter):
                items.append(letter)
                ends.append(_encode(key[len(prefix) :]))
            if len(items) == limit:
                more = some.more or number < len(some.pairs)
                return Page(items, ends[-1] if more else None, looked_at, ends)
        if not some.more:
            return Page(items, None, looked_at, ends)
    return Page(items, _encode(begin[len(prefix) : -1]) if begin < end else None, looked_at, ends)


def read_cleanups(
    store: Store, choice: CleanupChoice, position: str | None = None, *, limit: int, scan: int = SCAN
) -> Page[Cleanup]:
    """A page of cleanups by run id; arguments as those of `read_letters`."""
    items: list[Cleanup] = []
    ends: list[str] = []
    looked_at = 0
    after = position
    read = _READ if choice.text else limit + 1
    while looked_at < scan:
        some, last = store.cleanups.page(
            store.engine, choice.state, runs=choice.runs, after=after, limit=min(read, scan - looked_at)
        )
        for number, cleanup in enumerate(some, 1):
            looked_at += 1
            if choice.takes(cleanup):
                items.append(cleanup)
                ends.append(cleanup.run)
            if len(items) == limit:
                more = last is not None or number < len(some)
                return Page(items, cleanup.run if more else None, looked_at, ends)
        if last is None:
            return Page(items, None, looked_at, ends)
        after = last
    return Page(items, after, looked_at, ends)


def each_letter(store: Store, choice: LetterChoice) -> Iterator[DeadLetter]:
    """All chosen dead letters, read page by page."""
    page = read_letters(store, choice, limit=_READ)
    yield from page.items
    while page.position is not None:
        page = read_letters(store, choice, page.position, limit=_READ)
        yield from page.items


def _has(text: str, *places: str) -> bool:
    wanted = text.casefold()
    return not wanted or any(wanted in place.casefold() for place in places)


def _encode(key: bytes) -> str:
    return base64.urlsafe_b64encode(key).decode()


def _decode(position: str) -> bytes:
    try:
        return base64.urlsafe_b64decode(position.encode())
    except (binascii.Error, UnicodeEncodeError, ValueError):
        return b""
