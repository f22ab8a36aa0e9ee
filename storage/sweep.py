"""Delete blobs page by page, several requests in flight, until nothing is left or time is up.

    a pass: list a page ─▶ may it go? ─▶ delete it (in flight) ─▶ list the next ...
    a pass that found something and left nothing behind ─▶ another pass, from the beginning
    a pass from the beginning that found nothing ─▶ GONE

What the store asks patience for is tried again here for some seconds; what it refuses is counted and passed over, so
that keys which cannot be deleted do not keep the others from going, nor a pass from ending.
"""

from __future__ import annotations

import random
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

from storage.errors import BlobsAway

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from concurrent.futures import Future
    from typing import Self

    from storage.blobs import Blob, BlobPage, BlobStore, Refusal

T = TypeVar("T")

PASSES: Final = 5  # passes of one try that may find something; then it seems to come back
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
        position: where the next page begins; all before it is dealt with.
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
    """A page whose deletion is in flight."""

    blobs: Sequence[Blob]
    end: str
    answer: Future[list[Refusal]]


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
            from_beginning = not tally.position
            try:
                found = self._pass(prefix, deadline)
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
            elif from_beginning:
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

    def _pass(self, prefix: str, deadline: float) -> int | None:
        """One pass over the prefix, from the position on; the objects that it found. None: time is up."""
        found, more, after = 0, True, self.tally.position
        while more:
            if time.monotonic() > deadline:
                self._settle(0)
                return None
            page = self._list(prefix, after, deadline)
            before, more = after, page.more
            after = page.end
            if page.blobs:
                found += len(page.blobs)
                self._settle(self._requests - 1)
                self._check()
                answer = self._pool.submit(self._delete, page.blobs, deadline)
                self._flying.append(_Flying(page.blobs, page.end, answer))
            if page.cut:
                self._settle(0)
                if not answer.result():
                    after = before
        self._settle(0)
        return found

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
