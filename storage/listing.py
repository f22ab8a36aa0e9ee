"""Going through a listing to its true end: on from page to page while the store says that more follows.

A page may be empty though more of them follow: stores cut a listing before they leave out what was deleted, has expired
or is an old version. So only the store's word that nothing follows ends a listing. A store that never gives that word,
because a page leads back to one that was there or because nothing comes for ever, is told from one that is slow.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeVar

from storage.blobs import BlobPage, NamePage
from storage.errors import BlobsRefused

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from storage.blobs import BlobStore

P = TypeVar("P", BlobPage, NamePage)

EMPTY_PAGES: Final = (
    100_000  # in a row, before a listing is taken for endless: in S3 that is 100,000,000 entries left out
)


class Headway:
    """Whether a listing moves on. Needs no more memory for a long one than for a short one.

    Args:
        what: what is listed, for the error.
        start: where it begins.
        empty: pages without anything that came right before.
    """

    def __init__(self, what: str, start: str = "", empty: int = 0) -> None:
        self.empty = empty
        self._what = what
        self._last = self._old = start
        self._steps, self._until = 0, 1

    def step(self, end: str, *, found: bool) -> None:
        """A page came that is not the last one.

        Args:
            end: where the next one begins.
            found: whether anything was on it.

        Raises:
            BlobsRefused: this listing would never end.
        """
        self.empty = 0 if found else self.empty + 1
        if end in (self._last, self._old):
            msg = f"the listing of {self._what} does not move on: the store says that more follows, and leads back"
            raise BlobsRefused(f"{msg} to where it was ({end!r:.200}); nothing is taken for the end of it")
        if self.empty >= EMPTY_PAGES:
            msg = f"the listing of {self._what} does not end: {self.empty} pages in a row had nothing on them, and the"
            raise BlobsRefused(f"{msg} store says that more follows")
        self._last = end
        # Brent's way to find a circle: an old place to compare with, taken anew after twice as many steps each time.
        self._steps += 1
        if self._steps == self._until:
            self._old, self._steps, self._until = end, 0, 2 * self._until


def each_page(ask: Callable[[str], P], what: str) -> Iterator[P]:
    """All pages of a listing.

    Args:
        ask: gives the page that begins at a place.
        what: what is listed, for the error.

    Raises:
        BlobsRefused: it would never end.
    """
    headway, page = Headway(what), ask("")
    yield page
    while page.more:
        headway.step(page.end, found=bool(page[0]))
        page = ask(page.end)
        yield page


def has_any(blobs: BlobStore, prefix: str) -> bool:
    """Whether anything is below a prefix.

    Raises:
        BlobError: the store did not say.
    """
    pages = each_page(lambda after: blobs.page(prefix, after, limit=1), repr(prefix))
    return any(page.blobs for page in pages)
