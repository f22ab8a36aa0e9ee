"""Writes held back before they reach the transaction, and reads that see them.

Two layers lie over a transaction while a batch is applied:

    Draft   one record's writes; kept when the record turns out good, dropped whole when it does not
    View    the whole batch's writes to keys that records share; each key is written once, at the end;
            and the reads that were started for the whole batch at its beginning
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from itertools import chain
from typing import TYPE_CHECKING, Final, Protocol

from storage.encoding import check_key, pack_value, span
from storage.engine import KEY_LIMIT

if TYPE_CHECKING:
    from collections.abc import Mapping
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
    """What was written: ranges that were cleared, then keys and their values; None stands for deleted."""

    def __init__(self) -> None:
        self.values: dict[bytes, bytes | None] = {}
        self._begins: list[bytes] = []  # of the ranges that were cleared, which are disjoint; in order
        self._ends: list[bytes] = []
        self._ordered: list[list[bytes]] = []  # the keys of `values` but for those in `_fresh`, see `_in_order`
        self._fresh: list[bytes] = []

    def put(self, key: bytes, value: bytes | None) -> None:
        """Write, or with None delete, one key."""
        if key not in self.values:
            self._fresh.append(key)
        self.values[key] = value

    def put_all(self, pairs: Mapping[bytes, bytes | None]) -> None:
        """Write many keys."""
        values = self.values
        self._fresh += [key for key in pairs if key not in values]
        values.update(pairs)

    def clear_range(self, begin: bytes, end: bytes) -> None:
        """Delete the keys from ``begin`` up to ``end``, here and below."""
        for ordered in self._in_order():
            first, last = bisect_left(ordered, begin), bisect_left(ordered, end)
            for key in ordered[first:last]:
                del self.values[key]
            del ordered[first:last]
        begins, ends = self._begins, self._ends
        left, right = bisect_left(ends, begin), bisect_right(begins, end)  # those that touch it become one with it
        if left < right:
            begin, end = min(begin, begins[left]), max(end, ends[right - 1])
        begins[left:right], ends[left:right] = [begin], [end]

    def cleared(self) -> list[tuple[bytes, bytes]]:
        """The ranges that were cleared, disjoint and in order."""
        return list(zip(self._begins, self._ends, strict=True))

    def hides(self, key: bytes) -> bool:
        """Whether whatever lies below under a key has been cleared away."""
        index = bisect_right(self._begins, key) - 1
        return index >= 0 and key < self._ends[index]

    def hides_all(self, begin: bytes, end: bytes) -> bool:
        """Whether whatever lies below from ``begin`` up to ``end`` has been cleared away."""
        index = bisect_right(self._begins, begin) - 1
        return index >= 0 and end <= self._ends[index]

    def over(self, pairs: list[KeyValue], begin: bytes, end: bytes) -> list[KeyValue]:
        """Pairs of a range below as they are once this is written over them."""
        if bisect_right(self._ends, begin) < bisect_left(self._begins, end):  # some of it was cleared
            pairs = [pair for pair in pairs if not self.hides(pair[0])]
        values = self.values
        inside = self._inside(begin, end)
        if not inside:
            return pairs
        if not pairs:
            return [(key, value) for key in inside if (value := values[key]) is not None]
        merged: dict[bytes, bytes | None] = dict(pairs)
        merged.update({key: values[key] for key in inside})
        return sorted((key, value) for key, value in merged.items() if value is not None)

    def _inside(self, begin: bytes, end: bytes) -> list[bytes]:
        """The keys from ``begin`` up to ``end``, in order."""
        parts = [ordered[bisect_left(ordered, begin) : bisect_left(ordered, end)] for ordered in self._in_order()]
        return parts[0] if len(parts) == 1 else sorted(chain.from_iterable(parts))

    def _in_order(self) -> list[list[bytes]]:
        """The keys in some ordered lists, each at least twice as long as the next.

        Many records of a batch ask for an order, each after a few keys more: so a key is moved to a longer list now and
        then, where one list of all would be gone through for each of them.
        """
        if self._fresh:
            added, self._fresh = self._fresh, []
            while self._ordered and len(self._ordered[-1]) < 2 * len(added):
                added = self._ordered.pop() + added
            added.sort()
            self._ordered.append(added)
        return self._ordered


class View:
    """The batch's layer. Ranges are cleared in the transaction at once; single keys are written by `flush`.

    What is written past it to the transaction must not lie where it reads, or in what it has cleared: the points of
    sequences do not, since a deleted run gets none.

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
        written = self._written
        if key in written.values:
            return written.values[key]
        if len(key) > KEY_LIMIT:
            check_key(len(key))
        if written.hides(key):
            return None
        started = self._started.get(key)
        if started is None:
            started = self._started[key] = self.transaction.get(key)
        return started.wait()

    def get_range(self, begin: bytes, end: bytes) -> list[KeyValue]:
        """All pairs from ``begin`` up to ``end``, in order. Raises `KeyTooLarge`."""
        check_key(len(end))
        written = self._written
        if written.hides_all(begin, end):
            return written.over([], begin, end)
        started = self._started_ranges.get((begin, end))
        if started is None:
            started = self._started_ranges[begin, end] = self.transaction.get_range(begin, end)
        return written.over(started.wait(), begin, end)

    def set(self, key: bytes, value: bytes) -> None:
        """Write a value, of a length that was checked."""
        self._written.put(key, value)

    def put_all(self, pairs: Mapping[bytes, bytes | None]) -> None:
        """Write values of lengths that were checked, and delete the keys whose value is None."""
        self._written.put_all(pairs)

    def clear_range(self, begin: bytes, end: bytes) -> None:
        """Delete all keys from ``begin`` up to ``end``, whatever was read of them."""
        if not self._written.hides_all(begin, end):  # else nothing lies below: whoever cleared it, wrote here since
            self.transaction.clear_range(begin, end)
        self._written.clear_range(begin, end)

    def flush(self) -> None:
        """Write every key once."""
        values = self._written.values
        self.transaction.set_all({key: value for key, value in values.items() if value is not None})
        for key, value in values.items():
            if value is None:
                self.transaction.clear(key)
        self._written = _Written()


