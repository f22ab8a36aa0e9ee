"""A thread that looks from time to time whether the store answers."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Final

import structlog

from storage.errors import StorageError

if TYPE_CHECKING:
    from collections.abc import Callable

_EVERY: Final = 10.0  # seconds

log = structlog.get_logger("tasks.pulse")


class Pulse:
    """Looks at once, and then every ten seconds. Stopping twice is fine.

    Args:
        look: asks the store for something small; raises where it does not answer.
        answered: called where it does.
    """

    def __init__(self, look: Callable[[], None], answered: Callable[[], None]) -> None:
        self._look = look
        self._answered = answered
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="pulse", daemon=True)

    def start(self) -> None:
        """Begin looking."""
        self._thread.start()

    def stop(self) -> None:
        """End; a look under way is waited for a moment only."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join(1.0)

    def _run(self) -> None:
        while not self._stopped.is_set():
            try:
                self._look()
                self._answered()
            except (StorageError, OSError) as error:
                log.warning("the store does not answer", error=str(error))
            except RuntimeError as error:
                if self._stopped.is_set():  # the store was closed while we looked
                    return
                log.warning("cannot look at the store", error=str(error))
            self._stopped.wait(_EVERY)
