"""Apply envelopes within a transaction: what a batch of records means, in offset order across runs and types.

`Applier.begin` starts every read that the batch is known to need, all in flight together; `Application.finish` waits
for them once, applies record after record, and writes what records share once. A bad record leaves nothing behind.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final
from uuid import uuid4

from storage.control import make_run_deleted
from storage.encoding import pack_element
from storage.envelope import decode
from storage.errors import Poison, UnknownType
from storage.handlers.params import blob_ref, log_hparams
from storage.handlers.properties import set_run_property
from storage.handlers.run import Run, RunKeys
from storage.handlers.runs import create_run, delete_run, finish_run, shrink_run
from storage.handlers.tags import add_tag, remove_tag
from storage.meaning import APPLIED, DROPPED, INGEST, Outcome
from storage.overlay import Draft, View
from storage.sequences import Sequences

if TYPE_CHECKING:
    from collections import abc
    from collections.abc import Callable

    from storage.batch import Record
    from storage.directories import Directories
    from storage.engine import Transaction
    from storage.envelope import Envelope
    from storage.outbox import Outbox
    from storage.sequences import Sequence

__all__ = ["Application", "Applier", "Outcome", "draw_uuid"]


_SEQUENCE_TYPES: Final[dict[str, Callable[[Sequences, Envelope, Sequence | None], None]]] = {
    "log_metric": Sequences.log_metric,
    "log_custom_object": Sequences.log_custom_object,
    "log_terminal_line": Sequences.log_terminal_line,
    "log_record": Sequences.log_record,
}
_PLAIN_TYPES: Final[dict[str, Callable[[Run, Envelope], None]]] = {
    "create_run": create_run,
    "finish_run": finish_run,
    "log_hparams": log_hparams,
    "blob_ref": blob_ref,
    "remove_tag": remove_tag,
}
_NAMING_TYPES: Final[dict[str, Callable[[Run, Envelope, Callable[[], str]], None]]] = {
    "set_run_property": set_run_property,
    "add_tag": add_tag,
}
_DELETE: Final = "delete_run"
TYPES: Final = frozenset({*_SEQUENCE_TYPES, *_PLAIN_TYPES, *_NAMING_TYPES, _DELETE})
"""Every message type that there is."""


def draw_uuid() -> str:
    """A random id for a new tag or experiment."""
    return str(uuid4())


class Applier:
    """What messages mean, for one store. Keeps nothing between transactions.

    Args:
        directories: key prefixes.
        outbox: where the events of deleted runs are put; None: nowhere.
        clock: Unix seconds, for tombstones and their events only.
        new_uuid: ids of new tags and experiments.
    """

    route: Final = INGEST

    def __init__(
        self,
        directories: Directories,
        outbox: Outbox | None = None,
        *,
        clock: Callable[[], float] = time.time,
        new_uuid: Callable[[], str] = draw_uuid,
    ) -> None:
        self.directories = directories
        self.outbox = outbox
        self.clock = clock
        self.new_uuid = new_uuid

    def decode(self, record: Record) -> Envelope:
        """The envelope of a record; see `storage.envelope.decode`."""
        return decode(record)

    def begin(self, transaction: Transaction, items: abc.Sequence[Envelope | Poison]) -> Application:
        """Start the reads that some records need. Waits for nothing; `Application.finish` does the rest.

        Args:
            transaction: in which they are to be applied.
            items: the records in offset order; one that could not be decoded stands as its error.
        """
        return Application(self, transaction, items)

    def shrink(self, transaction: Transaction, envelope: Envelope) -> bool:
        """Do a bounded part of a delete_run that is too large for one transaction.

        Returns:
            Whether a part was done; False where the rest, or any other message, is for `begin`.
        """
        if envelope.type != _DELETE:
            return False
        view = View(transaction)
        draft = Draft(view)
        done = shrink_run(transaction, RunKeys(self.directories, envelope.run_id), draft)
        draft.keep()
        view.flush()
        return done


class _OpenRun:
    """What a batch has of one run."""

    def __init__(self, view: View, directories: Directories, run_id: str) -> None:
        self.keys = RunKeys(directories, run_id)
        self.sequences = Sequences(view, directories, self.keys.packed)
        self.deleted: bool | None = None
        self._view = view
        view.start(self.keys.tombstone)

    def is_deleted(self) -> bool:
        """Whether the run has a tombstone."""
        if self.deleted is None:
            self.deleted = self._view.get(self.keys.tombstone) is not None
        return self.deleted

    def start(self, kind: str) -> None:
        """Start the reads of the rarer types."""
        keys, view = self.keys, self._view
        if kind == _DELETE:
            view.start_range(keys.reverse)
            view.start_range(keys.tag_links)
            view.start(keys.experiment_link)
            return
        if kind == "log_hparams":
            view.start_range(keys.reverse + pack_element("hparam"))
            view.start_range(keys.attrs + pack_element("hparams"))
            return
        view.start_range(keys.meta)
        if kind == "create_run":
            for name in ("archived", "active", "created_at"):
                view.start_range(keys.reverse + pack_element(name))
        elif kind == "set_run_property":
            view.start(keys.experiment_link)


class Application:
    """Some records within one transaction; made by `Applier.begin`."""

    def __init__(self, applier: Applier, transaction: Transaction, items: abc.Sequence[Envelope | Poison]) -> None:
        self._applier = applier
        self._items = items
        self._view = View(transaction)
        self._runs: dict[str, _OpenRun] = {}
        self._found = [None if isinstance(item, Poison) else self._start(item) for item in items]

    def _start(self, envelope: Envelope) -> Sequence | None:
        """Start the reads of one record; the sequence that it belongs to, if it does."""
        run = self._runs.get(envelope.run_id)
        if run is None:
            run = self._runs[envelope.run_id] = _OpenRun(self._view, self._applier.directories, envelope.run_id)
        if envelope.type in _SEQUENCE_TYPES:
            return run.sequences.start(envelope)
        run.start(envelope.type)
        return None

    def finish(self) -> list[Outcome]:
        """Apply the records in order; one outcome each.

        Raises:
            Exception: a handler has a bug; the transaction must not be committed.
        """
        outcomes = []
        for item, found in zip(self._items, self._found, strict=True):
            if isinstance(item, Poison):
                outcomes.append(Outcome("dead", item))
                continue
            try:
                outcomes.append(self._apply(self._runs[item.run_id], item, found))
            except Poison as error:
                outcomes.append(Outcome("dead", error))
        for run in self._runs.values():
            run.sequences.flush()
        self._view.flush()
        return outcomes

    def _apply(self, run: _OpenRun, envelope: Envelope, found: Sequence | None) -> Outcome:
        kind = envelope.type
        if kind == _DELETE:
            return self._delete(run, envelope)
        if run.is_deleted():
            return DROPPED
        log = _SEQUENCE_TYPES.get(kind)
        if log is not None:
            log(run.sequences, envelope, found)
            return APPLIED
        draft = Draft(self._view)
        within = Run(run.keys, draft, envelope.timestamp)
        if kind in _PLAIN_TYPES:
            _PLAIN_TYPES[kind](within, envelope)
        elif kind in _NAMING_TYPES:
            _NAMING_TYPES[kind](within, envelope, self._applier.new_uuid)
        else:
            msg = f"there is no message type {kind!r:.100}"
            raise UnknownType(msg)
        draft.keep()
        return APPLIED

    def _delete(self, run: _OpenRun, envelope: Envelope) -> Outcome:
        """Delete a run; the event that says so is promised in the same transaction."""
        run.sequences.flush()  # their index entries must be found
        applier, now = self._applier, self._applier.clock()
        draft = Draft(self._view)
        delete_run(Run(run.keys, draft, envelope.timestamp), now)
        draft.keep()
        run.sequences = Sequences(self._view, applier.directories, run.keys.packed)
        run.deleted = True
        if applier.outbox is None:
            return APPLIED
        event = make_run_deleted(envelope.run_id, now)
        put = applier.outbox.put(self._view.transaction, envelope.run_id, event, now)
        return Outcome("applied", follow_up=put)
