"""The transactions of the embedded engine, over one SQLite connection that has begun one.

Writes are kept in memory until the commit, or until a range read or a range clear has to see them; so most
transactions write their keys in one sorted sweep. The limits are FoundationDB's, counted as its client counts them.
"""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING, Final, Generic, NoReturn, TypeVar

from storage.engine import KEY_LIMIT, TRANSACTION_LIMIT, VALUE_LIMIT, KeyValue
from storage.errors import TransactionTooLarge
from storage.limits import SYSTEM_KEYS, check_key, check_pair, check_pairs, check_range, check_span

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

T = TypeVar("T")

# What FoundationDB's client adds for each write beside its bytes: the mutation and its conflict range with two keys
# (NativeAPI, Transaction::getSize). Counted the same, so that what fits here fits there.
_PER_WRITE: Final = 53
_PER_RANGE: Final = 24


_IS_OVER: Final = "this transaction is over: start another"


class Answer(Generic[T]):
    """A read that is over already: SQLite answers when it is asked."""

    __slots__ = ("_value",)

    def __init__(self, value: T) -> None:
        self._value = value

    def wait(self) -> T:
        """The answer."""
        return self._value


class Reading:
    """A transaction that only reads."""

    __slots__ = ("_execute", "_failure", "_raw", "_size")

    def __init__(self, raw: sqlite3.Connection) -> None:
        self._raw = raw
        self._execute = raw.execute
        self._failure: BaseException | None = None
        self._size = 0

    def get(self, key: bytes) -> Answer[bytes | None]:
        """The value of ``key``; None where there is none."""
        check_key(key)
        self._size += 2 * len(key) + 1 + _PER_RANGE
        rows = self._ask("SELECT value FROM kv WHERE key = ?", (key,))
        return Answer(rows[0][0] if rows else None)

    def get_range(
        self, begin: bytes, end: bytes, *, limit: int = 0, reverse: bool = False, snapshot: bool = False
    ) -> Answer[list[KeyValue]]:
        """The pairs between two keys, in order."""
        del snapshot  # nobody else writes meanwhile
        check_range(begin, end, limit=limit)
        self._size += len(begin) + len(end) + _PER_RANGE
        order = "DESC" if reverse else "ASC"
        rows = self._ask(
            f"SELECT key, value FROM kv WHERE key >= ? AND key < ? ORDER BY key {order} LIMIT ?",  # noqa: S608
            (begin, end, limit or -1),
        )
        return Answer(rows)

    def set(self, key: bytes, value: bytes) -> None:  # noqa: ARG002
        """Refused here."""
        _refuse_write(key)

    def set_all(self, pairs: Mapping[bytes, bytes]) -> None:
        """Refused here."""
        _refuse_write(next(iter(pairs), b""))

    def clear(self, key: bytes) -> None:
        """Refused here."""
        _refuse_write(key)

    def clear_range(self, begin: bytes, end: bytes) -> None:  # noqa: ARG002
        """Refused here."""
        _refuse_write(begin)

    def _ask(self, statement: str, values: tuple[object, ...]) -> list[Any]:
        """Run a statement. One that failed may have ended the transaction, so nothing may follow it."""
        if self._failure is not None:
            raise self._failure
        try:
            return self._execute(statement, values).fetchall()
        except sqlite3.Error as error:
            self._failure = error
            raise

    def end(self) -> None:
        """Nothing can be asked of the transaction any more."""
        if self._failure is None:
            self._failure = RuntimeError(_IS_OVER)


class Writing(Reading):
    """A transaction that holds SQLite's write lock."""

    __slots__ = ("_pending",)

    def __init__(self, raw: sqlite3.Connection) -> None:
        super().__init__(raw)
        self._pending: dict[bytes, bytes | None] = {}  # None: cleared

    def get(self, key: bytes) -> Answer[bytes | None]:
        """The value of ``key``; None where there is none."""
        check_key(key)
        if key in self._pending:
            return Answer(self._pending[key])
        return super().get(key)

    def get_range(
        self, begin: bytes, end: bytes, *, limit: int = 0, reverse: bool = False, snapshot: bool = False
    ) -> Answer[list[KeyValue]]:
        """The pairs between two keys, in order."""
        self.flush()
        return super().get_range(begin, end, limit=limit, reverse=reverse, snapshot=snapshot)

    def set(self, key: bytes, value: bytes) -> None:
        """Keep a write back."""
        # The hot path: what `check_pair` looks at, without a call a key.
        if (
            type(key) is not bytes
            or type(value) is not bytes
            or len(key) > KEY_LIMIT
            or len(value) > VALUE_LIMIT
            or key >= SYSTEM_KEYS
        ):
            check_pair(key, value)
        self._pending[key] = value

    def set_all(self, pairs: Mapping[bytes, bytes]) -> None:
        """Keep many writes back."""
        check_pairs(pairs)
        self._pending.update(pairs)

    def clear(self, key: bytes) -> None:
        """Keep a removal back."""
        check_key(key)
        self._pending[key] = None

    def clear_range(self, begin: bytes, end: bytes) -> None:
        """Remove what is between two keys."""
        check_span(begin, end)
        self.flush()
        self._size += 2 * (len(begin) + len(end)) + _PER_WRITE
        self._ask("DELETE FROM kv WHERE key >= ? AND key < ?", (begin, end))

    def flush(self) -> None:
        """Give SQLite the writes that are kept back."""
        if self._failure is not None:
            raise self._failure
        pending, self._pending = self._pending, {}
        if not pending:
            return
        kept = sorted((key, value) for key, value in pending.items() if value is not None)
        gone = [(key,) for key, value in pending.items() if value is None] if len(kept) < len(pending) else []
        self._size += (
            3 * sum(map(len, pending)) + sum(len(value) for _, value in kept) + _PER_WRITE * len(pending) + len(gone)
        )
        try:
            if gone:
                self._raw.executemany("DELETE FROM kv WHERE key = ?", gone)
            if kept:
                self._raw.executemany(
                    "INSERT INTO kv VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value", kept
                )
        except sqlite3.Error as error:
            self._failure = error
            raise

    def commit(self) -> None:
        """Make the writes durable, all of them; raises TransactionTooLarge before it writes anything for good."""
        self.flush()
        if self._size > TRANSACTION_LIMIT:
            msg = f"a transaction of {self._size:,} bytes (limit {TRANSACTION_LIMIT:,})"
            raise TransactionTooLarge(msg)
        self._ask("COMMIT", ())

    def end(self) -> None:
        """Nothing can be asked of the transaction any more."""
        super().end()
        self._pending = _Over()


class _Over(dict[bytes, bytes | None]):
    """Stands for the writes of a transaction that is over, and takes none: `set` need not look each time."""

    def __setitem__(self, key: bytes, value: bytes | None) -> None:
        raise RuntimeError(_IS_OVER)

    def update(self, *_: object, **__: object) -> None:
        raise RuntimeError(_IS_OVER)


def _refuse_write(key: bytes) -> NoReturn:
    msg = f"a write of {key[:60]!r} in Engine.read: use Engine.transact"
    raise TypeError(msg)
