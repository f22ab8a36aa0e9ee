"""An open store with everything that works on it: engine, directories, ledger, message application."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from storage.application import Applier
from storage.apply import WHOLE, BatchApplier
from storage.cascade_steps import CascadeSteps
from storage.cascades import Cascades
from storage.cleanups import Cleanups
from storage.control import ControlApplier
from storage.dead_letters import DeadLetters
from storage.directories import Directories, open_directories
from storage.engine import Engine, open_engine
from storage.errors import Refused
from storage.ledger import Ledger
from storage.locks import JobLocks, LockRecords
from storage.meaning import CONTROL, INGEST
from storage.outbox import Outbox

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from storage.engine import Tries
    from storage.meaning import Meaning
    from storage.result import Portion


@dataclass(frozen=True, slots=True)
class Store:
    """An open store. Use it as a context manager, or call `close`; closing twice is fine."""

    engine: Engine
    directories: Directories
    ledger: Ledger
    applier: Applier
    dead_letters: DeadLetters
    cleanups: Cleanups
    outbox: Outbox
    control: ControlApplier

    def batch_applier(self, *, time_limit: float, route: str = INGEST, portion: Portion = WHOLE) -> BatchApplier:
        """What applies batches.

        Args:
            time_limit: the task's hard time limit in seconds.
            route: whose records they are.
            portion: most that goes into one transaction.
        """
        return BatchApplier(
            self.engine,
            self.ledger,
            self.meaning_of(route),
            patience=time_limit * 4 / 3,
            budget=time_limit / 2,
            portion=portion,
        )

    def meaning_of(self, route: str) -> Meaning:
        """What the records of a route mean, or the dead letters that have its name.

        Raises:
            Refused: there is no route of this name.
        """
        if route == INGEST:
            return self.applier
        if route == CONTROL:
            return self.control
        msg = f"there is no route {route!r}: was this written by a newer release?"
        raise Refused(msg)

    @property
    def cascades(self) -> Cascades:
        """The cascade ledger."""
        return Cascades(self.ledger)

    def cascade_steps(self) -> CascadeSteps:
        """What works on cascades."""
        return CascadeSteps(self.engine, self.directories, self.cascades)

    def job_locks(self, *, clock: Callable[[], float] = time.time) -> JobLocks:
        """The locks of periodic jobs; ``clock`` gives Unix seconds."""
        return JobLocks(self.engine, LockRecords(self.directories, self.ledger), clock=clock)

    def close(self) -> None:
        """Close the engine."""
        self.engine.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_store(
    url: str,
    *,
    timeout: float = 10.0,
    tries: Tries | None = None,
    under: tuple[str, ...] = (),
    clock: Callable[[], float] = time.time,
) -> Store:
    """Open the store that ``url`` names, with our directories in it.

    Args:
        url: see `storage.engine.open_engine`.
        timeout: seconds after which one transaction gives up.
        tries: how the engine tries again until then.
        under: a parent directory for tests that share a cluster.
        clock: Unix seconds, for tombstones and the times in ledgers.

    Raises:
        Fatal: the URL, or the store, cannot be used; the message says what to do.
        StorageUnavailable: the store did not answer.
    """
    engine = open_engine(url, timeout=timeout, tries=tries)
    return assemble_store(engine, under=under, clock=clock)


def assemble_store(engine: Engine, *, under: tuple[str, ...] = (), clock: Callable[[], float] = time.time) -> Store:
    """The store of an engine that is open already; closes the engine if its directories cannot be opened."""
    try:
        directories = open_directories(engine, under)
    except BaseException:
        engine.close()
        raise
    ledger = Ledger(directories.bridge)
    cleanups, outbox = Cleanups(ledger), Outbox(ledger)
    return Store(
        engine,
        directories,
        ledger,
        applier=Applier(directories, outbox, clock=clock),
        dead_letters=DeadLetters(ledger),
        cleanups=cleanups,
        outbox=outbox,
        control=ControlApplier(cleanups, Cascades(ledger).ask, clock=clock),
    )
