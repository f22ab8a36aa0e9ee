"""Whether a process waits for Redis, as metrics and health show it."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Final

from storage.masking import mask_url
from tasks.metrics import REDIS_WAITING
from tasks.redis_answers import explain, find_refusal

if TYPE_CHECKING:
    from tasks.health import Health
    from tasks.meter import Meter

REDIS: Final = "redis"
AWAY: Final = "AWAY"  # no connection, or no answer in time


class RedisState:
    """Told by those of a process who talk to Redis how that went. Safe to use from several threads.

    Args:
        meter: shows it.
        health: shows it; None where nobody asks for it.
    """

    def __init__(self, meter: Meter, health: Health | None) -> None:
        self._meter = meter
        self._health = health
        self._waiting: dict[str, tuple[str, str]] = {}
        self._lock = threading.Lock()

    def well(self, who: str = "") -> None:
        """Redis did what it was asked for."""
        with self._lock:
            self._waiting.pop(who, None)
            self._show()

    def waits(self, error: BaseException, who: str = "") -> None:
        """Redis did not answer, or refused."""
        refusal = find_refusal(error)
        self.waits_for(AWAY if refusal is None else refusal.code, mask_url(explain(error)), who)

    def waits_for(self, code: str, why: str, who: str = "") -> None:
        """Redis is waited for.

        Args:
            code: the kind of refusal, or `AWAY`.
            why: in words.
            who: of this process.
        """
        with self._lock:
            self._waiting[who] = (code, why)
            self._show()

    def _show(self) -> None:
        self._meter.show(REDIS_WAITING, {(code,): 1 for code, _ in self._waiting.values()})
        if self._health is None:
            return
        if self._waiting:
            self._health.failed(REDIS, next(iter(self._waiting.values()))[1])
        else:
            self._health.answered(REDIS)
