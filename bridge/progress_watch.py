"""Watching for partitions that stand still though they could move, and telling everybody who can be told."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from bridge.progress import Progress, Sight
from storage.standstills import StandstillNote

if TYPE_CHECKING:
    from bridge.holdings import Holding, Holdings
    from bridge.keeper import Keeper
    from bridge.notices import Notices
    from bridge.progress import Standstill
    from bridge.report import Report
    from bridge.store_desk import StoreDesk
    from storage.batch import Source

_EVERY: Final = 1.0  # seconds between two looks
_NOTE_EVERY: Final = 15.0  # seconds between two notes of what still stands


class ProgressWatch:
    """Looks at what is held, and tells log, metrics, health and, for `matyan-celery status`, the store.

    Args:
        keeper: the store's side.
        desk: in whose thread.
        holdings: the partitions.
        report: knows the logs' bounds and who answers; told what stands still.
        notices: where to say it.
        topic: source of partition 0; the others differ in their numbers.
        commit_every: seconds between two commits of a partition.
    """

    def __init__(
        self,
        keeper: Keeper,
        desk: StoreDesk,
        holdings: Holdings,
        report: Report,
        notices: Notices,
        topic: Source,
        *,
        commit_every: float,
    ) -> None:
        self._keeper = keeper
        self._desk = desk
        self._holdings = holdings
        self._report = report
        self._notices = notices
        self._topic = topic
        self._progress = Progress(commit_every)
        self._looked_at = 0.0
        self._noted_at = 0.0
        self._standing: dict[int, Standstill] = {}

    def look(self, now: float) -> None:
        """Look, if it is time to."""
        if now - self._looked_at < _EVERY:
            return
        self._looked_at = now
        for holding in self._holdings:
            self._progress.look(holding.number, self._see(holding, now), now)
        self._progress.keep(self._holdings.states)
        standing = {still.partition: still for still in self._progress.find(now)}
        self._tell(standing)
        self._note(standing, now)
        self._standing = standing

    def _see(self, holding: Holding, now: float) -> Sight:
        state = holding.state
        return Sight(
            position=None if state is None else state.position,
            committable=None if state is None else state.committable(),
            landed=None if state is None else holding.landed,
            resting=holding.paused or holding.astray,
            readable=self._report.find_readable(holding.number, now),
            answered=self._report.is_answered(now),
        )

    def _tell(self, standing: dict[int, Standstill]) -> None:
        self._report.stood(list(standing.values()))
        for number, still in standing.items():
            self._notices.say(
                f"standstill {number}", "stands still though it could move", what=still.describe(self._topic.topic)
            )
        for number in self._standing.keys() - standing.keys():
            self._notices.over(f"standstill {number}")

    def _note(self, standing: dict[int, Standstill], now: float) -> None:
        """Leave notes in the store, and take those away that are not true any more."""
        wall = time.time()
        gone = [self._topic._replace(partition=number) for number in self._standing.keys() - standing.keys()]
        notes = [
            StandstillNote(
                self._topic._replace(partition=number), still.step, still.at, still.end, wall - still.seconds, wall
            )
            for number, still in standing.items()
            if number not in self._standing or now - self._noted_at >= _NOTE_EVERY
        ]
        if not gone and not notes:
            return
        self._noted_at = now
        self._desk.ask(
            lambda: self._keeper.note_standstills(notes, gone),
            lambda _: None,
            lambda error: self._desk.failed(error, "noting what stands still"),
        )
