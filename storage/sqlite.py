"""The embedded engine: one SQLite file, one writer at a time, any number of processes and threads.

A transaction that writes waits for its turn and then runs once; there are no conflicts to retry. Reads go on beside it.
"""

from __future__ import annotations

import os
import sqlite3
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar
from weakref import WeakSet

from storage.directory_layer import create_or_open, find
from storage.engine import ignore
from storage.errors import BadStoreURL, Refused, StorageUnavailable
from storage.sqlite_file import LOG_LIMIT, Connection, Identity, explain, identify, is_busy, open_connection
from storage.sqlite_transaction import Reading, Writing
from storage.turnstile import poll

if TYPE_CHECKING:
    from collections.abc import Callable

    from storage.engine import Transaction

T = TypeVar("T")


class SqliteEngine:
    """An embedded store. See `storage.engine.Engine` for what each method does.

    Args:
        url: for messages.
        path: of the file; a relative one is taken from the working directory of this moment.
        timeout: seconds that a transaction waits for its turn, then it raises StorageUnavailable.
        counted: called at each new try of a read that found the file locked.

    Raises:
        BadStoreURL: the path cannot be opened, or holds something else.
        StorageUnavailable: the file was busy for all of ``timeout``.
    """

    def __init__(self, url: str, path: str, *, timeout: float = 10.0, counted: Callable[[], None] = ignore) -> None:
        if timeout <= 0:
            msg = f"the timeout is {timeout} seconds: it must be above 0"
            raise ValueError(msg)
        if path == ":memory:":
            msg = f"{url}: a store in memory is of no use to several processes; name a file"
            raise BadStoreURL(msg)
        self._url = url
        self._path = Path.cwd() / path
        self._timeout = timeout
        self._counted = counted
        self._identity: Identity | None = None
        self._idle: list[Connection] = []
        self._used: set[Connection] = set()
        self._closed = False
        self._next_truncation = LOG_LIMIT
        _ENGINES.add(self)
        self._idle.append(self._open(time.monotonic() + timeout))

    @property
    def url(self) -> str:
        """The URL it was opened with."""
        return self._url

    def directory(self, *path: str) -> bytes:
        """The key prefix of the directory at ``path``, made if it is absent."""
        found = self.read(lambda transaction: find(transaction, path))
        return found or self.transact(lambda transaction: create_or_open(transaction, path))

    def transact(self, work: Callable[[Transaction], T], *, impatient: bool = False) -> T:
        """Run ``work`` in a transaction that holds the write lock: it runs once, and never conflicts."""
        del impatient  # nothing here is solved by a smaller transaction
        deadline = time.monotonic() + self._timeout
        connection = self._take(deadline)
        healthy = False
        try:
            if not connection.begin(deadline):
                healthy = True
                msg = f"{self._url}: another process has held the write lock for {self._timeout:g} s"
                raise StorageUnavailable(msg)
            self._check_identity()
            transaction = Writing(connection.raw)
            try:
                result = work(transaction)
                self._check_identity()
                transaction.commit()
            finally:
                transaction.end()
                if connection.raw.in_transaction:
                    connection.raw.execute("ROLLBACK")
            healthy = self._bound_log(connection)
        except sqlite3.Error as error:
            raise explain(self._url, error) from error
        except Exception:
            healthy = not connection.raw.in_transaction
            raise
        finally:
            self._give_back(connection, healthy=healthy)
        return result

    def read(self, work: Callable[[Transaction], T]) -> T:
        """Run ``work``, which only reads, against one consistent state. Neither waits for writers nor stops them."""
        deadline = time.monotonic() + self._timeout
        result: list[T] = []

        def attempt() -> bool:
            try:
                result.append(self._read_once(work, deadline))
            except sqlite3.Error as error:
                if is_busy(error):
                    self._counted()
                    return False
                raise explain(self._url, error) from error
            return True

        if not poll(attempt, deadline):
            msg = f"{self._url}: another process has kept the file locked for {self._timeout:g} s"
            raise StorageUnavailable(msg)
        return result[0]

    def close(self) -> None:
        """Close the file. Closing twice is fine; a transaction that still runs in another thread ends by itself."""
        self._closed = True
        self._close_idle()

    # -- connections -----------------------------------------------------------------------------------------------

    def _read_once(self, work: Callable[[Transaction], T], deadline: float) -> T:
        connection = self._take(deadline)
        healthy = False
        try:
            self._check_identity()
            connection.raw.execute("BEGIN")
            transaction = Reading(connection.raw)
            try:
                result = work(transaction)
            finally:
                transaction.end()
                if connection.raw.in_transaction:
                    connection.raw.execute("ROLLBACK")
            healthy = True
            return result
        except sqlite3.Error:
            raise
        except Exception:
            healthy = not connection.raw.in_transaction
            raise
        finally:
            self._give_back(connection, healthy=healthy)

    def _take(self, deadline: float) -> Connection:
        """A connection that nobody else uses. There are as many as transactions that ran at once."""
        if self._closed:
            msg = f"{self._url} is closed"
            raise RuntimeError(msg)
        try:
            connection = self._idle.pop()
        except IndexError:
            connection = self._open(deadline)
        self._used.add(connection)
        return connection

    def _give_back(self, connection: Connection, *, healthy: bool) -> None:
        self._used.discard(connection)
        if healthy:
            self._idle.append(connection)
        else:
            connection.close()
        if self._closed:
            self._close_idle()

    def _open(self, deadline: float) -> Connection:
        if self._path in _INHERITED:
            msg = f"{self._url}: this process was forked in the middle of a transaction on the file; use a new process"
            raise Refused(msg)
        if self._identity is not None:
            self._check_identity()
        connection = open_connection(self._url, self._path, self._identity, deadline)
        try:
            if self._identity is None:
                self._identity = identify(self._path)
            else:
                self._check_identity()
        except OSError as error:
            connection.close()
            msg = f"{self._url}: the file has gone while it was opened ({error.strerror})"
            raise StorageUnavailable(msg) from error
        except BaseException:
            connection.close()
            raise
        return connection

    def _check_identity(self) -> None:
        """Never write to a file that has lost its name: what it is told is gone when the last process closes it."""
        try:
            now = identify(self._path)
        except OSError as error:
            msg = f"{self._url}: the file has gone ({error.strerror}): put it back, or stop and start with a new store"
            raise StorageUnavailable(msg) from error
        if now != self._identity:
            msg = f"{self._url}: another file has taken this one's place while it was open: stop and start again"
            raise BadStoreURL(msg)

    def _bound_log(self, connection: Connection) -> bool:
        """Cut the log back where readers that overlap have kept SQLite from starting it anew; False: it broke."""
        try:
            size = os.stat(f"{self._path}-wal").st_size  # noqa: PTH116 - a third of the time of Path.stat
        except OSError:
            return True  # the next writer makes it again
        if size <= self._next_truncation:
            return True
        self._next_truncation = size + LOG_LIMIT  # if a long read is in the way: not at every commit
        try:
            connection.raw.execute("PRAGMA busy_timeout=100")
            (in_the_way, _, _) = connection.raw.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            connection.raw.execute("PRAGMA busy_timeout=0")
        except sqlite3.Error:
            return False  # the commit stands; what is wrong with the disk, the next transaction tells
        if not in_the_way:
            self._next_truncation = LOG_LIMIT
        return True

    def _close_idle(self) -> None:
        while self._idle:
            try:
                connection = self._idle.pop()
            except IndexError:
                return
            connection.close()


# SQLite's locks do not survive a fork: a child that opens a file which its parent had open at that moment believes to
# hold the parent's locks (https://www.sqlite.org/howtocorrupt.html, 2.6). So idle connections are closed before every
# fork, and opened again by whoever needs them; a file with a transaction under way is refused in the child.
_ENGINES: Final[WeakSet[SqliteEngine]] = WeakSet()
_INHERITED: Final[set[Path]] = set()
_KEPT_OPEN: Final[list[Connection]] = []


def _close_before_fork() -> None:
    for engine in list(_ENGINES):
        engine._close_idle()


def _mark_after_fork() -> None:
    for engine in list(_ENGINES):
        if engine._used:
            _INHERITED.add(engine._path)
            _KEPT_OPEN.extend(engine._used)  # closing them would give the parent's locks back
            engine._used.clear()


os.register_at_fork(before=_close_before_fork, after_in_child=_mark_after_fork)
