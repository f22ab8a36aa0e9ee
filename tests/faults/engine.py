"""A store in memory with real optimistic concurrency, that fails and goes back as it is told."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from storage.errors import Contended, StorageUnavailable, TransactionTooLarge

if TYPE_CHECKING:
    from storage.ledger import Ledger
    from tests.faults.world import World

T = TypeVar("T")

Undo = dict[bytes, bytes | None]


class Answer:
    """A read that was answered at once."""

    def __init__(self, value: Any) -> None:
        self._value = value

    def wait(self) -> Any:
        return self._value


class SimTransaction:
    """Reads and writes of one try. ``blind`` keys are read without a conflict range: a planted bug."""

    def __init__(self, engine: SimEngine) -> None:
        self._engine = engine
        self.version = engine.version
        self.reads: list[tuple[bytes, bytes]] = []
        self.writes: dict[bytes, bytes | None] = {}

    def get(self, key: bytes) -> Any:
        if key in self.writes:
            return Answer(self.writes[key])
        if not self._engine.is_blind(key):
            self.reads.append((key, key + b"\x00"))
        return Answer(self._engine.data.get(key))

    def get_range(self, begin: bytes, end: bytes, *, limit: int = 0, reverse: bool = False) -> Any:
        self.reads.append((begin, end))
        found = {key: self._engine.data[key] for key in self._engine.inside(begin, end)}
        for key, value in self.writes.items():
            if begin <= key < end:
                if value is None:
                    found.pop(key, None)
                else:
                    found[key] = value
        pairs = sorted(found.items(), reverse=reverse)
        return Answer(pairs[:limit] if limit else pairs)

    def set(self, key: bytes, value: bytes) -> None:
        self.writes[key] = value

    def clear(self, key: bytes) -> None:
        self.writes[key] = None

    def clear_range(self, begin: bytes, end: bytes) -> None:
        for key in [*self._engine.inside(begin, end), *(key for key in self.writes if begin <= key < end)]:
            self.writes[key] = None


class SimEngine:
    """`storage.engine.Engine` for the simulation."""

    url = "simulated"

    def __init__(self, world: World) -> None:
        self.world = world
        self.data: dict[bytes, bytes] = {}
        self.version = 0
        self.away = False
        self.is_blind: Callable[[bytes], bool] = lambda key: False
        self._order: list[bytes] = []
        self._history: list[tuple[int, Undo]] = []
        self._barrier = 0

    def inside(self, begin: bytes, end: bytes) -> list[bytes]:
        return self._order[bisect_left(self._order, begin) : bisect_left(self._order, end)]

    def directory(self, *path: str) -> bytes:
        return "/".join(path).encode()

    def close(self) -> None:
        """Nothing to give back."""

    def read(self, work: Callable[[Any], T]) -> T:
        self._answer()
        return work(SimTransaction(self))

    def transact(self, work: Callable[[Any], T], *, impatient: bool = False) -> T:
        conflicts = 0
        while True:
            self._answer()
            transaction = SimTransaction(self)
            result = work(transaction)
            self.world.pause("before commit")
            self._answer()
            fault = self.world.draw_commit_fault(transaction.writes, impatient=impatient)
            if fault == "too large":
                raise TransactionTooLarge("simulated")
            if self._conflicts(transaction):
                self.world.count("conflict")
                conflicts += 1
                if impatient and conflicts == 3:
                    raise Contended("simulated")
                continue
            if fault == "unknown, not committed":
                continue  # the retry settles it
            self._commit(transaction)
            if fault == "unknown, committed":
                continue
            self.world.pause("after commit")
            return result

    def found_store(self, ledger: Ledger) -> None:
        """Give the store its id, once and for all: a store that has lost even that is another store."""
        transaction = SimTransaction(self)
        ledger.store_id(transaction)
        self._commit(transaction)
        self.protect()

    def protect(self) -> None:
        """What is committed now is never lost."""
        self._history.clear()

    def go_back(self, commits: int) -> None:
        """Lose the last commits, as after a power cut without syncs or a restored backup."""
        for _ in range(min(commits, len(self._history))):
            _, undo = self._history.pop()
            for key, value in undo.items():
                self._put(key, value)
        self.version += 1
        self._barrier = self.version  # whatever is open began in a state that has never been

    def _answer(self) -> None:
        if self.away:
            msg = "simulated: the store is away"
            raise StorageUnavailable(msg)

    def _conflicts(self, transaction: SimTransaction) -> bool:
        if not transaction.writes:
            return False
        if transaction.version < self._barrier:
            return True
        for version, undo in reversed(self._history):
            if version <= transaction.version:
                return False
            for key in undo:
                if any(begin <= key < end for begin, end in transaction.reads):
                    return True
        return False

    def _commit(self, transaction: SimTransaction) -> None:
        if not transaction.writes:
            return
        self.version += 1
        self._history.append((self.version, {key: self.data.get(key) for key in transaction.writes}))
        for key, value in transaction.writes.items():
            self._put(key, value)

    def _put(self, key: bytes, value: bytes | None) -> None:
        if value is None:
            if self.data.pop(key, None) is not None:
                del self._order[bisect_left(self._order, key)]
        else:
            if key not in self.data:
                insort(self._order, key)
            self.data[key] = value
