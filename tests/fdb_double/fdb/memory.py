"""An ordered, versioned store in memory. A commit fails if anything it read has been written since its version."""

from __future__ import annotations

import threading
import time
from bisect import bisect_left
from collections import deque
from typing import TYPE_CHECKING, Any

from .codes import FDBError
from .writes import Additions

if TYPE_CHECKING:
    from .writes import Pair, Snapshot, Span, Writes

_Version = tuple[int, bytes | None]  # when it was written, and what; None: deleted

LIFETIME = 5.0  # seconds that a transaction may read at its version


class _Commit:
    """One commit, as later ones have to know it."""

    def __init__(self, version: int, when: float, writes: Writes) -> None:
        self.version = version
        self.when = when
        self.spans = list(writes.cleared)
        self.keys = list(writes.values)
        self.gone: list[bytes] = []
        self._sorted = False

    def touches(self, begin: bytes, end: bytes) -> bool:
        if not self._sorted:
            self.keys.sort()
            self._sorted = True
        index = bisect_left(self.keys, begin)
        if index < len(self.keys) and self.keys[index] < end:
            return True
        return any(first < end and begin < last for first, last in self.spans)


class MemorySnapshot:
    """The store at one version."""

    def __init__(self, store: MemoryStore, version: int) -> None:
        self.version = version
        self.begun = time.monotonic()
        self._store = store

    def get(self, key: bytes) -> bytes | None:
        return self._store.get(key, self)

    def chunk(self, begin: bytes, end: bytes, rows: int, *, reverse: bool) -> list[Pair]:
        return self._store.chunk(self, begin, end, rows, reverse=reverse)

    def close(self) -> None:
        pass


class MemoryStore:
    """See the module. Safe for threads; dies with the process."""

    def __init__(self) -> None:
        from sortedcontainers import SortedList  # only here: where the store is a file, it need not be installed

        self.lifetime = LIFETIME
        self._lock = threading.Lock()
        self._version = 1
        self._horizon = 1  # the oldest version that can still be read
        self._values: dict[bytes, _Version | list[_Version]] = {}  # several: oldest first
        self._keys: Any = SortedList()  # of _values, but for _fresh
        self._fresh: list[bytes] = []  # put in order when somebody asks for a range
        self._commits: deque[_Commit] = deque()

    def snapshot(self) -> MemorySnapshot:
        with self._lock:
            return MemorySnapshot(self, self._version)

    def get(self, key: bytes, snapshot: MemorySnapshot) -> bytes | None:
        with self._lock:
            self._check_age(snapshot)
            return _at(self._values.get(key), snapshot.version)

    def chunk(self, snapshot: MemorySnapshot, begin: bytes, end: bytes, rows: int, *, reverse: bool) -> list[Pair]:
        found: list[Pair] = []
        with self._lock:
            self._check_age(snapshot)
            for key in self._in_order().irange(begin, end, inclusive=(True, False), reverse=reverse):
                value = _at(self._values[key], snapshot.version)
                if value is not None:
                    found.append((key, value))
                    if len(found) == rows:
                        break
        return found

    def commit(
        self,
        snapshot: Snapshot | None,
        reads: list[Span],
        writes: Writes,
        deadline: float | None,
    ) -> int:
        with self._lock:
            if isinstance(snapshot, MemorySnapshot):
                self._check_age(snapshot)
                self._check_conflicts(snapshot.version, reads)
            self._version += 1
            commit = _Commit(self._version, time.monotonic(), writes)
            for begin, end in writes.cleared:
                for key in self._in_order().irange(begin, end, inclusive=(True, False)):
                    self._write(commit, key, None)
            values, version = self._values, self._version
            for key, written in writes.values.items():
                if type(written) is bytes and key not in values:  # as most are
                    values[key] = (version, written)
                    self._fresh.append(key)
                    continue
                value = written
                if isinstance(value, Additions):
                    value = value.apply(_at(values.get(key), version))
                self._write(commit, key, value)
            self._commits.append(commit)
            self._forget(commit.when)
            return self._version

    def _write(self, commit: _Commit, key: bytes, value: bytes | None) -> None:
        versions = self._values.get(key)
        if versions is None:
            if value is not None:
                self._values[key] = (commit.version, value)
                self._fresh.append(key)
            return
        if isinstance(versions, tuple):
            versions = self._values[key] = [versions]
        while len(versions) > 1 and versions[1][0] <= self._horizon:
            del versions[0]
        versions.append((commit.version, value))
        if value is None:
            commit.gone.append(key)

    def _check_age(self, snapshot: MemorySnapshot) -> None:
        if snapshot.version < self._horizon or time.monotonic() - snapshot.begun > self.lifetime:
            raise FDBError(1007)

    def _check_conflicts(self, version: int, reads: list[Span]) -> None:
        for commit in reversed(self._commits):
            if commit.version <= version:
                return
            if any(commit.touches(begin, end) for begin, end in reads):
                raise FDBError(1020)

    def _forget(self, now: float) -> None:
        """Let go of commits that no transaction can have begun before, and of keys that they left without a value."""
        while self._commits and self._commits[0].when < now - 2 * self.lifetime:
            commit = self._commits.popleft()
            self._horizon = commit.version
            for key in commit.gone:
                versions = self._values.get(key)
                if isinstance(versions, list) and versions[-1] == (commit.version, None):
                    del self._values[key]
                    self._in_order().remove(key)

    def _in_order(self) -> Any:
        """All keys, in order."""
        if self._fresh:
            self._keys.update(self._fresh)
            self._fresh.clear()
        return self._keys


def _at(versions: _Version | list[_Version] | None, version: int) -> bytes | None:
    if versions is None:
        return None
    for written, value in reversed(versions) if isinstance(versions, list) else (versions,):
        if written <= version:
            return value
    return None
