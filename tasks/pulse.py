"""A thread that asks the store something from time to time, and so knows whether it answers."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Final

import structlog

from storage.errors import StorageError

if TYPE_CHECKING:
    from collections.abc import Callable

EVERY: Final = 10.0  # seconds

log = structlog.get_logger("tasks.pulse")


class Pulse:
    """Looks at once, and then every few seconds. Stopping twice is fine.

    Args:
        look: asks the store for something small; raises where it does not answer.
        answered: called where it does.
        failed: called where it does not.
        every: seconds between two looks.
    """

    def __init__(
        self,
        look: Callable[[], None],
        answered: Callable[[], None],
        *,
        failed: Callable[[Exception], None] | None = None,
        every: float = EVERY,
    ) -> None:
        self._look = look
        self._answered = answered
        self._failed = failed
        self._every = every
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
            except (StorageError, OSError, RuntimeError) as error:
                if self._stopped.is_set():  # the store was closed while we looked
                    return
                log.warning("the store does not answer", error=str(error))
                if self._failed is not None:
                    self._failed(error)
            self._stopped.wait(self._every)
