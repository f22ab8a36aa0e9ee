"""What a cascade does: one bounded transaction after the other, each of which moves the ledger's entry."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final, NamedTuple

from storage.cascades import Cascade, CascadeKind, Cascades, CascadeState
from storage.dangling import Dangling, DanglingExperiment, DanglingTag, Page
from storage.errors import SplitTransaction

if TYPE_CHECKING:
    from storage.directories import Directories
    from storage.engine import Engine, Transaction

PAGE: Final = 1_000  # keys that one step looks at
_EXISTS: Final = "the {kind} is there: nothing was cleared; requeue this once it is deleted, or purge it"


class _Found(NamedTuple):
    entry: Cascade | None
    page: Page | None


class CascadeSteps:
    """Works on the cascades of one store.

    Args:
        engine: the open store.
        directories: key prefixes.
        cascades: the ledger.
        page: keys that one step looks at.
    """

    def __init__(self, engine: Engine, directories: Directories, cascades: Cascades, *, page: int = PAGE) -> None:
        self._engine = engine
        self._cascades = cascades
        self._page = page
        self._dangling: dict[CascadeKind, Dangling] = {
            CascadeKind.EXPERIMENT: DanglingExperiment(directories),
            CascadeKind.TAG: DanglingTag(directories),
        }

    def advance(self, kind: CascadeKind, uuid: str, *, now: float, task_id: str = "") -> Cascade | None:
        """Do one step of a cascade that is open.

        Args:
            kind: what was deleted.
            uuid: its uuid.
            now: Unix seconds.
            task_id: the Celery task's id, for people.

        Returns:
            The cascade as it is now; there is more to do while it is open. None where there is none.

        Raises:
            StorageUnavailable: the store did not answer; nothing was done.
        """
        limit = self._page
        while True:
            size = limit
            found = self._engine.read(lambda transaction: self._look(transaction, kind, uuid, size))  # noqa: B023
            entry, page = found
            if entry is None or page is None:
                return entry
            seen, at = entry, page
            try:
                return self._engine.transact(
                    lambda transaction: self._clear(transaction, seen, at, now, task_id),  # noqa: B023 - run at once
                    impatient=True,
                )
            except SplitTransaction:
                if limit == 1:
                    raise
                limit = max(1, limit // 2)

    def _look(self, transaction: Transaction, kind: CascadeKind, uuid: str, limit: int) -> _Found:
        """Read a page ahead, so that the transaction that clears conflicts with nobody who writes elsewhere in it."""
        entry = self._cascades.get(transaction, kind, uuid)
        if entry is None or not entry.is_open:
            return _Found(entry, None)
        walk = self._dangling[kind].walks[entry.walk]
        return _Found(entry, walk(transaction, uuid, entry.after, limit))

    def _clear(self, transaction: Transaction, seen: Cascade, page: Page, now: float, task_id: str) -> Cascade | None:
        old = self._cascades.get(transaction, seen.kind, seen.uuid)
        if old is None or not seen.is_where(old):  # somebody else did this step, or asked anew
            return old
        dangling = self._dangling[seen.kind]
        entry = replace(old, state=CascadeState.RUNNING, updated=now, due=now, error="", task_id=task_id)
        if dangling.exists(transaction, seen.uuid):
            error = _EXISTS.format(kind=seen.kind)
            return self._cascades.write(transaction, old, replace(entry, state=CascadeState.HELD, error=error))
        changed = dangling.release(transaction, seen.uuid, page.runs)
        entry = replace(entry, scanned=old.scanned + page.scanned, changed=old.changed + changed, attempts=0)
        if page.after is not None:
            entry = replace(entry, after=page.after)
        elif old.walk + 1 < len(dangling.walks):
            entry = replace(entry, walk=old.walk + 1, after=b"")
        else:
            dangling.bury(transaction, seen.uuid)
            entry = replace(entry, state=CascadeState.DONE, walk=0, after=b"")
        return self._cascades.write(transaction, old, entry)
