"""The fake store: serializable transactions on versions, with real detection of read conflicts, in memory.

A version is two dictionaries that nobody changes once they are committed, so that a snapshot costs nothing and the
store can go back to any earlier version. Beside keys and values it has one log per run, which transactions append to
without reading it: nothing but the rules under test keeps two of them from writing the same record.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, NamedTuple, Protocol, TypeVar

from storage.engine import VALUE_LIMIT, KeyValue
from storage.errors import Contended, StorageUnavailable, TransactionTooLarge, ValueTooLarge

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

T = TypeVar("T")

CONFLICTS_BEFORE_CONTENDED = 3
REMEMBERED = 40  # versions that the store can go back to


class Crash(BaseException):
    """The actor's process dies here. No Exception, so that nothing under test can catch it."""


class Identity(NamedTuple):
    """Which record it was: the topic's life, partition, offset."""

    life: int
    partition: int
    offset: int


class Version(NamedTuple):
    """All that the store holds at one moment. Never changed in place."""

    number: int
    data: dict[bytes, bytes]
    logs: dict[str, tuple[Identity, ...]]


@dataclass(slots=True)
class _Done(Generic[T]):
    answer: T

    def wait(self) -> T:
        return self.answer


@dataclass(slots=True)
class _Commit:
    number: int
    keys: frozenset[bytes]
    spans: list[tuple[bytes, bytes]]

    def touches(self, keys: set[bytes], spans: list[tuple[bytes, bytes]]) -> bool:
        if not self.keys.isdisjoint(keys):
            return True
        if any(begin <= key < end for begin, end in spans for key in self.keys):
            return True
        return any(begin <= key < end for begin, end in self.spans for key in keys) or any(
            begin < other_end and other_begin < end for begin, end in self.spans for other_begin, other_end in spans
        )


class SimTransaction:
    """One transaction on a version; see `storage.engine.Transaction`."""

    def __init__(self, store: SimStore) -> None:
        self.store = store
        self.version = store.version
        self.weight = 0  # what counts against the size limit
        self.appended: list[tuple[str, Identity]] = []
        self.writes: dict[bytes, bytes | None] = {}
        self.cleared: list[tuple[bytes, bytes]] = []
        self.read_keys: set[bytes] = set()
        self.read_spans: list[tuple[bytes, bytes]] = []

    @property
    def changes(self) -> bool:
        return bool(self.writes or self.cleared or self.appended)

    def get(self, key: bytes) -> _Done[bytes | None]:
        if key in self.writes:
            return _Done(self.writes[key])
        self.read_keys.add(key)
        return _Done(self._below(key))

    def get_without_conflict(self, key: bytes) -> _Done[bytes | None]:
        """A snapshot read of one key. The real engines have none: this is for planted bugs."""
        return _Done(self._below(key))

    def _below(self, key: bytes) -> bytes | None:
        if any(begin <= key < end for begin, end in self.cleared):
            return None
        return self.version.data.get(key)

    def get_range(
        self, begin: bytes, end: bytes, *, limit: int = 0, reverse: bool = False, snapshot: bool = False
    ) -> _Done[list[KeyValue]]:
        if not snapshot:
            self.read_spans.append((begin, end))
        data = self.version.data
        found = {key: data[key] for key in data if begin <= key < end}
        if self.cleared:
            found = {key: value for key, value in found.items() if self._below(key) is not None}
        for key, value in self.writes.items():
            if begin <= key < end:
                if value is None:
                    found.pop(key, None)
                else:
                    found[key] = value
        pairs = sorted(found.items(), reverse=reverse)
        return _Done(pairs[:limit] if limit else pairs)

    def set_all(self, pairs: Mapping[bytes, bytes]) -> None:
        for key, value in pairs.items():
            self.set(key, value)

    def set(self, key: bytes, value: bytes) -> None:
        if len(value) > VALUE_LIMIT:
            raise ValueTooLarge(f"{len(value)} bytes")
        self.writes[key] = value

    def clear(self, key: bytes) -> None:
        self.writes[key] = None

    def clear_range(self, begin: bytes, end: bytes) -> None:
        for key in [key for key in self.writes if begin <= key < end]:
            del self.writes[key]
        self.cleared.append((begin, end))

    def append(self, run: str, identity: Identity) -> None:
        """Append to a run's log at commit, without reading it (as an atomic operation)."""
        self.appended.append((run, identity))
        self.weight += 1


