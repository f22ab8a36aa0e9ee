"""Flower's listening to Celery's events, which comes back soon after Redis does."""

from __future__ import annotations

import logging
import time
from typing import Final

import flower.app
from celery.events import EventReceiver
from flower.events import Events

from storage.masking import mask_url
from tasks.redis_answers import explain

log = logging.getLogger(__name__)  # Flower's own way

_PAUSE: Final = 2.0  # seconds between two tries
_SAY_EVERY: Final = 30.0  # seconds between two lines about that


class PatientEvents(Events):  # type: ignore[misc]  # Flower has no types
    """Flower's, which alone waits twice as long after each try: after an hour without Redis, for another one."""

    def run(self) -> None:
        """Listen for ever."""
        said = float("-inf")
        while True:
            try:
                with self.capp.connection() as connection:
                    receiver = EventReceiver(connection, handlers={"*": self.on_event}, app=self.capp)
                    receiver.capture(limit=None, timeout=None, wakeup=True)
            except Exception as error:  # noqa: BLE001 - as Flower does: the thread must not end
                now = time.monotonic()
                if now - said >= _SAY_EVERY:
                    said = now
                    log.error("waiting for Redis: %s", mask_url(explain(error)))
                time.sleep(_PAUSE)


def listen_patiently() -> None:
    """Let the Flower that this process is about to start listen so. Twice is fine."""
    flower.app.Events = PatientEvents
