"""The file of an embedded store: how it is opened, recognised, and what SQLite's errors mean to a caller.

One table without rowids, keys and values as bytes, so that SQLite's order of keys is that of FoundationDB (memcmp).
"""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import quote

from storage.errors import BadStoreURL, StorageError, StorageUnavailable
from storage.turnstile import Turnstile, poll

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

APPLICATION_ID: Final = 0x4D54594E  # "MTYN", in the file's header: tells our files from anybody's
SCHEMA_VERSION: Final = 1
CHECKPOINT_PAGES: Final = 4_000  # about 16 MB of log before a commit copies it into the file
LOG_LIMIT: Final = 64 * 1024 * 1024  # bytes the log keeps on disk once it has been copied

_BUSY: Final = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL}
_FOREIGN: Final = {sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT}
_CLOSED_DOOR: Final = {sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH}


class Identity(NamedTuple):
    """What tells a file from another one that has taken its name."""

    device: int
    inode: int


def identify(path: Path) -> Identity:
    """The identity of the file that has this name now; raises OSError where there is none."""
    status = path.stat()
    return Identity(status.st_dev, status.st_ino)


class Connection:
    """One SQLite connection with its place in line. Not shared between threads while it is used."""

    __slots__ = ("raw", "turnstile")

    def __init__(self, raw: sqlite3.Connection, turnstile: Turnstile) -> None:
        self.raw = raw
        self.turnstile = turnstile

    def begin(self, deadline: float) -> bool:
        """Begin a transaction that writes, in our turn; False if the turn has not come by ``deadline``."""
        try:
            return poll(self.turnstile.try_enter, deadline) and poll(lambda: _try_begin(self.raw), deadline)
        finally:  # also where nobody knows whether it got in, because a signal interrupted it
            self.turnstile.leave()

    def close(self) -> None:
        """Close both files."""
        self.raw.close()
        self.turnstile.close()


def open_connection(url: str, path: Path, known: Identity | None, deadline: float) -> Connection:
    """Open the store's file, making it with its folder if it is absent.

    Args:
        url: for messages.
        path: absolute.
        known: the file's identity if it was open before: then it is not made anew.
        deadline: of ``time.monotonic()``.

    Raises:
        BadStoreURL: the path cannot be opened, or holds something else.
        StorageUnavailable: the file was busy until the deadline, or the disk does not answer.
    """
    mode = "rwc" if known is None else "rw"
    try:
        if known is None:
            path.parent.mkdir(parents=True, exist_ok=True)
        turnstile = Turnstile(f"{path}-turn")
    except OSError as error:
        raise _explain_open(url, path, error) from error
    raw = None
    try:
        raw = sqlite3.connect(
            f"file:{quote(str(path))}?mode={mode}", uri=True, timeout=0, isolation_level=None, check_same_thread=False
        )
        _prepare(url, raw, deadline)
    except BaseException as error:
        if raw is not None:
            raw.close()
        turnstile.close()
        if isinstance(error, sqlite3.Error):
            raise explain(url, error, opening=known is None) from error
        raise
    return Connection(raw, turnstile)


def _explain_open(url: str, path: Path, error: OSError) -> BadStoreURL:
    return BadStoreURL(f"{url}: cannot open {path}: {error.strerror}; choose a path on a local disk that we may write")


def _prepare(url: str, raw: sqlite3.Connection, deadline: float) -> None:
    """Set a new connection up, and the file if it is empty."""

    def attempt() -> bool:
        return not _is_busy(lambda: _set_up(url, raw))

    if not poll(attempt, deadline):
        msg = f"{url}: another process has kept the file locked while we tried to open it"
        raise StorageUnavailable(msg)


def _set_up(url: str, raw: sqlite3.Connection) -> None:
    raw.execute("BEGIN")  # what is read is of one moment: others may be making the file
    try:
        (tables,) = raw.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        (mine,) = raw.execute("PRAGMA application_id").fetchone()
        (version,) = raw.execute("PRAGMA user_version").fetchone()
    finally:
        if raw.in_transaction:
            raw.execute("ROLLBACK")
    if mine != APPLICATION_ID and (mine or tables):
        msg = f"{url}: the file is an SQLite database of another program; name another file"
        raise BadStoreURL(msg)
    if version > SCHEMA_VERSION:
        msg = f"{url}: the store was written by a newer release (form {version}, known is {SCHEMA_VERSION}): upgrade"
        raise BadStoreURL(msg)
    (journal,) = raw.execute("PRAGMA journal_mode=WAL").fetchone()
    if journal != "wal":
        msg = f"{url}: the file system cannot hold a store (write-ahead log refused, {journal}); use a local disk"
        raise BadStoreURL(msg)
    raw.execute("PRAGMA synchronous=FULL")  # what Kafka has been told must survive a power cut
    raw.execute(f"PRAGMA wal_autocheckpoint={CHECKPOINT_PAGES}")
    raw.execute(f"PRAGMA journal_size_limit={LOG_LIMIT}")
    raw.execute("PRAGMA cache_size=-16000")
    if tables == 0:
        raw.execute("BEGIN IMMEDIATE")
        try:
            raw.execute(
                "CREATE TABLE IF NOT EXISTS kv (key BLOB PRIMARY KEY NOT NULL, value BLOB NOT NULL) WITHOUT ROWID"
            )
            raw.execute(f"PRAGMA application_id={APPLICATION_ID}")
            raw.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
            raw.execute("COMMIT")
        finally:
            if raw.in_transaction:
                raw.execute("ROLLBACK")


def _is_busy(statement: Callable[[], object]) -> bool:
    """Run ``statement``; True if another connection stood in its way, so that it did nothing."""
    try:
        statement()
    except sqlite3.OperationalError as error:
        if is_busy(error):
            return True
        raise
    return False


def _try_begin(raw: sqlite3.Connection) -> bool:
    return not _is_busy(lambda: raw.execute("BEGIN IMMEDIATE"))


def is_busy(error: sqlite3.Error) -> bool:
    """Whether the error says that another connection stood in the way."""
    return _primary(error) in _BUSY


def _primary(error: sqlite3.Error) -> int:
    """The error's code without its detail; 0 where the error is not SQLite's own."""
    code: int = getattr(error, "sqlite_errorcode", 0)
    return code & 0xFF


def explain(url: str, error: sqlite3.Error, *, opening: bool = False) -> StorageError:
    """What an error of SQLite means to a caller.

    Args:
        url: for the message.
        error: not a busy one, those are waited out.
        opening: the store has never been open: then a file that cannot be opened is a mistake in the URL.
    """
    code = _primary(error)
    name = getattr(error, "sqlite_errorname", type(error).__name__)
    if code in _FOREIGN:
        return BadStoreURL(f"{url}: the file is no store, or is damaged ({error}, {name}); name another or restore it")
    if opening and code in _CLOSED_DOOR:
        return BadStoreURL(f"{url}: cannot open the file ({error}, {name}); choose a path that we may write")
    return StorageUnavailable(f"{url}: the file does not answer ({error}, {name}); are disk and permissions in order?")
