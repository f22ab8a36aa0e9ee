"""The store as a worker's child process has it: opened there on first use, never before the fork (CELERY.md)."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

from storage.engine import Tries, ignore
from storage.meaning import INGEST
from storage.result import Portion
from storage.store import Store, open_store
from tasks.meter import Retries

if TYPE_CHECKING:
    from collections.abc import Callable

    from storage.apply import BatchApplier
    from tasks.settings import Settings


def open_settings_store(settings: Settings, *, retried: Callable[[], None] = ignore) -> Store:
    """Open the store of the settings.

    Args:
        settings: which store, its timeout, and how it tries again.
        retried: called at each try of a transaction but the first.

    Raises:
        Fatal: the store cannot be used as the settings say.
        StorageUnavailable: it did not answer.
    """
    tries = Tries(
        settings.fdb_retry_max_attempts, settings.fdb_retry_max_delay_sec, settings.fdb_api_version, counted=retried
    )
    return open_store(settings.storage_url, timeout=settings.storage_timeout_seconds, tries=tries)


class OpenedStore:
    """Opens the store lazily behind a pid check, which covers prefork, threads and solo pools alike.

    Args:
        settings: which store, its limits and timeouts.
        retried: called at each try of a transaction but the first.

    Attributes:
        retries: counts these tries, for each thread.
    """

    def __init__(self, settings: Settings, *, retried: Callable[[], None] = ignore) -> None:
        self.settings = settings
        self.retries = Retries(retried)
        self._lock = threading.Lock()
        self._opened: tuple[int, Store] | None = None

    def store(self) -> Store:
        """This process' store.

        Raises:
            Fatal: the store cannot be used as the settings say.
            StorageUnavailable: it did not answer.
        """
        opened = self._opened
        if opened is not None and opened[0] == os.getpid():
            return opened[1]
        with self._lock:
            if self._opened is None or self._opened[0] != os.getpid():
                store = open_settings_store(self.settings, retried=self.retries.add)
                self._opened = (os.getpid(), store)
            return self._opened[1]

    def batch_applier(self, route: str = INGEST) -> BatchApplier:
        """What applies batches of a route to this process' store; raises what `store` raises."""
        settings = self.settings
        return self.store().batch_applier(
            time_limit=settings.task_time_limit_seconds,
            route=route,
            portion=Portion(settings.ingest_max_messages_per_txn, settings.ingest_max_txn_bytes),
        )

    def look(self) -> None:
        """See whether the store answers; raises what `store` raises."""
        store = self.store()
        store.engine.read(lambda transaction: transaction.get(store.ledger.key("store")).wait())

    def close(self) -> None:
        """Close what this process opened; what a parent opened is left alone. Closing twice is fine."""
        opened, self._opened = self._opened, None
        if opened is not None and opened[0] == os.getpid():
            opened[1].close()
