"""The reading half of the double's transactions: values, key selectors, and ranges that come in pages."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from .codes import FDBError
from .futures import Future, Value
from .writes import Writes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .impl import Database
    from .writes import Pair, Snapshot, Span


class StreamingMode:
    """How much of a range a page holds."""

    want_all = -2
    iterator = -1
    exact = 0
    small = 1
    medium = 2
    large = 3
    serial = 4


# Bytes a page, as in the client (fdb_c.cpp, fdb_transaction_get_range); a page ends with the pair that passes them.
_PAGE_BYTES = {-2: 80_000, -1: 4_096, 0: None, 1: 256, 2: 1_000, 3: 4_096, 4: 80_000}


class KeySelector:
    """A key by its place relative to another one."""

    def __init__(self, key: Any, or_equal: bool, offset: int) -> None:
        self.key = key_to_bytes(key)
        self.or_equal = or_equal
        self.offset = offset

    @classmethod
    def last_less_than(cls, key: Any) -> KeySelector:
        return cls(key, False, 0)

    @classmethod
    def last_less_or_equal(cls, key: Any) -> KeySelector:
        return cls(key, True, 0)

    @classmethod
    def first_greater_than(cls, key: Any) -> KeySelector:
        return cls(key, True, 1)

    @classmethod
    def first_greater_or_equal(cls, key: Any) -> KeySelector:
        return cls(key, False, 1)

    def boundary(self) -> bytes:
        """The selector as a range's boundary; only the two that need no look at the store."""
        if self.offset != 1:
            msg = f"the double knows selectors of offset 1 only, not {self.offset}"
            raise NotImplementedError(msg)
        return self.key + b"\x00" if self.or_equal else self.key


class KeyValue:
    """One pair of a range."""

    __slots__ = ("key", "value")

    def __init__(self, key: bytes, value: bytes) -> None:
        self.key = key
        self.value = value

    def __iter__(self) -> Iterator[bytes]:
        return iter((self.key, self.value))

    def __repr__(self) -> str:
        return f"{self.key!r}: {self.value!r}"


