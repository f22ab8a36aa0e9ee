"""What one route's loop tells the outside: metrics and health. Cheap enough for each turn."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from bridge.desk import Desk
from bridge.fresh import KafkaAway
from bridge.progress import HUNG_AFTER
from storage.clocks import FIRST
from tasks.metrics import (
    CONTROL_CONSUMED,
    IN_FLIGHT,
    INGESTION_CONSUMED,
    LAG_RECORDS,
    LAG_SECONDS,
    LOST,
    OLDEST_UNAPPLIED,
    PARTITIONS,
    RESENDS,
    SKIPPED,
    STANDING_SECONDS,
    Metric,
)
from tasks.queues import CONTROL_TASK, INGEST_TASK

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType
    from typing import Self

    from bridge.lookup import Bounds, Lookup
    from bridge.partition import Partition
    from bridge.progress import Standstill
    from bridge.route import Route
    from tasks.health import Health
    from tasks.meter import Meter, Values
    from tasks.redis_state import RedisState

STORE: Final = "store"
_CONSUMED: Final[dict[str, Metric]] = {INGEST_TASK: INGESTION_CONSUMED, CONTROL_TASK: CONTROL_CONSUMED}
_EVERY: Final = 1.0  # seconds between two readings of the gauges
_BOUNDS_EVERY: Final = 5.0  # seconds between two questions for the log's bounds
_BOUNDS_LAST: Final = 20.0  # seconds for which an answer says what can be read now
_OUTAGE: Final = 45.0  # seconds for which a failure counts: what fails is tried again within half a minute


@dataclass(slots=True)
class Lag:
    """How far a partition is behind.

    Attributes:
        records: that are not applied, as far as they can be read: up to the first open transaction.
        seconds: age of the oldest of these.
    """

    records: int
    seconds: float


class LagClock:
    """Works the lag of a partition out, also where its oldest record is not known: then since when there is one.

    A record whose time lies ahead, or before all that Matyan ever logged, has a producer with a wrong clock: it ages
    since it is the oldest.
    """

    def __init__(self) -> None:
        self._applied: int | None = None
        self._since: float | None = None
        self._oldest: int | None = None  # the offset of the record that `_since` is about, where it is known

    def read(self, state: Partition | None, bounds: Bounds | None, now: float, wall: float) -> Lag | None:
        """The lag now; None where nothing is known yet.

        Records that are read count one each; of what is not read, only the bounds are known.

        Args:
            state: the partition as far as it is read; None while it is not taken over.
            bounds: of the log, as far as known.
            now: seconds of the clock that the state uses.
            wall: Unix seconds.
        """
        created: float | None = None
        if state is not None:
            self._applied = state.committable()
            unread = 0 if bounds is None else max(0, bounds.readable - max(state.position, bounds.log_start))
            records = state.unapplied + unread
            first = state.oldest()
            created = first.timestamp_ms / 1_000 if first is not None else None
            if created is not None and not FIRST < created <= wall:
                created = None
            oldest = first.offset if first is not None else None
            if oldest is not None:
                if self._oldest is not None and oldest != self._oldest:
                    self._since = None
                self._oldest = oldest
        elif self._applied is None or bounds is None:
            return None
        else:
            records = max(0, bounds.readable - max(self._applied, bounds.log_start))
        if not records:
            self._since = None
            return Lag(0, 0.0)
        if created is not None:
            self._since = None
            return Lag(records, max(0.0, wall - created))
        if self._since is None:
            self._since = now
        return Lag(records, now - self._since)


class Report:
    """Tells metrics and health what a loop does.

    Args:
        route: the loop's.
        meter: takes the metrics.
        health: takes the health; None where nobody asks for it.
        redis: takes whether Redis is waited for.
        lookup: asks Kafka for the log's bounds.
    """

    def __init__(self, route: Route, meter: Meter, health: Health | None, redis: RedisState, lookup: Lookup) -> None:
        self._topic = route.topic
        self._consumed = _CONSUMED[route.task]
        self._meter = meter
        self._health = health
        self._redis = redis
        self._lookup = lookup
        self._desk = Desk("bounds")
        self._bounds: dict[int, Bounds] = {}
        self._asking = False
        self._asked = -_BOUNDS_EVERY
        self._clocks: dict[int, LagClock] = {}
        self._read = 0.0
        self._bounds_at = self._failed_at = -_OUTAGE
        meter.count(SKIPPED, 0, self._topic)
        meter.count(RESENDS, 0, self._topic)
        meter.count(LOST, 0, self._topic)

    def turned(self, states: Mapping[int, Partition | None]) -> None:
        """The loop has turned; what it has, by number, None for what is not taken over."""
        self.alive()
        now = time.monotonic()
        if now - self._read >= _EVERY:
            self._read = now
            self._desk.answer()
            self._ask_bounds(list(states), now)
            self._show(states, now)

    def alive(self) -> None:
        """The loop is busy with something that takes longer than a turn."""
        if self._health is not None:
            self._health.turn(self._topic)

    def consumed(self, records: int, skipped: int) -> None:
        """So many records were read, and so many of them skipped."""
        if records:
            self._meter.count(self._consumed, records)
        if skipped:
            self._meter.count(SKIPPED, skipped, self._topic)

    def resent(self) -> None:
        """A batch is sent again."""
        self._meter.count(RESENDS, 1, self._topic)

    def redis_waits(self, error: Exception) -> None:
        """Redis did not take a batch."""
        self._redis.waits(error, self._topic)

    def redis_well(self) -> None:
        """It did."""
        self._redis.well(self._topic)

    def lost(self, offsets: int) -> None:
        """So many offsets are gone."""
        self._meter.count(LOST, offsets, self._topic)

    def store_answered(self) -> None:
        """The store has answered."""
        if self._health is not None:
            self._health.answered(STORE)

    def store_failed(self, error: Exception) -> None:
        """The store has not answered."""
        self._failed_at = time.monotonic()
        if self._health is not None:
            self._health.failed(STORE, str(error))

    def kafka_failed(self) -> None:
        """Kafka has not answered a question."""
        self._failed_at = time.monotonic()

    def is_answered(self, now: float) -> bool:
        """Whether store and Kafka have answered what they were asked lately."""
        return now - self._failed_at >= _OUTAGE

    def find_readable(self, number: int, now: float) -> int | None:
        """Where reading a partition ends now; None where Kafka has not said so lately."""
        bounds = self._bounds.get(number) if now - self._bounds_at < _BOUNDS_LAST else None
        return None if bounds is None else bounds.readable

    def stood(self, standing: list[Standstill]) -> None:
        """These partitions stand still though they could move, and no others."""
        topic = self._topic
        self._meter.show(
            STANDING_SECONDS, {(topic, str(still.partition)): still.seconds for still in standing}, owner=topic
        )
        if self._health is not None:
            hung = any(still.seconds >= HUNG_AFTER for still in standing)
            self._health.stand(topic, [still.describe(topic) for still in standing], hung=hung)

    def joined(self) -> None:
        """The loop has its share of the partitions, which may be none."""
        if self._health is not None:
            self._health.answered(self._topic)

    def left(self, why: str) -> None:
        """The loop has no share of the partitions any more."""
        if self._health is not None:
            self._health.failed(self._topic, why)

    def close(self) -> None:
        """Show nothing any more. Closing twice is fine."""
        self._desk.close()
        if self._health is not None:
            self._health.end_loop(self._topic)
        for metric in (LAG_RECORDS, LAG_SECONDS, OLDEST_UNAPPLIED, IN_FLIGHT, PARTITIONS, STANDING_SECONDS):
            self._meter.show(metric, {}, owner=self._topic)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _show(self, states: Mapping[int, Partition | None], now: float) -> None:
        topic, wall = self._topic, time.time()
        for number in self._clocks.keys() - states.keys():
            del self._clocks[number]
        records: Values = {}
        seconds: Values = {}
        for number, state in states.items():
            lag = self._clocks.setdefault(number, LagClock()).read(state, self._bounds.get(number), now, wall)
            if lag is not None:
                records[topic, str(number)] = lag.records
                seconds[topic, str(number)] = lag.seconds
        reading = [state for state in states.values() if state is not None]
        shown: dict[Metric, Values] = {
            LAG_RECORDS: records,
            LAG_SECONDS: seconds,
            OLDEST_UNAPPLIED: {(topic,): max(seconds.values(), default=0.0)},
            IN_FLIGHT: {(topic,): sum(state.in_flight for state in reading)},
            PARTITIONS: {(topic, "assigned"): len(states), (topic, "reading"): len(reading)},
        }
        for metric, values in shown.items():
            self._meter.show(metric, values, owner=topic)

    def _ask_bounds(self, numbers: list[int], now: float) -> None:
        """Ask for the log's bounds: what a paused partition has cannot be known from reading it."""
        if self._asking or not numbers or now - self._asked < _BOUNDS_EVERY:
            return
        self._asking, self._asked = True, now

        def then(bounds: dict[int, Bounds]) -> None:
            self._asking = False
            self._bounds, self._bounds_at = bounds, time.monotonic()

        def failed(error: Exception) -> None:
            self._asking = False
            if not isinstance(error, KafkaAway):  # the loop says that Kafka is away
                raise error

        self._desk.ask(lambda: self._lookup.bounds(self._topic, numbers), then, failed)
