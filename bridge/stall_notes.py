"""Telling people which batches do not move: each is noted in the store once an attempt. Runs in the loop's thread."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from storage.stalls import Stall

if TYPE_CHECKING:
    from collections.abc import Callable

    from bridge.desk import Desk
    from bridge.keeper import Keeper
    from bridge.partition import Partition
    from storage.batch import Batch


class StallNotes:
    """Notes stalled batches.

    Args:
        keeper: the store's side.
        desk: the thread that talks to the store.
        failed: told of an error, and of what was being done.
    """

    def __init__(self, keeper: Keeper, desk: Desk, failed: Callable[[Exception, str], None]) -> None:
        self._keeper = keeper
        self._desk = desk
        self._failed = failed
        self._noted: dict[tuple[int, int], Stall] = {}

    def look(self, state: Partition, now: float) -> None:
        """Note those of a partition's stalled batches that are not noted as they are."""
        for batch in state.stalled(now):
            place = (batch.source.partition, batch.lane)
            noted, stall = self._noted.get(place), _describe(batch, state)
            if noted is None or _facts(noted) != _facts(stall):
                self._noted[place] = stall
                self._note(place, stall)

    def _note(self, place: tuple[int, int], stall: Stall) -> None:
        def failed(error: Exception) -> None:
            if self._noted.get(place) is stall:
                del self._noted[place]  # once more when the batch is still stalled
            self._failed(error, "noting a batch that does not move")

        self._desk.ask(lambda: self._keeper.note_stall(stall), lambda _: None, failed)


def _describe(batch: Batch, state: Partition) -> Stall:
    since = time.time() - state.stall
    cursor = state.cursors[batch.lane]
    return Stall(batch.source, batch.lane, batch.epoch, cursor, batch.first, batch.last, batch.attempt, since)


def _facts(stall: Stall) -> tuple[object, ...]:
    return stall.epoch, stall.cursor, stall.first, stall.attempt
