"""Refusals of Redis', said: once a kind, and now and then while they last."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Final

import structlog

from tasks.redis_answers import find_answer

if TYPE_CHECKING:
    from collections.abc import Callable

AGAIN: Final = 30.0  # seconds between two lines about one kind of refusal

log = structlog.get_logger("tasks.redis")


class Refusals:
    """What Redis refused to this process. Safe to use from several threads.

    Attributes:
        aloud: whether it is logged: by what runs on and on; a command says it itself, once.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.aloud = False
        self._clock = clock
        self._said: dict[str, float] = {}
        self._lock = threading.Lock()

    def note(self, code: str, text: str) -> None:
        """Redis has refused something.

        Args:
            code: the kind.
            text: Redis' words.
        """
        if not self.aloud:
            return
        now = self._clock()
        with self._lock:
            said = self._said.get(code)
            if said is not None and now - said < AGAIN:
                return
            self._said[code] = now
        answer = find_answer(code)
        say = log.warning if answer.passes else log.error
        say(f"Redis {answer.meaning}", code=code, answer=text, remedy=answer.remedy, passes_by_itself=answer.passes)


REFUSALS: Final = Refusals()  # of this process: connections are made in many places, and refusals are one matter
