"""What a store of blobs must be able to do: list below a prefix in pages, and delete what was listed.

Each call is one or a few requests with a timeout; who calls decides what is tried again. All stores here list in a
fixed order and show at once what was written or deleted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

PAGE: Final = 1_000  # keys of a page; the most that S3 lists or deletes in one request


class Blob(NamedTuple):
    """One object, or one version of it.

    Attributes:
        key: its whole key.
        size: bytes, 0 where not known.
        version: its version, or a delete marker's; None: whatever is there.
        modified: when it was written, Unix seconds, 0 where not known.
    """

    key: str
    size: int = 0
    version: str | None = None
    modified: float = 0.0


class BlobPage(NamedTuple):
    """Some objects below a prefix, or none: a page may be empty though more of them follow (see `storage.listing`).

    Attributes:
        blobs: the objects, in the store's order.
        end: where the next page begins; kept for days, and good after any deletion.
        more: whether there may be a next page: the store's word, whatever is on this one.
        cut: it ends within the versions of one key: where all of it was deleted, the same page is to be listed again.
    """

    blobs: list[Blob]
    end: str
    more: bool
    cut: bool = False


class NamePage(NamedTuple):
    """Some of the names that stand before the first slash of keys; `end` and `more` as in `BlobPage`."""

    names: list[str]
    end: str
    more: bool


class Refusal(NamedTuple):
    """An object that could not be deleted.

    Attributes:
        blob: the object.
        code: the store's name of the reason, ``AccessDenied`` for example.
        message: in the store's words.
        passing: whether it may be otherwise in a moment.
    """

    blob: Blob
    code: str
    message: str
    passing: bool

    def __str__(self) -> str:
        version = f" version {self.blob.version}" if self.blob.version else ""
        return f"{self.code}: {self.message} (key {self.blob.key!r}{version})"


class BlobStore(Protocol):
    """A store of blobs. Safe to use from several threads; opened in the process that uses it, never before a fork.

    Every method raises `BlobsAway` or `BlobsRefused`.
    """

    def page(self, prefix: str, after: str = "", *, limit: int = PAGE) -> BlobPage:
        """Objects below a prefix; with versions, if those are deleted too.

        Args:
            prefix: what all keys begin with; never empty.
            after: the `end` of the page before.
            limit: most objects.
        """
        ...

    def names(self, after: str = "", *, limit: int = PAGE) -> NamePage:
        """What stands before the first slash of keys: run ids, and whatever else somebody put there.

        Args:
            after: the `end` of the page before.
            limit: most names.
        """
        ...

    def find(self, keys: Sequence[str]) -> list[Blob]:
        """What has to be deleted for exactly these keys to be gone; they need not exist."""
        ...

    def delete(self, blobs: Sequence[Blob]) -> list[Refusal]:
        """Delete objects, at most `PAGE` of them; those that are gone already are fine.

        Returns:
            Those that are still there.
        """
        ...

    def close(self) -> None:
        """Give back what it holds. Closing twice is fine."""
        ...


class ProbedBlobStore(BlobStore, Protocol):
    """A store that can be tried out: all that are made from settings."""

    def write_probe(self, key: str) -> Blob:
        """Write an empty object, to see whether it can be deleted again. Nothing else here ever writes.

        Args:
            key: its key; no run's.

        Returns:
            Exactly what was written: its version too, so that deleting it leaves no marker behind.
        """
        ...
