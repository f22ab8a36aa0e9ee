"""The store as a worker's child process has it: opened there on first use, never before the fork (CELERY.md)."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

from storage.meaning import INGEST
from storage.store import Store, open_store

if TYPE_CHECKING:
    from storage.apply import BatchApplier
    from tasks.settings import Settings


class OpenedStore:
    """Opens the store lazily behind a pid check, which covers prefork, threads and solo pools alike.

    Args:
        settings: which store, and its timeouts.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
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
                store = open_store(self._settings.storage_url, timeout=self._settings.storage_timeout_seconds)
                self._opened = (os.getpid(), store)
            return self._opened[1]

    def batch_applier(self, route: str = INGEST) -> BatchApplier:
        """What applies batches of a route to this process' store; raises what `store` raises."""
        return self.store().batch_applier(time_limit=self._settings.task_time_limit_seconds, route=route)

    def close(self) -> None:
        """Close what this process opened; what a parent opened is left alone. Closing twice is fine."""
        opened, self._opened = self._opened, None
        if opened is not None and opened[0] == os.getpid():
            opened[1].close()
