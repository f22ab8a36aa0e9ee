"""Becoming a partition's owner: by a take-over, and again, with other lanes, by a change of their number."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import structlog

from bridge.holdings import NO_EPOCH
from bridge.partition import Partition
from storage.batch import Source

if TYPE_CHECKING:
    from bridge.holdings import Holding, Holdings
    from bridge.keeper import Keeper, Taken
    from bridge.report import Report
    from bridge.route import Route
    from bridge.store_desk import StoreDesk
    from storage.ledger import Owner

log = structlog.get_logger("bridge")


class Ownership:
    """Takes partitions over, and changes their lanes. What it begins has a state; what fails is dropped.

    Args:
        route: which topic, how many lanes, and the limits.
        keeper: the store's side.
        desk: in whose thread.
        holdings: the partitions.
        report: told which offsets are gone.
        cluster: the cluster's id.
        topic_id: the topic's id.
    """

    def __init__(
        self,
        route: Route,
        keeper: Keeper,
        desk: StoreDesk,
        holdings: Holdings,
        report: Report,
        *,
        cluster: str,
        topic_id: str,
    ) -> None:
        self._route = route
        self._keeper = keeper
        self._desk = desk
        self._holdings = holdings
        self._report = report
        self._cluster = cluster
        self._topic_id = topic_id

    def take_over(self, holding: Holding, now: float) -> None:
        """Take a partition over, unless that is under way or it is too early for another try."""
        if holding.taking or now < holding.not_before:
            return
        holding.taking = True
        source = Source(self._cluster, self._route.topic, self._topic_id, holding.number)

        def then(taken: Taken | None) -> None:
            holding.taking = False
            if taken is not None and taken.start.gap is not None:
                self._report.lost(taken.start.gap[1] - taken.start.gap[0] + 1)
            if not self._holdings.has(holding):
                return
            if taken is None:
                self._holdings.drop(holding, time.monotonic())
                return
            self._begin(holding, taken)

        def failed(error: Exception) -> None:
            holding.taking = False
            self._desk.failed(error, f"take-over of {source}")
            self._holdings.drop(holding, time.monotonic())

        self._desk.ask(lambda: self._keeper.take_over(source), then, failed)

    def _begin(self, holding: Holding, taken: Taken) -> None:
        """Start reading a partition that was taken over."""
        start, offsets, now = taken.start, taken.offsets, time.monotonic()
        for note in start.notes:
            log.warning(note)
        state = Partition(taken.source, taken.owner.epoch, start.cursors, start.offset, self._route.limits)
        leader_epoch = NO_EPOCH
        if start.offset == offsets.committed and offsets.leader_epoch is not None:
            leader_epoch = offsets.leader_epoch
        if not self._holdings.begin(holding, state, now, leader_epoch=leader_epoch):
            self._holdings.drop(holding, now)
            return
        self._desk.answered()
        holding.stamp = taken.stamp
        is_ours = offsets.stamp in {taken.stamp, taken.stamp.at(offsets.committed)}
        holding.committed = holding.landed = offsets.committed if is_ours else None
        holding.switching = holding.committing = False
        log.info(
            "partition taken over",
            topic=self._route.topic,
            partition=holding.number,
            epoch=str(taken.owner.epoch),
            start=start.offset,
            lanes=taken.owner.lanes,
            commit=offsets.committed,
        )

    def wants_lanes(self, state: Partition) -> bool:
        """Whether another number of lanes is wanted than is in force."""
        return state.lanes != self._route.lanes

    def switch_lanes(self, holding: Holding, state: Partition) -> None:
        """Adopt another number of lanes, at a moment when nothing is outstanding."""
        if not self.wants_lanes(state) or holding.switching or not state.may_switch:
            return
        if not holding.paused:
            return  # paused first, so that nothing is read while the store is asked
        holding.switching = True
        position, seen = state.position, state.cursors

        def then(owner: Owner | None) -> None:
            holding.switching = False
            if not self._holdings.is_current(holding, state):
                return
            if owner is None:
                self._holdings.drop(holding, time.monotonic())
                return
            cursors = dict.fromkeys(range(owner.lanes), position - 1)
            holding.state = Partition(state.source, owner.epoch, cursors, position, self._route.limits)
            log.info("lanes changed", partition=str(state.source), lanes=owner.lanes, epoch=str(owner.epoch))

        def failed(error: Exception) -> None:
            holding.switching = False
            self._desk.failed(error, "changing the lanes")

        self._desk.ask(
            lambda: self._keeper.change_lanes(state.source, state.epoch, cursors=seen, position=position), then, failed
        )