class Draft:
    """One record's layer over the view. Nothing of it is seen below before `keep`.

    Args:
        view: what is below.
    """

    def __init__(self, view: View) -> None:
        self._view = view
        self._written = _Written()

    def start_range(self, prefix: bytes) -> None:
        """Start reading the range below a tuple that will be asked for."""
        self._view.start_range(prefix)

    def get(self, key: bytes) -> bytes | None:
        """The value of a key. Raises `KeyTooLarge` for a key that cannot exist."""
        written = self._written
        if key in written.values:
            return written.values[key]
        return None if written.hides(key) else self._view.get(key)

    def get_range(self, begin: bytes, end: bytes) -> list[KeyValue]:
        """All pairs from ``begin`` up to ``end``, in order."""
        written = self._written
        below = [] if written.hides_all(begin, end) else self._view.get_range(begin, end)
        return written.over(below, begin, end)

    def set(self, key: bytes, value: bytes) -> None:
        """Write a packed value. Raises `KeyTooLarge`."""
        if len(key) > KEY_LIMIT:
            check_key(len(key))
        self._written.put(key, value)

    def set_all(self, pairs: Mapping[bytes, bytes]) -> None:
        """Write packed values. Raises `KeyTooLarge`, and then writes nothing."""
        if pairs and max(map(len, pairs)) > KEY_LIMIT:
            for key in pairs:
                check_key(len(key))  # tells of the first
        self._written.put_all(pairs)

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
        self._written.clear_range(begin, end)

    def keep(self) -> None:
        """Hand everything to the view: the record is good."""
        for begin, end in self._written.cleared():
            self._view.clear_range(begin, end)
        self._view.put_all(self._written.values)
