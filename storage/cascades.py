"""The cascade ledger: experiments, tags and projects that were deleted while runs may still point to them.

    ask ──▶ pending ──step──▶ running ──last step──▶ done
               ▲                │  └── hold ──▶ held      the entity is there after all, or a person has to decide
               │                └───── fail ──▶ failed
    any state ── ask, requeue ──▶ pending, from the beginning (a new round)

Keys (in ``("bridge",)``):

    ("cascade", kind, uuid)                the entry
    ("cascade_state", state, kind, uuid)   empty; lists the few open, failed and held among all the done ones

The entry says how far the walk over the keys is, and moves in the transaction that clears what the walk has found: so a
cascade goes on where a killed worker left it, and two workers at once do each step once. What a step does is in
`storage.cascade_steps`.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, fields, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

import msgpack

from storage.errors import InvalidRecord

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from storage.engine import Engine, Transaction
    from storage.ledger import Ledger

ERROR: Final = 2_000  # characters kept of an error
_ID_BYTES: Final = 1_000  # a uuid has 36

_PROJECT: Final = (
    "all projects share the same keys, so nothing says which runs are this project's: delete them by hand, then "
    "purge this entry"
)


class CascadeKind(StrEnum):
    """What was deleted."""

    EXPERIMENT = "experiment"
    TAG = "tag"
    PROJECT = "project"


class CascadeState(StrEnum):
    """Where a cascade stands."""

    PENDING = "pending"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    HELD = "held"


OPEN: Final = (CascadeState.PENDING, CascadeState.RUNNING)


@dataclass(frozen=True, slots=True)
class Cascade:
    """One deleted entity. Times are Unix seconds.

    Attributes:
        kind: what was deleted.
        uuid: its uuid (of a project: its id).
        state: where it stands.
        created: when it was asked for first.
        updated: when it last moved.
        due: pending: when it may be worked on.
        round: raised by each ask and requeue, which begin the walk anew.
        walk: number of the walk over keys that it is at.
        after: the last key of that walk that was dealt with.
        scanned: keys looked at in this round.
        changed: runs that pointed to the entity and do not any more, over all rounds.
        attempts: tries of this round that failed.
        error: the last error, or why it is held; empty once done.
        task_id: the last Celery task that worked on it.
    """

    kind: CascadeKind
    uuid: str
    state: CascadeState
    created: float
    updated: float
    due: float
    round: int = 1
    walk: int = 0
    after: bytes = b""
    scanned: int = 0
    changed: int = 0
    attempts: int = 0
    error: str = ""
    task_id: str = ""

    @property
    def is_open(self) -> bool:
        """Whether something is still to be done without a person."""
        return self.state in OPEN

    def is_where(self, other: Cascade | None) -> bool:
        """Whether ``other`` is this entry, not moved on and not begun anew."""
        return other is not None and (self.round, self.walk, self.after, self.is_open) == (
            other.round,
            other.walk,
            other.after,
            other.is_open,
        )


class Cascades:
    """Reads and writes cascades within transactions.

    Args:
        ledger: our directory's keys.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def get(self, transaction: Transaction, kind: CascadeKind, uuid: str) -> Cascade | None:
        """The cascade of an entity; None where nobody ever asked for one."""
        value = transaction.get(self._key(kind, uuid)).wait()
        return None if value is None else _unpack(kind, uuid, value)

    def ask(self, transaction: Transaction, kind: str, uuid: str, now: float) -> Cascade:
        """Ask for all that points to a deleted entity to be cleared; asked again, it begins anew.

        A project is recorded and held.

        Args:
            transaction: in which it is asked for: the one of the record that says so.
            kind: what was deleted: ``experiment``, ``tag`` or ``project``.
            uuid: its uuid (of a project: its id).
            now: Unix seconds.

        Raises:
            InvalidRecord: no entity's id: empty, or over 1,000 bytes.
        """
        if not uuid or len(uuid.encode(errors="replace")) > _ID_BYTES:
            msg = f"{uuid!r:.100} is no id of {'an' if kind == 'experiment' else 'a'} {kind}"
            raise InvalidRecord(msg)
        what = CascadeKind(kind)
        old = self.get(transaction, what, uuid)
        new = Cascade(what, uuid, CascadeState.PENDING, now, now, now)
        entry = new if old is None else _begin_anew(old, now)
        if what is CascadeKind.PROJECT:
            entry = replace(entry, state=CascadeState.HELD, error=_PROJECT)
        return self.write(transaction, old, entry)

    def requeue(self, transaction: Transaction, kind: CascadeKind, uuid: str, *, now: float) -> Cascade | None:
        """Begin anew, whatever its state: a person asks. A project stays held.

        Returns:
            The cascade as it is now; None where there is none.
        """
        old = self.get(transaction, kind, uuid)
        if old is None or kind is CascadeKind.PROJECT:
            return old
        return self.write(transaction, old, _begin_anew(old, now))

    def fail(
        self, transaction: Transaction, entry: Cascade, *, error: str, tries: int, due: float, now: float
    ) -> Cascade | None:
        """A step has failed: pending until ``due``, or failed where this was the last of ``tries``.

        Returns:
            The cascade as it is now; None where it is not where ``entry`` is any more, and nothing was written.
        """
        old = self.get(transaction, entry.kind, entry.uuid)
        if old is None or not entry.is_where(old):
            return None
        state = CascadeState.FAILED if old.attempts + 1 >= tries else CascadeState.PENDING
        changed = replace(old, state=state, attempts=old.attempts + 1, error=error[:ERROR], due=due, updated=now)
        return self.write(transaction, old, changed)

    def postpone(self, transaction: Transaction, entry: Cascade, *, due: float, now: float) -> Cascade | None:
        """Note that the task of an open cascade was sent again, so that it is not sent at every look.

        Returns:
            The cascade as it is now; None where it has moved meanwhile.
        """
        old = self.get(transaction, entry.kind, entry.uuid)
        if old is None or not entry.is_where(old):
            return None
        return self.write(transaction, old, replace(old, due=due, updated=now))

    def purge(self, transaction: Transaction, kind: CascadeKind, uuid: str) -> bool:
        """Forget a cascade; whether there was one."""
        old = self.get(transaction, kind, uuid)
        if old is None:
            return False
        transaction.clear(self._key(kind, uuid))
        transaction.clear(self._state_key(old))
        return True

    def write(self, transaction: Transaction, old: Cascade | None, entry: Cascade) -> Cascade:
        """Write an entry, whose present form is ``old``, and its place in the index of states."""
        if old is None or old.state is not entry.state:
            if old is not None:
                transaction.clear(self._state_key(old))
            transaction.set(self._state_key(entry), b"")
        transaction.set(self._key(entry.kind, entry.uuid), _pack(entry))
        return entry

    def each(
        self, engine: Engine, *, states: Collection[CascadeState] = tuple(CascadeState), page: int = 500
    ) -> Iterator[Cascade]:
        """Cascades by state, kind and uuid, read in pages so that any number fits in memory."""
        for state in states:
            begin, end = self._ledger.span("cascade_state", str(state))
            while True:
                some, last = engine.read(lambda transaction: self._page(transaction, begin, end, page))  # noqa: B023
                yield from some
                if last is None:
                    break
                begin = last + b"\x00"

    def _page(
        self, transaction: Transaction, begin: bytes, end: bytes, page: int
    ) -> tuple[list[Cascade], bytes | None]:
        pairs = transaction.get_range(begin, end, limit=page).wait()
        names = [self._ledger.elements(key)[2:] for key, _ in pairs]
        reads = [(kind, uuid, transaction.get(self._key(kind, uuid))) for kind, uuid in names]
        some = [_unpack(kind, uuid, value) for kind, uuid, read in reads if (value := read.wait()) is not None]
        return some, pairs[-1][0] if len(pairs) == page else None

    def count(self, engine: Engine, *, states: Collection[CascadeState] = tuple(CascadeState)) -> Counter[CascadeState]:
        """How many there are in each state, zeros included."""
        counts = Counter(dict.fromkeys(states, 0))
        counts.update(entry.state for entry in self.each(engine, states=states))
        return counts

    def _key(self, kind: CascadeKind, uuid: str) -> bytes:
        return self._ledger.key("cascade", str(kind), uuid)

    def _state_key(self, entry: Cascade) -> bytes:
        return self._ledger.key("cascade_state", str(entry.state), str(entry.kind), entry.uuid)


_FIELDS: Final = tuple(field.name for field in fields(Cascade) if field.name not in {"kind", "uuid"})


def _begin_anew(entry: Cascade, now: float) -> Cascade:
    return replace(
        entry,
        state=CascadeState.PENDING,
        updated=now,
        due=now,
        round=entry.round + 1,
        walk=0,
        after=b"",
        scanned=0,
        attempts=0,
        error="",
    )


def _pack(entry: Cascade) -> bytes:
    values: dict[str, Any] = {name: getattr(entry, name) for name in _FIELDS}
    packed: bytes = msgpack.packb(values | {"state": str(entry.state)}, unicode_errors="replace")
    return packed


def _unpack(kind: str, uuid: str, value: bytes) -> Cascade:
    values = msgpack.unpackb(value)
    known = {name: values[name] for name in _FIELDS if name in values}  # a newer release may have written more
    return Cascade(**(known | {"kind": CascadeKind(kind), "uuid": uuid, "state": CascadeState(known["state"])}))
