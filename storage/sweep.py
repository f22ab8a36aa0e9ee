"""Delete blobs page by page, several requests in flight, until nothing is left or time is up.

    a pass: list a page ─▶ may it go? ─▶ delete it (in flight) ─▶ list the next ...
    a pass that found something and left nothing behind ─▶ another pass, from the beginning
    a pass from the beginning to the store's word that nothing follows, without a key on any page ─▶ GONE

What the store asks patience for is tried again here for some seconds; what it refuses is counted and passed over, so
that keys which cannot be deleted do not keep the others from going, nor a pass from ending.
"""

from __future__ import annotations

import random
import time
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

from storage.errors import BlobsAway
from storage.listing import Headway

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Self

    from storage.blobs import Blob, BlobPage, BlobStore, Refusal

T = TypeVar("T")

PASSES: Final = 5  # passes of one try that may find something; then it seems to come back
_MARK: Final = "\0"  # no position of a store begins with it, but those of a listing that is empty up to there
_TRIES: Final = 6  # of one request, in some six seconds
_FIRST_WAIT: Final = 0.2  # seconds; doubles


class End(Enum):
    """How a sweep ended."""

    GONE = "gone"
    REFUSED = "refused"  # the pass has ended, and some keys could not be deleted
    COMES_BACK = "comes back"  # deleted again and again, and still there
    TIME_UP = "time is up"


@dataclass(slots=True)
class Tally:
    """What a sweep has done so far.

    Attributes:
        objects: deleted.
        bytes: their size.
        position: where the next page begins (see `_Place`); all before it is dealt with.
        refused: keys of this pass that could not be deleted.
        error: the last of them, in words.
        passes: passes that have ended and had found something.
        pages: pages dealt with.
    """

    objects: int = 0
    bytes: int = 0
    position: str = ""
    refused: int = 0
    error: str = ""
    passes: int = 0
    pages: int = 0


class _Flying(NamedTuple):
    """A page whose deletion is in flight, or an empty one behind such pages."""

    blobs: Sequence[Blob]
    end: str  # a position
    answer: Future[list[Refusal]]


class _Place(NamedTuple):
    """What a position says.

    Attributes:
        end: the store's own: where the next page begins.
        clean: the pass began at the beginning, and has found nothing yet.
        empty: pages in a row without anything on them.
    """

    end: str
    clean: bool
    empty: int

    @classmethod
    def read(cls, position: str) -> _Place:
        """Read it. One without the second part, as most are, is the store's alone."""
        if not position.startswith(_MARK):
            return cls(position, clean=not position, empty=0)
        kind, empty, end = position[1:].split(_MARK, 2)
        return cls(end, kind == "clean", int(empty))

    def __str__(self) -> str:
        if not self.clean and not self.empty and not self.end.startswith(_MARK):
            return self.end
        return f"{_MARK}{'clean' if self.clean else 'found'}{_MARK}{self.empty}{_MARK}{self.end}"


