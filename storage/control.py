"""Control events (CONTRACT 7.2): what they ask for is written to ledgers in the transaction that moves the cursor.

run_deleted                         a cleanup of the run's blobs
run_archived, run_unarchived        nothing
experiment_deleted, tag_deleted,    a cascade over what still points there
project_deleted
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from pydantic import TypeAdapter
from pydantic_core import to_json
from typing_extensions import TypedDict  # pydantic needs this one below Python 3.12

from storage.blob_names import run_prefix
from storage.envelope import Envelope, as_seconds, validate
from storage.errors import InvalidRecord, Poison, UnknownType
from storage.meaning import APPLIED, CONTROL, CascadeAsked, CleanupAsked, Outcome

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from storage.batch import Record
    from storage.cleanups import Cleanups
    from storage.engine import Transaction

    AskCascade = Callable[[Transaction, str, str, float], object]

RUN_DELETED: Final = "run_deleted"
_RUN_EVENTS: Final = frozenset({RUN_DELETED, "run_archived", "run_unarchived"})
_CASCADES: Final = {  # event to kind of entity and the payload's field with its id
    "experiment_deleted": ("experiment", "experiment_id"),
    "tag_deleted": ("tag", "tag_id"),
    "project_deleted": ("project", "project_id"),
}
TYPES: Final = _RUN_EVENTS | _CASCADES.keys()
"""Every control event that there is."""

DELETES: Final = frozenset({RUN_DELETED, *_CASCADES})
"""Those that have something deleted: a run's blobs, or what points to an entity."""


class _Event(TypedDict):
    type: str
    timestamp: datetime
    payload: dict[str, Any]


_EVENT: Final = TypeAdapter(_Event)


def decode_event(record: Record) -> Envelope:
    """The envelope of a control record; its run id is the payload's, empty where it has none.

    Raises:
        InvalidRecord: no value, no JSON, or a field is missing or of the wrong type; says which.
    """
    event = validate(_EVENT, record)
    payload: dict[str, Any] = event["payload"]
    run = payload.get("run_id")
    return Envelope(event["type"], run if isinstance(run, str) else "", as_seconds(event["timestamp"]), payload)


def make_run_deleted(run: str, now: float) -> bytes:
    """The event that a run was deleted, byte for byte as the stock ingestion worker writes it.

    Args:
        run: the run's id.
        now: Unix seconds.
    """
    timestamp = datetime.fromtimestamp(now, UTC).isoformat().replace("+00:00", "Z")
    return to_json({"type": RUN_DELETED, "timestamp": timestamp, "payload": {"run_id": run}})


class ControlApplier:
    """What control events mean, for one store. Keeps nothing between transactions.

    Args:
        cleanups: the cleanup ledger.
        ask_cascade: writes to the cascade ledger; given transaction, kind of entity, id and Unix seconds.
        clock: Unix seconds, for the times in ledgers.
    """

    route: Final = CONTROL

    def __init__(self, cleanups: Cleanups, ask_cascade: AskCascade, *, clock: Callable[[], float] = time.time) -> None:
        self.cleanups = cleanups
        self.ask_cascade = ask_cascade
        self.clock = clock

    def decode(self, record: Record) -> Envelope:
        """See `decode_event`."""
        return decode_event(record)

    def begin(self, transaction: Transaction, items: Sequence[Envelope | Poison]) -> ControlApplication:
        """Some events within one transaction; see `storage.meaning.Meaning`."""
        return ControlApplication(self, transaction, items)

    def shrink(self, transaction: Transaction, envelope: Envelope) -> bool:
        """Nothing: no control event is too much for one transaction, but for one with very many blob keys."""
        del transaction, envelope
        return False


class ControlApplication:
    """Some events within one transaction; made by `ControlApplier.begin`."""

    def __init__(self, applier: ControlApplier, transaction: Transaction, items: Sequence[Envelope | Poison]) -> None:
        self._applier = applier
        self._transaction = transaction
        self._items = items

    def finish(self) -> list[Outcome]:
        """Apply the events in order; one outcome each. All is checked before anything of an event is written."""
        outcomes = []
        for item in self._items:
            if isinstance(item, Poison):
                outcomes.append(Outcome("dead", item))
                continue
            try:
                outcomes.append(self._apply(item))
            except Poison as error:
                outcomes.append(Outcome("dead", error))
        return outcomes

    def _apply(self, event: Envelope) -> Outcome:
        applier, now = self._applier, self._applier.clock()
        if event.type in _RUN_EVENTS:
            run = _find_text(event, "run_id")
            run_prefix(run)
            if event.type != RUN_DELETED:
                return APPLIED
            applier.cleanups.ask(self._transaction, run, source="event", keys=_find_keys(event), now=now)
            return Outcome("applied", follow_up=CleanupAsked(run))
        if event.type in _CASCADES:
            kind, field = _CASCADES[event.type]
            name = _find_text(event, field)
            applier.ask_cascade(self._transaction, kind, name, now)
            return Outcome("applied", follow_up=CascadeAsked(kind, name))
        msg = f"there is no control event {event.type!r:.100}"
        raise UnknownType(msg)


def _find_text(event: Envelope, field: str) -> str:
    value = event.payload.get(field)
    if not isinstance(value, str) or not value:
        msg = f"payload.{field} of {event.type} is {value!r:.100}, it must be text that is not empty"
        raise InvalidRecord(msg)
    return value


def _find_keys(event: Envelope) -> list[str]:
    """The event's blob_keys; none and null are the same as an empty list: the whole prefix."""
    keys = event.payload.get("blob_keys")
    if keys is None:
        return []
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        msg = f"payload.blob_keys of {event.type} is {keys!r:.100}, it must be a list of texts"
        raise InvalidRecord(msg)
    return keys
