"""An embedded store's file as the double's store, so that programs made for FoundationDB read and write it.

A transaction reads in one SQLite read transaction and commits in the same one: SQLite lets it write only if nobody has
written since its first read, which is a conflict (1020) here.
"""

from __future__ import annotations

import sqlite3
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from .codes import FDBError
from .writes import Additions

if TYPE_CHECKING:
    from .writes import Pair, Snapshot, Span, Writes

PATIENCE = 10.0  # seconds for the write lock where the transaction has no timeout


class FileSnapshot:
    """One SQLite read transaction."""

    def __init__(self, store: FileStore) -> None:
        self._store = store
        self._open = False
        self.connection = store.take()
        self.connection.execute("BEGIN")
        (self.version,) = self.connection.execute("PRAGMA data_version").fetchone()
        # From here on the state is fixed. It may have to wait while SQLite cleans up after a killed process.
        _wait(self.connection, "SELECT 1 FROM kv LIMIT 1", time.monotonic() + PATIENCE)
        self._open = True

    def get(self, key: bytes) -> bytes | None:
        row = self.connection.execute("SELECT value FROM kv WHERE key = ?", (key,)).fetchone()
        return None if row is None else bytes(row[0])

    def chunk(self, begin: bytes, end: bytes, rows: int, *, reverse: bool) -> list[Pair]:
        order = "DESC" if reverse else "ASC"
        statement = f"SELECT key, value FROM kv WHERE key >= ? AND key < ? ORDER BY key {order} LIMIT ?"
        return self.connection.execute(statement, (begin, end, rows)).fetchall()

    def close(self) -> None:
        if self._open and not self._store.closed:
            if self.connection.in_transaction:
                self.connection.execute("ROLLBACK")
            self._store.give_back(self.connection)
        self._open = False

    def __del__(self) -> None:
        self.close()


class FileStore:
    """See the module. Safe for threads and processes."""

    def __init__(self, path: str) -> None:
        self._uri = f"file:{quote(path)}?mode=rw"
        self._all: list[sqlite3.Connection] = []
        self._idle: list[sqlite3.Connection] = []
        self.closed = False

    def take(self) -> sqlite3.Connection:
        try:
            return self._idle.pop()
        except IndexError:
            connection = sqlite3.connect(self._uri, uri=True, timeout=0, isolation_level=None, check_same_thread=False)
            connection.execute("PRAGMA synchronous=FULL")
            self._all.append(connection)
            return connection

    def give_back(self, connection: sqlite3.Connection) -> None:
        self._idle.append(connection)

    def close(self) -> None:
        """Close every connection, those of transactions that were left open too."""
        self.closed = True
        while self._all:
            self._all.pop().close()

    def snapshot(self) -> FileSnapshot:
        return FileSnapshot(self)

    def commit(
        self,
        snapshot: Snapshot | None,
        reads: list[Span],
        writes: Writes,
        deadline: float | None,
    ) -> int:
        until = time.monotonic() + PATIENCE if deadline is None else deadline
        if isinstance(snapshot, FileSnapshot):
            connection = snapshot.connection
            _wait(connection, "DELETE FROM kv WHERE key = x'ff'", until)  # takes the write lock, deletes nothing
            _apply(connection, writes)
            return 0
        connection = self.take()
        try:
            _wait(connection, "BEGIN IMMEDIATE", until)
            _apply(connection, writes)
        finally:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            self.give_back(connection)
        return 0


def _wait(connection: sqlite3.Connection, statement: str, until: float) -> None:
    while True:
        try:
            connection.execute(statement)
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode == sqlite3.SQLITE_BUSY_SNAPSHOT:
                raise FDBError(1020) from error
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
                raise
            if time.monotonic() > until:
                raise FDBError(1031) from error
            time.sleep(0.001)
        else:
            return


def _apply(connection: sqlite3.Connection, writes: Writes) -> None:
    connection.executemany("DELETE FROM kv WHERE key >= ? AND key < ?", writes.cleared)
    for key, written in writes.values.items():
        value: Any = written
        if isinstance(value, Additions):
            row = connection.execute("SELECT value FROM kv WHERE key = ?", (key,)).fetchone()
            value = value.apply(None if row is None else row[0])
        if value is None:
            connection.execute("DELETE FROM kv WHERE key = ?", (key,))
        else:
            connection.execute("INSERT OR REPLACE INTO kv VALUES (?, ?)", (key, value))
    connection.execute("COMMIT")
