"""Log lines that say what the bridge waits for: when that begins, now and then while it lasts, and when it ends."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from structlog.stdlib import BoundLogger

_AGAIN: Final = 10.0  # seconds


class Notices:
    """One line a subject when something is waited for, repeated every ten seconds, and one when it is over.

    Args:
        log: where the lines go.
    """

    def __init__(self, log: BoundLogger) -> None:
        self._log = log
        self._said: dict[str, tuple[str, float, float]] = {}

    def say(self, subject: str, event: str, **fields: Any) -> None:
        """Something is being waited for."""
        now = time.monotonic()
        _, since, last = self._said.get(subject, (event, now, -_AGAIN))
        if now - last >= _AGAIN:
            self._log.warning(event, seconds=round(now - since, 1), **fields)
            last = now
        self._said[subject] = (event, since, last)

    def over(self, subject: str) -> None:
        """It is there again (or was never away: then nothing is logged)."""
        said = self._said.pop(subject, None)
        if said is not None:
            event, since, _ = said
            self._log.info("over: " + event, seconds=round(time.monotonic() - since, 1))
