"""What a transaction has written and not committed: set, cleared, added; and a view of a snapshot through it."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

Pair = tuple[bytes, bytes]
Span = tuple[bytes, bytes]

CHUNK = 500  # rows taken from a snapshot at a time


class Snapshot(Protocol):
    """A store as it was at one version."""

    version: int

    def get(self, key: bytes) -> bytes | None: ...

    def chunk(self, begin: bytes, end: bytes, rows: int, *, reverse: bool) -> list[Pair]:
        """At most ``rows`` pairs of the range from its begin, or from its end if ``reverse``."""
        ...

    def close(self) -> None: ...


class Store(Protocol):
    """Where transactions read and commit."""

    def snapshot(self) -> Snapshot: ...

    def commit(self, snapshot: Snapshot | None, reads: list[Span], writes: Writes, deadline: float | None) -> int:
        """Do the writes if nothing read has changed since ``snapshot``, else raise 1020; the version made."""
        ...


class Additions(NamedTuple):
    """Numbers to be added to a value that was not read."""

    parameters: tuple[bytes, ...]

    def apply(self, value: bytes | None) -> bytes:
        """FoundationDB's atomic add: little-endian, as long as the parameter."""
        for parameter in self.parameters:
            size = len(parameter)
            base = int.from_bytes((value or b"")[:size], "little")
            total = (base + int.from_bytes(parameter, "little")) % (1 << (8 * size))
            value = total.to_bytes(size, "little")
        return value or b""


Written = bytes | Additions | None


class Writes:
    """Ranges cleared, then keys written. A key's last write stands; a range clear takes earlier writes away."""

    def __init__(self) -> None:
        self.values: dict[bytes, Written] = {}
        self.cleared: list[Span] = []  # disjoint, in order
        self._ordered: list[bytes] = []  # the keys of `values`, but for the last ones that came

    def __bool__(self) -> bool:
        return bool(self.values or self.cleared)

    def set(self, key: bytes, value: bytes | None) -> None:
        """Write, or with None clear, one key."""
        self.values[key] = value

    def add(self, key: bytes, parameter: bytes) -> None:
        """Add to the number under ``key``."""
        earlier = self.values.get(key, Additions(()))
        if key not in self.values and self.is_cleared(key):
            earlier = None
        if isinstance(earlier, Additions):
            self.values[key] = Additions((*earlier.parameters, parameter))
        else:
            self.set(key, Additions((parameter,)).apply(earlier))

    def clear_range(self, begin: bytes, end: bytes) -> None:
        """Clear ``begin <= key < end``."""
        if begin >= end:
            return
        ordered = self._in_order()
        first, last = bisect_left(ordered, begin), bisect_left(ordered, end)
        for key in ordered[first:last]:
            del self.values[key]
        del ordered[first:last]
        left = bisect_left(self.cleared, begin, key=lambda span: span[1])
        right = bisect_right(self.cleared, end, key=lambda span: span[0])
        if left < right:
            begin, end = min(begin, self.cleared[left][0]), max(end, self.cleared[right - 1][1])
        self.cleared[left:right] = [(begin, end)]

    def is_cleared(self, key: bytes) -> bool:
        index = bisect_right(self.cleared, key, key=lambda span: span[0]) - 1
        return index >= 0 and key < self.cleared[index][1]

    def get(self, key: bytes, snapshot: Snapshot) -> bytes | None:
        """The value of ``key`` as the transaction sees it."""
        if key in self.values:
            written = self.values[key]
            return written.apply(snapshot.get(key)) if isinstance(written, Additions) else written
        return None if self.is_cleared(key) else snapshot.get(key)

    def scan(self, snapshot: Snapshot, begin: bytes, end: bytes, *, reverse: bool) -> Iterator[Pair]:
        """The pairs of a range as the transaction sees them, in order."""
        ordered = self._in_order()
        own = ordered[bisect_left(ordered, begin) : bisect_left(ordered, end)]
        if reverse:
            own.reverse()
        ours = ((key, self.get(key, snapshot)) for key in own)
        theirs = (
            pair
            for pair in _pairs(snapshot, begin, end, reverse=reverse)
            if pair[0] not in self.values and not self.is_cleared(pair[0])
        )
        for key, value in _merge(ours, theirs, reverse=reverse):
            if value is not None:
                yield key, value

    def spans(self) -> list[Span]:
        """What other transactions' reads conflict with."""
        return [*self.cleared, *((key, key + b"\x00") for key in self.values)]

    def size(self) -> int:
        """Bytes as the client counts them: each mutation with 28 of its own, its conflict range with 24."""
        total = sum(2 * (len(begin) + len(end)) + 52 for begin, end in self.cleared)
        total += 3 * sum(map(len, self.values)) + 53 * len(self.values)
        for key, written in self.values.items():
            if type(written) is bytes:
                total += len(written)
            elif isinstance(written, Additions):
                total += sum(map(len, written.parameters))
            else:
                total += len(key) + 1
        return total

    def _in_order(self) -> list[bytes]:
        """The keys written, in order. A dict keeps them as they came: behind those ordered before are the fresh."""
        if len(self._ordered) < len(self.values):
            self._ordered.extend(islice(self.values, len(self._ordered), None))
            self._ordered.sort()
        return self._ordered


def _pairs(snapshot: Snapshot, begin: bytes, end: bytes, *, reverse: bool) -> Iterator[Pair]:
    rows = CHUNK // 10  # most ranges are short
    while begin < end:
        chunk = snapshot.chunk(begin, end, rows, reverse=reverse)
        yield from chunk
        if len(chunk) < rows:
            return
        if reverse:
            end = chunk[-1][0]
        else:
            begin = chunk[-1][0] + b"\x00"
        rows = CHUNK


def _merge(
    ours: Iterable[tuple[bytes, bytes | None]], theirs: Iterable[Pair], *, reverse: bool
) -> Iterator[tuple[bytes, bytes | None]]:
    left, right = iter(ours), iter(theirs)
    mine, other = next(left, None), next(right, None)
    while mine is not None and other is not None:
        if (mine[0] < other[0]) != reverse:
            yield mine
            mine = next(left, None)
        else:
            yield other
            other = next(right, None)
    if mine is not None:
        yield mine
        yield from left
    if other is not None:
        yield other
        yield from right
