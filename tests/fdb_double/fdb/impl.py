"""Transactions and databases of the double, under the names of the client's own module."""

from __future__ import annotations

import functools
import inspect
import random
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .codes import DESCRIPTIONS, RETRIED, FDBError
from .faults import Fault, Faults
from .file import FileStore
from .futures import Future, Value
from .memory import MemoryStore
from .reading import (
    FDBRange,
    KeySelector,
    KeyValue,
    State,
    StreamingMode,
    TransactionRead,
    check_deadline,
    key_to_bytes,
    strinc,
    value_to_bytes,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from .writes import Store

__all__ = [
    "DESCRIPTIONS",
    "RETRIED",
    "Database",
    "FDBError",
    "FDBRange",
    "Fault",
    "Faults",
    "Future",
    "KeySelector",
    "KeyValue",
    "StreamingMode",
    "Transaction",
    "TransactionRead",
    "Value",
    "open",
    "strinc",
    "transactional",
]

KEY_LIMIT = 10_000
VALUE_LIMIT = 100_000
SIZE_LIMIT = 10_000_000


class _Options:
    """The transaction options that we and the client's own layers set."""

    def __init__(self) -> None:
        self.timeout: float | None = None
        self.retry_limit: int | None = None
        self.size_limit = SIZE_LIMIT

    def set_timeout(self, milliseconds: int) -> None:
        self.timeout = milliseconds / 1_000 if milliseconds else None

    def set_retry_limit(self, limit: int) -> None:
        self.retry_limit = limit if limit >= 0 else None

    def set_max_retry_delay(self, milliseconds: int) -> None:
        """Accepted: the double's pauses are shorter."""

    def set_size_limit(self, size: int) -> None:
        self.size_limit = size

    def set_next_write_no_write_conflict_range(self) -> None:
        """Accepted: every write conflicts here, which is the stricter rule."""


class _SnapshotRead(TransactionRead):
    """Reads of a transaction that add no conflict ranges."""

    def __init__(self, transaction: Transaction) -> None:
        super().__init__(transaction.db, conflicts=False)
        self._parent = transaction

    def _state(self) -> State:
        return self._parent.state

    def _deadline(self) -> float | None:
        return self._parent.deadline()


class Transaction(TransactionRead):
    """A transaction. The timeout counts from its making and holds for all tries together, as from version 610 on."""

    def __init__(self, database: Database) -> None:
        super().__init__(database, conflicts=True)
        self.state = State(database)
        self.options = _Options()
        self._begun = time.monotonic()
        self._retries = 0
        self._committed_version = -1

    @property
    def snapshot(self) -> TransactionRead:
        return _SnapshotRead(self)

    def deadline(self) -> float | None:
        return None if self.options.timeout is None else self._begun + self.options.timeout

    def _state(self) -> State:
        return self.state

    def _deadline(self) -> float | None:
        return self.deadline()

    # -- writes ----------------------------------------------------------------------------------------------------

    def set(self, key: Any, value: Any) -> None:
        if type(key) is not bytes or type(value) is not bytes:
            key, value = key_to_bytes(key), value_to_bytes(value)
        if (len(key) <= KEY_LIMIT and len(value) <= VALUE_LIMIT and key < b"\xff") or self._accepts(key, value):
            self.state.writes.values[key] = value  # `Writes.set`, without a call a key

    def clear(self, key: Any) -> None:
        key = key_to_bytes(key)
        if len(key) <= KEY_LIMIT and self._accepts(key, b""):  # a longer key cannot be there
            self.state.writes.set(key, None)

    def clear_range(self, begin: Any, end: Any) -> None:
        first = key_to_bytes(b"" if begin is None else begin)
        last = key_to_bytes(b"\xff" if end is None else end)
        if first > last:
            self.state.deferred = self.state.deferred or FDBError(2005)
        else:
            self.state.writes.clear_range(first, last)

    def clear_range_startswith(self, prefix: Any) -> None:
        prefix = key_to_bytes(prefix)
        self.clear_range(prefix, strinc(prefix))

    def add(self, key: Any, param: Any) -> None:
        key, param = key_to_bytes(key), value_to_bytes(param)
        if self._accepts(key, param):
            self.state.writes.add(key, param)

    def __setitem__(self, key: Any, value: Any) -> None:
        self.set(key, value)

    def __delitem__(self, key: Any) -> None:
        if isinstance(key, slice):
            self.clear_range(key.start, key.stop)
        else:
            self.clear(key)

    def add_read_conflict_range(self, begin: Any, end: Any) -> None:
        self.state.view(self.deadline())
        self.state.reads.append((key_to_bytes(begin), key_to_bytes(end)))

    def add_read_conflict_key(self, key: Any) -> None:
        key = key_to_bytes(key)
        self.add_read_conflict_range(key, key + b"\x00")

    def add_write_conflict_key(self, key: Any) -> None:
        """Nothing to do: every write conflicts here anyway."""

    def _accepts(self, key: bytes, value: bytes) -> bool:
        """As in the client, a key or value that is refused shows at the commit, or at the next read."""
        code = 2004 if key >= b"\xff" else 2102 if len(key) > KEY_LIMIT else 2103 if len(value) > VALUE_LIMIT else None
        if code is not None and self.state.deferred is None:
            self.state.deferred = FDBError(code)
        return code is None

    # -- commit ----------------------------------------------------------------------------------------------------

    def commit(self) -> Future:
        try:
            self._commit()
        except FDBError as error:
            return Future(error=error)
        self._renew()
        return Future()

    def _commit(self) -> None:
        state = self.state
        check_deadline(self.deadline())
        if state.deferred is not None:
            raise state.deferred
        if not state.writes:
            return
        if self._size() > self.options.size_limit:
            raise FDBError(2101)
        self.db.faults.wait_for_store(self.deadline())
        fault = self.db.faults.take_commit()
        if fault is None or fault.committed:
            self._committed_version = self.db.store.commit(state.snapshot, state.reads, state.writes, self.deadline())
        if fault is not None:
            raise FDBError(fault.code)

    def _size(self) -> int:
        state = self.state
        return state.writes.size() + sum(len(begin) + len(end) + 24 for begin, end in state.reads)

    def get_approximate_size(self) -> Future:
        return Future(self._size())

    def get_committed_version(self) -> int:
        return self._committed_version

    def on_error(self, error: FDBError | int) -> Future:
        """Make the transaction new for another try, after a pause; or the error again, where that is of no use."""
        code = error if isinstance(error, int) else error.code
        spent = self.options.retry_limit is not None and self._retries >= self.options.retry_limit
        if code not in RETRIED or spent:
            return Future(error=FDBError(code))
        self._retries += 1
        try:
            check_deadline(self.deadline())
        except FDBError as timeout:
            return Future(error=timeout)
        time.sleep(random.uniform(0, min(0.000_5 * 2**self._retries, 0.05)))
        self._renew()
        return Future()

    def reset(self) -> None:
        self._begun = time.monotonic()
        self._retries = 0
        self._renew()

    def cancel(self) -> None:
        self._renew()
        self.state.deferred = FDBError(1025)

    def _renew(self) -> None:
        self.state.close()
        self.state = State(self.db)


class Database:
    """An open database. ``faults`` and ``store`` are the double's own."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.faults = Faults()

    def create_transaction(self) -> Transaction:
        return Transaction(self)

    def get(self, key: Any) -> bytes | None:
        value: bytes | None = _once(self, lambda tr: tr.get(key).value)
        return value

    def get_range(self, begin: Any, end: Any, limit: int = 0, reverse: bool = False) -> list[KeyValue]:
        pairs: list[KeyValue] = _once(self, lambda tr: tr.get_range(begin, end, limit, reverse).to_list())
        return pairs

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, slice):
            return self.get_range(key.start, key.stop, reverse=(key.step == -1))
        return self.get(key)

    def set(self, key: Any, value: Any) -> None:
        _once(self, lambda tr: tr.set(key, value))

    def clear(self, key: Any) -> None:
        _once(self, lambda tr: tr.clear(key))

    def clear_range(self, begin: Any, end: Any) -> None:
        _once(self, lambda tr: tr.clear_range(begin, end))

    def __setitem__(self, key: Any, value: Any) -> None:
        self.set(key, value)

    def __delitem__(self, key: Any) -> None:
        _once(self, lambda tr: tr.__delitem__(key))


def transactional(function: Callable[..., Any]) -> Callable[..., Any]:
    """Run ``function`` in the caller's transaction, or in one of its own where it is given a database."""
    innermost = function
    while hasattr(innermost, "__wrapped__"):
        innermost = innermost.__wrapped__
    index = inspect.getfullargspec(innermost).args.index("tr")

    @functools.wraps(function)
    def wrapper(*args: Any, **options: Any) -> Any:
        if isinstance(args[index], TransactionRead):
            return function(*args, **options)
        return _once(args[index], lambda tr: function(*args[:index], tr, *args[index + 1 :], **options))

    return wrapper


def _once(database: Database, work: Callable[[Transaction], Any]) -> Any:
    transaction = database.create_transaction()
    while True:
        try:
            result = work(transaction)
            transaction.commit().wait()
        except FDBError as error:
            transaction.on_error(error).wait()
        else:
            return result


_databases: dict[str, Database] = {}
_opening = threading.Lock()
_open_file = open


def open(cluster_file: str | None = None) -> Database:  # noqa: A001 - the client's name
    """Open what the cluster file stands for; one database for each path, as in the client."""
    if cluster_file is None:
        raise FDBError(1515)
    with _opening:
        if cluster_file not in _databases:
            _databases[cluster_file] = Database(_open_store(cluster_file))
        return _databases[cluster_file]


def _open_store(cluster_file: str) -> Store:
    try:
        first = Path(cluster_file).read_text(encoding="utf-8").partition("\n")[0].strip()
    except OSError as error:
        raise FDBError(1515) from error
    if first.startswith("sqlite:///"):
        return FileStore(first.removeprefix("sqlite:///"))
    return MemoryStore()
