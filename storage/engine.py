"""The transaction interface that both engines have, and the one place that opens an engine from its URL.

It is the subset of FoundationDB's API that this project needs. All of it is serializable, but for a range that is read
with ``snapshot=True``: its answer is of the same state as every other, and a commit that changes it meanwhile is no
conflict. So whoever reads one so has to say why it may change. A single key is always read serializably.

* Reads see the transaction's own earlier writes.
* A read is started when it is asked for and waited for with ``wait()``, so that many can be in flight together; its
  answer is that of the moment it was asked for, later writes of the transaction change nothing in it.
* ``work`` given to `Engine.transact` runs again after a conflict, so it must have no effect but on its transaction.
* Limits are FoundationDB's on every engine (https://apple.github.io/foundationdb/known-limitations.html): key
  10,000 bytes (`KeyTooLarge`), value 100,000 bytes (`ValueTooLarge`), both raised by `Transaction.set` at once and
  leaving the transaction usable; transaction 10,000,000 bytes (`TransactionTooLarge`, raised by the commit).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

from storage.errors import BadStoreURL
from storage.masking import mask_url

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

KEY_LIMIT: Final = 10_000
VALUE_LIMIT: Final = 100_000
TRANSACTION_LIMIT: Final = 10_000_000
API_VERSION: Final = 730  # of FoundationDB

KeyValue = tuple[bytes, bytes]


class Read(Protocol[T_co]):
    """A read under way."""

    def wait(self) -> T_co:
        """The answer; raises what the read failed with."""
        ...


class Transaction(Protocol):
    """One transaction. Keys are whole keys, directory prefix included."""

    def get(self, key: bytes) -> Read[bytes | None]:
        """Start reading the value of ``key``; None where there is none."""
        ...

    def get_range(
        self, begin: bytes, end: bytes, *, limit: int = 0, reverse: bool = False, snapshot: bool = False
    ) -> Read[list[KeyValue]]:
        """Start reading ``begin <= key < end`` in order, from the end if ``reverse``; ``limit`` pairs (0: all).

        With ``snapshot`` the commit does not conflict with what others write in the range meanwhile. Where there is one
        writer at a time, nobody does, and it changes nothing.
        """
        ...

    def set(self, key: bytes, value: bytes) -> None:
        """Write ``value`` under ``key``. Raises `KeyTooLarge` or `ValueTooLarge` and then writes nothing."""
        ...

    def set_all(self, pairs: Mapping[bytes, bytes]) -> None:
        """Write many keys, as `set` does each, at less cost; raises what `set` would, and then writes none of them."""
        ...

    def clear(self, key: bytes) -> None:
        """Delete ``key``, if it is there."""
        ...

    def clear_range(self, begin: bytes, end: bytes) -> None:
        """Delete every ``begin <= key < end``."""
        ...


class Engine(Protocol):
    """An open store. Safe to use from several threads; opened in the process that uses it, never before a fork."""

    @property
    def url(self) -> str:
        """The URL it was opened with."""
        ...

    def directory(self, *path: str) -> bytes:
        """The key prefix of the directory at ``path`` (FoundationDB directory layer), made if it is absent."""
        ...

    def transact(self, work: Callable[[Transaction], T], *, impatient: bool = False) -> T:
        """Run ``work`` in a transaction, commit, and return its result.

        Conflicts and unknown results are retried by the engine's own rule. ``impatient`` is for callers who can do
        less in one transaction: `TransactionTooOld` at once and `Contended` after the third conflict, in place of
        further tries. An exception of ``work`` rolls back and passes through.

        Raises:
            TransactionTooLarge: the commit would be over 10,000,000 bytes.
            TransactionTooOld, Contended: see ``impatient``.
            StorageUnavailable: the store did not answer within its timeout.
        """
        ...

    def read(self, work: Callable[[Transaction], T]) -> T:
        """Run ``work``, which only reads, against one consistent state. Takes no lock and commits nothing."""
        ...

    def close(self) -> None:
        """Give back what it holds. Closing twice is fine."""
        ...


def ignore() -> None:
    """What is done where nobody wants to know."""


@dataclass(frozen=True, slots=True)
class Tries:
    """How an engine goes about trying again within its timeout.

    Attributes:
        most: tries of one transaction; None: as many as the timeout allows. FoundationDB only.
        longest_pause: seconds between two tries at most; None: the client's own. FoundationDB only.
        api_version: what FoundationDB's client is asked for.
        counted: called at each try but a transaction's first, from whatever thread runs it; not for one that only the
            client's first contact with the cluster made necessary.
    """

    most: int | None = None
    longest_pause: float | None = None
    api_version: int = API_VERSION
    counted: Callable[[], None] = ignore


def open_engine(url: str, *, timeout: float = 10.0, tries: Tries | None = None) -> Engine:
    """Open the store that ``url`` names.

    Args:
        url: ``sqlite:///path.db`` (relative; ``sqlite:////path.db`` absolute) or ``fdb:///path/to/fdb.cluster``.
        timeout: seconds after which one transaction gives up with `StorageUnavailable`.
        tries: how it tries again until then.

    Raises:
        BadStoreURL: any other URL, or a path that cannot be opened.
        EngineMissing: the engine's client library is not installed.
    """
    scheme, separator, path = url.partition("://")
    if not separator or not path.startswith("/") or path == "/":
        msg = f"{mask_url(url)!r} is no store URL: use sqlite:///path.db or fdb:///path/to/fdb.cluster"
        raise BadStoreURL(msg)
    if scheme == "sqlite":
        from storage.sqlite import SqliteEngine

        counted = ignore if tries is None else tries.counted
        return SqliteEngine(url, path[1:], timeout=timeout, counted=counted)
    if scheme == "fdb":
        from storage.foundationdb import FoundationEngine

        return FoundationEngine(url, path, timeout=timeout, tries=tries)
    msg = f"{mask_url(url)!r} is no store URL: the scheme is {scheme!r}, known are sqlite and fdb"
    raise BadStoreURL(msg)
