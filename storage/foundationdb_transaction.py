"""The transactions of the FoundationDB engine: the client's own, with its limits checked where they are met.

The client's futures are under way as soon as they are made. A range comes in pages, and the client asks for a later
page when the earlier one has been used up, by which time the transaction may have written more; so unfinished ranges
are read to their end before the first write that follows them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

from storage.engine import KEY_LIMIT, VALUE_LIMIT
from storage.limits import SYSTEM_KEYS, check_key, check_pair, check_pairs, check_range, check_span

if TYPE_CHECKING:
    from collections.abc import Mapping

    from storage.engine import KeyValue


class _Value:
    """A value under way."""

    __slots__ = ("_future",)

    def __init__(self, future: Any) -> None:
        self._future = future

    def wait(self) -> bytes | None:
        value: bytes | None = self._future.value
        return value


class _Pairs:
    """A range under way."""

    __slots__ = ("_pages", "_pairs")

    def __init__(self, pages: Any) -> None:
        self._pages = pages
        self._pairs: list[KeyValue] | None = None

    def wait(self) -> list[KeyValue]:
        if self._pairs is None:
            self._pairs = [(pair.key, pair.value) for pair in self._pages.to_list()]
            self._pages = None
        return self._pairs


class Reading:
    """A transaction that only reads.

    Args:
        transaction: the client's.
        want_all: the client's streaming mode for ranges that are read whole.
    """

    __slots__ = ("_client_transaction", "_want_all")

    def __init__(self, transaction: Any, want_all: int) -> None:
        self._client_transaction = transaction
        self._want_all = want_all

    def get(self, key: bytes) -> _Value:
        """Start reading a value."""
        check_key(key)
        return _Value(self._transaction().get(key))

    def get_range(
        self, begin: bytes, end: bytes, *, limit: int = 0, reverse: bool = False, snapshot: bool = False
    ) -> _Pairs:
        """Start reading the pairs between two keys."""
        check_range(begin, end, limit=limit)
        transaction = self._transaction()
        reader = transaction.snapshot if snapshot else transaction
        return _Pairs(reader.get_range(begin, end, limit=limit, reverse=reverse, streaming_mode=self._want_all))

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

    def end(self) -> None:
        """Nothing can be asked of the transaction any more."""
        self._client_transaction = None

    def _transaction(self) -> Any:
        if self._client_transaction is None:
            msg = "this transaction is over: start another"
            raise RuntimeError(msg)
        return self._client_transaction


class Writing(Reading):
    """A transaction that also writes."""

    __slots__ = ("_client_set", "_unfinished")

    def __init__(self, transaction: Any, want_all: int) -> None:
        super().__init__(transaction, want_all)
        self._client_set = transaction.set
        self._unfinished: list[_Pairs] = []

    def get_range(
        self, begin: bytes, end: bytes, *, limit: int = 0, reverse: bool = False, snapshot: bool = False
    ) -> _Pairs:
        """Start reading the pairs between two keys."""
        pairs = super().get_range(begin, end, limit=limit, reverse=reverse, snapshot=snapshot)
        self._unfinished.append(pairs)
        return pairs

    def set(self, key: bytes, value: bytes) -> None:
        """Write one key."""
        # The hot path: what `check_pair` and `_settle` look at, without two calls a key.
        if (
            type(key) is not bytes
            or type(value) is not bytes
            or len(key) > KEY_LIMIT
            or len(value) > VALUE_LIMIT
            or key >= SYSTEM_KEYS
        ):
            check_pair(key, value)
        if self._unfinished or self._client_transaction is None:
            self._settle()
        self._client_set(key, value)

    def set_all(self, pairs: Mapping[bytes, bytes]) -> None:
        """Write many keys."""
        check_pairs(pairs)
        self._settle()
        write = self._client_set
        for key, value in pairs.items():
            write(key, value)

    def clear(self, key: bytes) -> None:
        """Delete one key."""
        check_key(key)
        self._settle().clear(key)

    def clear_range(self, begin: bytes, end: bytes) -> None:
        """Delete what is between two keys."""
        check_span(begin, end)
        self._settle().clear_range(begin, end)

    def end(self) -> None:
        """Nothing can be asked of the transaction any more."""
        super().end()
        self._client_set = None

    def _settle(self) -> Any:
        """The client's transaction, once no range that was asked for can see what is written next."""
        transaction = self._transaction()
        if self._unfinished:
            unfinished, self._unfinished = self._unfinished, []
            for pairs in unfinished:
                pairs.wait()
        return transaction


def _refuse_write(key: bytes) -> NoReturn:
    msg = f"a write of {key[:60]!r} in Engine.read: use Engine.transact"
    raise TypeError(msg)