class Sweep:
    """One sweep. Use it as a context manager: leaving it waits for the requests in flight.

    Args:
        blobs: the store.
        requests: delete requests in flight, at most.
        check: asked right before each page is deleted; raises to stop the sweep.
        note: told after each page.
        tally: where an earlier execution of the same pass has stopped.
    """

    def __init__(
        self,
        blobs: BlobStore,
        *,
        requests: int,
        check: Callable[[], None],
        note: Callable[[Tally], None],
        tally: Tally | None = None,
    ) -> None:
        self.tally = tally if tally is not None else Tally()
        self._blobs = blobs
        self._requests = requests
        self._check = check
        self._note = note
        self._pool = ThreadPoolExecutor(requests, thread_name_prefix="delete")
        self._flying: deque[_Flying] = deque()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def delete_prefix(self, prefix: str, *, deadline: float) -> End:
        """Delete everything below a prefix.

        Args:
            prefix: what all keys begin with.
            deadline: of `time.monotonic`; no page is begun after it.

        Raises:
            BlobsAway: the store does not answer, or asks for more patience than we have.
            BlobsRefused: it said no to a whole request.
            Exception: what ``check`` or ``note`` raised.
        """
        tally = self.tally
        while tally.passes < PASSES:
            place = _Place.read(tally.position)
            try:
                found = self._pass(prefix, place, deadline)
            except BaseException:
                self._count_flying()
                raise
            if found is None:
                return End.TIME_UP
            if tally.refused:
                return End.REFUSED
            tally.position = ""
            if found:
                tally.passes += 1
            elif place.clean:
                return End.GONE
        return End.COMES_BACK

    def delete_blobs(self, blobs: Sequence[Blob], *, deadline: float) -> list[Refusal]:
        """Delete these, at most a page; those that are still there.

        Raises: as `delete_prefix`.
        """
        self._check()
        refusals = self._delete(blobs, deadline)
        self._count(blobs, refusals)
        return refusals

    def _pass(self, prefix: str, place: _Place, deadline: float) -> int | None:
        """One pass over the prefix, from a place on; the objects that it found. None: time is up."""
        found, more, after = 0, True, place.end
        again: Sequence[Blob] = ()
        headway = Headway(repr(prefix), after, place.empty)
        while more:
            if time.monotonic() > deadline:
                self._settle(0)
                return None
            page = self._list(prefix, after, deadline)
            found, more = found + len(page.blobs), page.more
            if page.blobs or more:
                answer = self._begin(page, deadline, clean=place.clean and not found, empty=headway.empty + 1)
            if page.cut and page.blobs != again:
                self._settle(0)
                if not answer.result():  # all of it is gone: the same page again, for what else the key has
                    again = page.blobs
                    continue
            if more:
                headway.step(page.end, found=bool(page.blobs))
            after = page.end
        self._settle(0)
        return found

    def _begin(self, page: BlobPage, deadline: float, *, clean: bool, empty: int) -> Future[list[Refusal]]:
        """Let a page's deletion fly. An empty one flies too, so that the position passes over it in its turn."""
        self._settle(self._requests - 1)
        if page.blobs:
            self._check()
            answer = self._pool.submit(self._delete, page.blobs, deadline)
        else:
            answer = Future()
            answer.set_result([])
        place = _Place(page.end, clean, 0 if page.blobs else empty)
        self._flying.append(_Flying(page.blobs, str(place), answer))
        return answer

    def _settle(self, allowed: int) -> None:
        """Wait until no more than so many requests are in flight; oldest first, so that the position is true."""
        while len(self._flying) > allowed:
            page = self._flying.popleft()
            refusals = page.answer.result()
            self._count(page.blobs, refusals)
            self.tally.position = page.end
            self.tally.pages += 1
            self._note(self.tally)

    def _count_flying(self) -> None:
        """Count what else was in flight when something failed; the position stays before the page that failed."""
        while self._flying:
            page = self._flying.popleft()
            if page.answer.exception() is None:
                self._count(page.blobs, page.answer.result())

    def _count(self, blobs: Sequence[Blob], refusals: Sequence[Refusal]) -> None:
        kept = {(refusal.blob.key, refusal.blob.version) for refusal in refusals}
        for blob in blobs:
            if (blob.key, blob.version) not in kept:
                self.tally.objects += 1
                self.tally.bytes += blob.size
        self.tally.refused += len(refusals)
        if refusals:
            self.tally.error = str(refusals[-1])

    # -- one request, patiently ------------------------------------------------------------------------------------

    def _list(self, prefix: str, after: str, deadline: float) -> BlobPage:
        return _patiently(lambda: self._blobs.page(prefix, after), deadline)

    def _delete(self, blobs: Sequence[Blob], deadline: float) -> list[Refusal]:
        """Delete a page; keys that may go in a moment are tried again."""
        refused: list[Refusal] = []
        left = blobs

        def ask() -> None:
            nonlocal left
            refusals = self._blobs.delete(left)
            refused.extend(refusal for refusal in refusals if not refusal.passing)
            passing = [refusal for refusal in refusals if refusal.passing]
            left = [refusal.blob for refusal in passing]
            if passing:
                msg = f"{len(passing)} keys: {passing[-1]}"
                raise BlobsAway(msg)

        _patiently(ask, deadline)
        return refused


def _patiently(ask: Callable[[], T], deadline: float) -> T:
    """Ask again while the store is away, for some seconds, not past the deadline."""
    for number in range(_TRIES):
        wait = _FIRST_WAIT * 2**number * (0.5 + 0.5 * random.random())
        try:
            return ask()
        except BlobsAway:
            if number == _TRIES - 1 or time.monotonic() + wait > deadline:
                raise
        time.sleep(wait)
    raise AssertionError  # pragma: no cover
