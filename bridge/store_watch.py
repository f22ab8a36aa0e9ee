"""Watching the store: owner and cursors of what is held, or with nothing held, whether the store answers."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

import structlog

from bridge.partition import Seen

if TYPE_CHECKING:
    from bridge.holdings import Holdings
    from bridge.keeper import Keeper
    from bridge.store_desk import StoreDesk
    from storage.batch import Source
    from storage.ledger import Standing

log = structlog.get_logger("bridge")

_REST: Final = 1.0  # seconds between observations when nothing is in flight
_STANDBY_REST: Final = 5.0  # seconds between two looks at the store without a partition


class StoreWatch:
    """Tells the partitions what the store says of them; what is not ours any more is dropped, to be taken over again.

    Args:
        keeper: the store's side.
        desk: in whose thread.
        holdings: the partitions.
        poll: seconds between observations while something is in flight.
    """

    def __init__(self, keeper: Keeper, desk: StoreDesk, holdings: Holdings, poll: float) -> None:
        self._keeper = keeper
        self._desk = desk
        self._holdings = holdings
        self._poll = poll
        self._asking = False
        self._asked_at = 0.0

    def look(self, now: float) -> None:
        """Look, if it is time to and no answer is under way."""
        states = {holding.state.source: holding.state for holding in self._holdings if holding.state is not None}
        if not states:
            self._look_at_store(now)
            return
        flying = any(state.in_flight for state in states.values())
        if self._asking or now - self._asked_at < (self._poll if flying else _REST):
            return
        self._asking, self._asked_at = True, now

        def then(standings: dict[Source, Standing]) -> None:
            self._asking = False
            self._desk.answered()
            for source, state in states.items():
                holding = self._holdings.get(source.partition)
                if holding is None or holding.state is not state:
                    continue
                seen = state.observe(standings[source], time.monotonic())
                if seen is not Seen.FINE:
                    why = "another epoch is in force" if seen is Seen.FENCED else "the store has gone back"
                    log.warning("taking over again", partition=str(source), why=why)
                    self._holdings.drop(holding, time.monotonic())

        def failed(error: Exception) -> None:
            self._asking = False
            for state in states.values():
                state.unanswered()
            self._desk.failed(error, "watching the cursors")

        self._desk.ask(lambda: self._keeper.observe(states), then, failed)

    def _look_at_store(self, now: float) -> None:
        """With no partition to watch: see from time to time whether the store answers."""
        if self._asking or now - self._asked_at < _STANDBY_REST:
            return
        self._asking, self._asked_at = True, now

        def then(_: None) -> None:
            self._asking = False
            self._desk.answered()

        def failed(error: Exception) -> None:
            self._asking = False
            self._desk.failed(error, "standing by")

        self._desk.ask(self._keeper.look, then, failed)