@dataclass(slots=True)
class SimStore:
    """The store that all actors share."""

    version: Version = field(default_factory=lambda: Version(0, {}, {}))
    pending: list[SimTransaction] = field(default_factory=list)
    past: deque[Version] = field(default_factory=lambda: deque(maxlen=REMEMBERED))
    _commits: deque[_Commit] = field(default_factory=lambda: deque(maxlen=400))

    def commit(self, transaction: SimTransaction) -> bool:
        """Commit, or find that something that was read has changed since."""
        if not transaction.changes:
            return True
        for commit in reversed(self._commits):
            if commit.number <= transaction.version.number:
                break
            if commit.touches(transaction.read_keys, transaction.read_spans):
                return False
        data = dict(self.version.data)
        spans = transaction.cleared
        if spans:
            data = {key: value for key, value in data.items() if not any(b <= key < e for b, e in spans)}
        for key, value in transaction.writes.items():
            if value is None:
                data.pop(key, None)
            else:
                data[key] = value
        logs = self.version.logs
        if transaction.appended:
            logs = dict(logs)
            for run, identity in transaction.appended:
                logs[run] = (*logs.get(run, ()), identity)
        number = self.version.number + 1
        self.past.append(self.version)
        self.version = Version(number, data, logs)
        self._commits.append(_Commit(number, frozenset(transaction.writes), spans))
        return True

    def go_back(self, version: Version) -> None:
        """Become what it was at an earlier version, by one commit that writes every key, as a backup that is restored.

        So whatever is under way fails if it has read anything serializably, and only then.
        """
        self.pending.clear()
        self.past = deque((old for old in self.past if old.number < version.number), maxlen=REMEMBERED)
        self.version = version._replace(number=self.version.number + 1)
        self._commits.append(_Commit(self.version.number, frozenset(), [(b"", b"\xff")]))

    def forget_past(self) -> None:
        """No version up to now can be gone back to."""
        self.past.clear()


class Fate(NamedTuple):
    """What becomes of one commit: whether it happens (None: later, if it still can), and what the caller sees."""

    happens: bool | None
    seen: str  # "ok", "unknown", "unavailable", "crash"


CERTAIN = Fate(happens=True, seen="ok")


class Weather(Protocol):
    """What happens around one actor's transactions."""

    def before(self) -> None:
        """May raise StorageUnavailable or Crash."""

    def between(self) -> None:
        """Others act between a transaction's work and its commit; may raise Crash."""

    def draw(self, transaction: SimTransaction) -> Fate:
        """What becomes of the commit."""

    def refuses(self, transaction: SimTransaction) -> bool:
        """Whether the transaction is too large."""

    def note(self, event: str) -> None:
        """Count an event."""


class SimEngine:
    """One actor's client of the store; see `storage.engine.Engine`."""

    def __init__(self, store: SimStore, weather: Weather) -> None:
        self._store = store
        self._weather = weather

    @property
    def url(self) -> str:
        return "simulated://"

    def directory(self, *path: str) -> bytes:
        return "/".join(path).encode()

    def transact(self, work: Callable[[SimTransaction], T], *, impatient: bool = False) -> T:
        conflicts = 0
        weather = self._weather
        for _ in range(100):
            weather.before()
            transaction = SimTransaction(self._store)
            result = work(transaction)
            weather.between()
            if weather.refuses(transaction):
                weather.note("transaction too large")
                raise TransactionTooLarge("more than this store's limit")
            fate = weather.draw(transaction)
            if fate.happens is None:
                self._store.pending.append(transaction)
            elif fate.happens and not self._store.commit(transaction) and fate.seen in {"ok", "unknown"}:
                weather.note("conflict")
                conflicts += 1
                if impatient and conflicts >= CONFLICTS_BEFORE_CONTENDED:
                    weather.note("contended")
                    raise Contended("conflicted again and again")
                continue
            if fate.seen == "ok":
                return result
            if fate.seen == "unavailable":
                raise StorageUnavailable("no answer to the commit")
            if fate.seen == "crash":
                raise Crash
        raise AssertionError("a transaction that never gets through")

    def read(self, work: Callable[[SimTransaction], T]) -> T:
        self._weather.before()
        return work(SimTransaction(self._store))

    def close(self) -> None:
        pass


def walk_versions(store: SimStore) -> Iterator[Version]:
    """The versions that the store can go back to, newest first."""
    return reversed(store.past)
