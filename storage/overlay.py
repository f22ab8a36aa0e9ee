"""Writes held back before they reach the transaction, and reads that see them.

Two layers lie over a transaction while a batch is applied:

    Draft   one record's writes; kept when the record turns out good, dropped whole when it does not
    View    the whole batch's writes to keys that records share; each key is written once, at the end;
            and the reads that were started for the whole batch at its beginning
"""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING, Final, Protocol

from storage.encoding import check_key, pack_value, span
from storage.engine import KEY_LIMIT

if TYPE_CHECKING:
    from typing import Any

    from storage.engine import KeyValue, Read, Transaction


class Layer(Protocol):
    """What handlers read from and write to. Reads see all earlier writes."""

    def get(self, key: bytes) -> bytes | None:
        """The value of a key."""
        ...

    def get_range(self, begin: bytes, end: bytes) -> list[KeyValue]:
        """All pairs from ``begin`` up to ``end``, in order."""
        ...

    def set(self, key: bytes, value: bytes) -> None:
        """Write a value."""
        ...

    def clear(self, key: bytes) -> None:
        """Delete a key."""
        ...

    def clear_range(self, begin: bytes, end: bytes) -> None:
        """Delete all keys from ``begin`` up to ``end``."""
        ...


class _Written:
    """Keys and what was written to them, in key order where a range is asked for; None stands for deleted."""

    def __init__(self) -> None:
        self.values: dict[bytes, bytes | None] = {}
        self._order: list[bytes] = []
        self._fresh: list[bytes] = []  # not in order yet

    def put(self, key: bytes, value: bytes | None) -> None:
        if key not in self.values:
            self._fresh.append(key)
        self.values[key] = value

    def inside(self, begin: bytes, end: bytes) -> list[bytes]:
        """The keys from ``begin`` up to ``end``."""
        order = self._in_order()
        return order[bisect_left(order, begin) : bisect_left(order, end)]

    def forget(self, begin: bytes, end: bytes) -> None:
        """Drop the keys from ``begin`` up to ``end``."""
        order = self._in_order()
        first, last = bisect_left(order, begin), bisect_left(order, end)
        for key in order[first:last]:
            del self.values[key]
        del order[first:last]

    def _in_order(self) -> list[bytes]:
        if self._fresh:
            self._order += self._fresh
            self._fresh.clear()
            self._order.sort()
        return self._order

    def merge(self, pairs: list[KeyValue], begin: bytes, end: bytes) -> list[KeyValue]:
        """Pairs of a range as they are once this is written over them."""
        inside = self.inside(begin, end)
        if not inside:
            return pairs
        if not pairs:
            return [(key, value) for key in inside if (value := self.values[key]) is not None]
        merged: dict[bytes, bytes | None] = dict(pairs)
        for key in inside:
            merged[key] = self.values[key]
        return sorted((key, value) for key, value in merged.items() if value is not None)


class View:
    """The batch's layer. Ranges are cleared in the transaction at once; single keys are written by `flush`.

    Args:
        transaction: what is below.
    """

    def __init__(self, transaction: Transaction) -> None:
        self.transaction: Final = transaction
        self._written = _Written()
        self._started: dict[bytes, Read[bytes | None]] = {}
        self._started_ranges: dict[tuple[bytes, bytes], Read[list[KeyValue]]] = {}

    def start(self, key: bytes) -> None:
        """Start reading a key that will be asked for."""
        if key not in self._started and len(key) <= KEY_LIMIT:
            self._started[key] = self.transaction.get(key)

    def start_range(self, prefix: bytes) -> None:
        """Start reading the range below a tuple that will be asked for."""
        where = span(prefix)
        if where not in self._started_ranges and len(prefix) < KEY_LIMIT:
            self._started_ranges[where] = self.transaction.get_range(*where)

    def get(self, key: bytes) -> bytes | None:
        """The value of a key. Raises `KeyTooLarge` for a key that cannot exist."""
        written = self._written.values
        if key in written:
            return written[key]
        started = self._started.get(key)
        if started is None:
            check_key(len(key))
            started = self._started[key] = self.transaction.get(key)
        return started.wait()

    def get_range(self, begin: bytes, end: bytes) -> list[KeyValue]:
        """All pairs from ``begin`` up to ``end``, in order."""
        started = self._started_ranges.get((begin, end))
        if started is None:
            check_key(len(end))
            started = self._started_ranges[begin, end] = self.transaction.get_range(begin, end)
        return self._written.merge(started.wait(), begin, end)

    def set(self, key: bytes, value: bytes) -> None:
        """Write a value, of a length that was checked."""
        self._written.put(key, value)

    def clear(self, key: bytes) -> None:
        """Delete a key."""
        self._written.put(key, None)

    def clear_range(self, begin: bytes, end: bytes) -> None:
        """Delete all keys from ``begin`` up to ``end``; whatever was read of them is forgotten."""
        self._written.forget(begin, end)
        for key in [key for key in self._started if begin <= key < end]:
            del self._started[key]
        for where in [(first, last) for first, last in self._started_ranges if first < end and begin < last]:
            del self._started_ranges[where]
        self.transaction.clear_range(begin, end)

    def flush(self) -> None:
        """Write every key once."""
        for key, value in self._written.values.items():
            if value is None:
                self.transaction.clear(key)
            else:
                self.transaction.set(key, value)
        self._written = _Written()


class Draft:
    """One record's layer over the view. Nothing of it is seen below before `keep`.

    Args:
        view: what is below.
    """

    def __init__(self, view: View) -> None:
        self._view = view
        self._written = _Written()
        self._cleared: list[tuple[bytes, bytes]] = []

    def get(self, key: bytes) -> bytes | None:
        """The value of a key. Raises `KeyTooLarge` for a key that cannot exist."""
        written = self._written.values
        if key in written:
            return written[key]
        if self._is_cleared(key):
            return None
        return self._view.get(key)

    def get_range(self, begin: bytes, end: bytes) -> list[KeyValue]:
        """All pairs from ``begin`` up to ``end``, in order."""
        if any(first <= begin and end <= last for first, last in self._cleared):
            pairs: list[KeyValue] = []  # whatever lies below is gone
        else:
            pairs = self._view.get_range(begin, end)
            if self._cleared:
                pairs = [pair for pair in pairs if not self._is_cleared(pair[0])]
        return self._written.merge(pairs, begin, end)

    def set(self, key: bytes, value: bytes) -> None:
        """Write a packed value. Raises `KeyTooLarge`."""
        if len(key) > KEY_LIMIT:
            check_key(len(key))
        self._written.put(key, value)

    def set_value(self, key: bytes, value: Any) -> None:
        """Write an object. Raises `KeyTooLarge`, `ValueTooLarge` or `InvalidRecord`."""
        self.set(key, pack_value(value))

    def clear(self, key: bytes) -> None:
        """Delete a key."""
        if len(key) <= KEY_LIMIT:  # else it cannot exist
            self._written.put(key, None)

    def clear_range(self, begin: bytes, end: bytes) -> None:
        """Delete all keys from ``begin`` up to ``end``. Raises `KeyTooLarge`."""
        check_key(len(end))
        self._written.forget(begin, end)
        self._cleared.append((begin, end))

    def keep(self) -> None:
        """Hand everything to the view: the record is good."""
        for begin, end in self._cleared:
            self._view.clear_range(begin, end)
        for key, value in self._written.values.items():
            if value is None:
                self._view.clear(key)
            else:
                self._view.set(key, value)

    def _is_cleared(self, key: bytes) -> bool:
        return any(begin <= key < end for begin, end in self._cleared)
