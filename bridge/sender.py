"""Sending batches, and sending again: what Redis refused, and what it lost. Runs in the loop's thread."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

import structlog

from bridge.desk import Desk
from bridge.publisher import Publisher, RedisAway
from bridge.traces import find_parents

if TYPE_CHECKING:
    from collections.abc import Callable

    from bridge.notices import Notices
    from bridge.partition import Partition
    from bridge.report import Report
    from bridge.route import Route
    from storage.batch import Batch

log = structlog.get_logger("bridge")

_PAUSE: Final = 0.5  # seconds before a batch that Redis refused is tried again


class Sender:
    """Hands batches to the thread that talks to Redis, and deals with its answers.

    Args:
        publisher: Redis' side.
        route: queue names.
        notices: where to say that Redis is waited for.
        state_of: the state that a batch belongs to; None when that has been dropped.
        report: told when a batch is sent again, and when Redis is waited for.
    """

    def __init__(
        self,
        publisher: Publisher,
        route: Route,
        notices: Notices,
        state_of: Callable[[Batch], Partition | None],
        report: Report,
    ) -> None:
        self._publisher = publisher
        self._route = route
        self._notices = notices
        self._state_of = state_of
        self._report = report
        self._desk = Desk("redis")
        self._refused: list[tuple[float, Batch]] = []
        self._asking: set[tuple[int, int]] = set()
        self._error: Exception | None = None

    def send(self, batch: Batch) -> None:
        """Send a batch; its state learns when it has been sent."""

        def then(_: None) -> None:
            self._notices.over("redis")
            self._report.redis_well()
            state = self._state_of(batch)
            if state is not None:
                state.sent(batch, time.monotonic())

        def failed(error: Exception) -> None:
            if self._is_away(error):
                self._refused.append((time.monotonic() + _PAUSE, batch))

        self._desk.ask(lambda: self._publisher.send(batch, find_parents(batch)), then, failed)

    def retry(self, now: float) -> None:
        """Try again what Redis refused; what belongs to a dropped state is forgotten."""
        due = [batch for when, batch in self._refused if when <= now]
        if due:
            self._refused = [(when, batch) for when, batch in self._refused if when > now]
            for batch in due:
                if self._state_of(batch) is not None:
                    self.send(batch)
                else:
                    self._report.redis_well()  # nobody waits for it any more

    def resend(self, state: Partition, now: float) -> None:
        """Ask for the queue of each stalled batch, and send it again if it is lost."""
        for batch in state.stalled(now):
            place = (batch.source.partition, batch.lane)
            if place not in self._asking:
                self._asking.add(place)
                self._ask(batch, place)

    def _ask(self, batch: Batch, place: tuple[int, int]) -> None:
        def then(empty: bool) -> None:
            self._asking.discard(place)
            state = self._state_of(batch)
            again = state.resend(batch, time.monotonic(), queue_is_empty=empty) if state is not None else None
            if again is not None:
                log.warning("sent again", batch=str(again), queue_was_empty=empty)
                self._report.resent()
                self.send(again)

        def failed(error: Exception) -> None:
            self._asking.discard(place)
            self._is_away(error)

        queue = self._route.name_queue(batch.lane)
        self._desk.ask(lambda: self._publisher.is_empty(queue), then, failed)

    def _is_away(self, error: Exception) -> bool:
        """Whether Redis is waited for; any other error is raised by the next `answer`."""
        if isinstance(error, RedisAway):
            self._notices.say("redis", "waiting for Redis", error=str(error))
            self._report.redis_waits(error)
            return True
        self._error = error
        return False

    def answer(self) -> None:
        """Deal with Redis' answers so far; raises what was nobody's fault but ours."""
        self._desk.answer()
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def close(self) -> None:
        """End the thread and the connection. Closing twice is fine."""
        self._desk.close()
        self._publisher.close()