class State:
    """One try of a transaction: its snapshot, what it read, what it wrote, and what has gone wrong."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.snapshot: Snapshot | None = None
        self.reads: list[Span] = []
        self.writes = Writes()
        self.deferred: FDBError | None = None

    def view(self, deadline: float | None) -> Snapshot:
        """The snapshot to read from, taken at the first read."""
        check_deadline(deadline)
        self.database.faults.wait_for_store(deadline)
        if self.deferred is not None:
            raise self.deferred
        if self.snapshot is None:
            self.snapshot = self.database.store.snapshot()
        self.database.faults.take_read()
        return self.snapshot

    def close(self) -> None:
        if self.snapshot is not None:
            self.snapshot.close()


class TransactionRead:
    """What can be asked of a transaction. ``Transaction.snapshot`` is one that adds no conflict ranges."""

    def __init__(self, database: Database, *, conflicts: bool) -> None:
        self.db = database
        self._conflicts = conflicts

    def _state(self) -> State:
        raise NotImplementedError

    def _deadline(self) -> float | None:
        raise NotImplementedError

    def get_read_version(self) -> Future:
        try:
            return Future(self._state().view(self._deadline()).version)
        except FDBError as error:
            return Future(error=error)

    def get(self, key: Any) -> Value:
        state, key = self._state(), key_to_bytes(key)
        try:
            snapshot = state.view(self._deadline())
            if key >= b"\xff":
                raise FDBError(2004)
            value = state.writes.get(key, snapshot)
        except FDBError as error:
            return Value(error=error)
        # A value that the transaction has written itself depends on nobody else.
        if self._conflicts and not isinstance(state.writes.values.get(key), bytes):
            state.reads.append((key, key + b"\x00"))
        return Value(value)

    def get_range(
        self, begin: Any, end: Any, limit: int = 0, reverse: bool = False, streaming_mode: int = StreamingMode.iterator
    ) -> FDBRange:
        first = begin.boundary() if isinstance(begin, KeySelector) else key_to_bytes(b"" if begin is None else begin)
        last = end.boundary() if isinstance(end, KeySelector) else key_to_bytes(b"\xff" if end is None else end)
        return FDBRange(self, first, last, limit, reverse, streaming_mode)

    def get_range_startswith(self, prefix: Any, *args: Any, **options: Any) -> FDBRange:
        prefix = key_to_bytes(prefix)
        return self.get_range(prefix, strinc(prefix), *args, **options)

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, slice):
            return self.get_range(key.start, key.stop, reverse=(key.step == -1))
        return self.get(key)

    def page(self, begin: bytes, end: bytes, limit: int, reverse: bool, mode: int) -> Future:
        """One page of a range: its pairs, and whether there are more."""
        state = self._state()
        try:
            snapshot = state.view(self._deadline())
            pairs, more = _take_page(state, snapshot, begin, end, limit, reverse, _PAGE_BYTES[mode])
        except FDBError as error:
            return Future(error=error)
        if self._conflicts and begin < end:
            if more and reverse:
                begin = pairs[-1][0]
            elif more:
                end = pairs[-1][0] + b"\x00"
            state.reads.append((begin, end))
        return Future((pairs, more))


def _take_page(
    state: State, snapshot: Snapshot, begin: bytes, end: bytes, limit: int, reverse: bool, most_bytes: int | None
) -> tuple[list[Pair], bool]:
    pairs: list[Pair] = []
    size = 0
    for pair in state.writes.scan(snapshot, begin, end, reverse=reverse):
        pairs.append(pair)
        size += len(pair[0]) + len(pair[1])
        if len(pairs) == limit or (most_bytes is not None and size >= most_bytes):
            return pairs, True
    return pairs, False


class FDBRange:
    """A range under way. The first page is read at once, each later one when the pairs before it have been used up."""

    def __init__(
        self, transaction: TransactionRead, begin: bytes, end: bytes, limit: int, reverse: bool, mode: int
    ) -> None:
        self._transaction = transaction
        self._begin = begin
        self._end = end
        self._limit = limit
        self._reverse = reverse
        self._mode = mode
        self._first = transaction.page(begin, end, limit, reverse, mode)

    def to_list(self) -> list[KeyValue]:
        mode = self._mode
        if mode == StreamingMode.iterator:
            mode = StreamingMode.exact if self._limit > 0 else StreamingMode.want_all
        return list(self._iterate(mode))

    def __iter__(self) -> Iterator[KeyValue]:
        return self._iterate(self._mode)

    def _iterate(self, mode: int) -> Iterator[KeyValue]:
        begin, end, limit = self._begin, self._end, self._limit
        future = self._first
        while True:
            pairs, more = future.wait()
            for key, value in pairs:
                yield KeyValue(key, value)
            if not more or limit == len(pairs):
                return
            if limit > 0:
                limit -= len(pairs)
            if self._reverse:
                end = pairs[-1][0]
            else:
                begin = pairs[-1][0] + b"\x00"
            future = self._transaction.page(begin, end, limit, self._reverse, mode)


def check_deadline(deadline: float | None) -> None:
    """Raise what the client raises once a transaction's timeout has passed."""
    if deadline is not None and time.monotonic() > deadline:
        raise FDBError(1031)


def key_to_bytes(key: Any) -> bytes:
    if hasattr(key, "as_foundationdb_key"):
        key = key.as_foundationdb_key()
    if not isinstance(key, bytes):
        msg = "Key must be of type bytes"
        raise TypeError(msg)
    return key


def value_to_bytes(value: Any) -> bytes:
    if hasattr(value, "as_foundationdb_value"):
        value = value.as_foundationdb_value()
    if not isinstance(value, bytes):
        msg = "Value must be of type bytes"
        raise TypeError(msg)
    return value


def strinc(key: bytes) -> bytes:
    """The first key behind all that begin with ``key``."""
    key = key.rstrip(b"\xff")
    if not key:
        msg = "Key must contain at least one byte not equal to 0xFF."
        raise ValueError(msg)
    return key[:-1] + bytes([key[-1] + 1])
