"""Beat's metrics and health: a thread reads what the store holds now and then, the scheduler says that it turns.

And the scheduler itself, which believes no time that lies ahead of the clock.
"""

from __future__ import annotations

import math
import sys
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import structlog
from celery.beat import Scheduler, SchedulingError
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from storage.cascades import CascadeState
from storage.cleanups import CleanupState
from storage.engine import ignore
from tasks.celeryconfig import RECONNECT
from tasks.metrics import CASCADES, CLEANUPS, DEAD_LETTERS_KEPT, LEDGER_AGE, OUTBOX, Role
from tasks.pulse import Pulse
from tasks.redis_answers import explain
from tasks.redis_state import REDIS, RedisState
from tasks.schedule_file import ScheduleFile, Sent
from tasks.settings import WrongSettingError
from tasks.watch import Watch

if TYPE_CHECKING:
    from collections.abc import Callable

    from storage.store import Store
    from tasks.meter import Meter
    from tasks.opened import OpenedStore
    from tasks.settings import Settings

STORE: Final = "store"
EVERY: Final = 30.0  # seconds between two readings of the ledgers
_PAUSE: Final = 2.0  # seconds between two tries to send what Redis refuses
_SAY_EVERY: Final = 30.0  # seconds between two lines about that
_AHEAD: Final = 60.0  # seconds that a clock may be set back by, without a word: the shortest time between two turns
_PILED: Final = 1_000  # tasks in the jobs' queue
# Done cleanups are kept by the thousand, and nobody waits for them: the counter of finished ones tells.
_STATES: Final = tuple(state for state in CleanupState if state is not CleanupState.DONE)
_CASCADE_STATES: Final = tuple(state for state in CascadeState if state is not CascadeState.DONE)

log = structlog.get_logger("tasks.beat")


class BeatWatch:
    """Handles the signals of beat's life.

    Args:
        settings: port, folder, which store.
        opened: beat's own store: it forks nothing.
        meter: shows what the store holds.
    """

    def __init__(self, settings: Settings, opened: OpenedStore, meter: Meter) -> None:
        self._settings = settings
        self._opened = opened
        self._meter = meter
        self._watch: Watch | None = None
        self._pulse: Pulse | None = None

    def begin(self, sender: Any, **_: Any) -> None:
        """Beat begins."""
        try:
            needs = {STORE: 3 * EVERY, REDIS: math.inf}
            watch = Watch(self._settings, Role.BEAT, self._meter, [self._meter.registry], needs)
        except WrongSettingError as error:
            sys.exit(str(error))
        self._meter.begin(Role.BEAT)
        self._watch = watch
        self._pulse = Pulse(
            lambda: show_ledgers(self._opened.store(), self._meter),
            lambda: watch.health.answered(STORE),
            failed=lambda error: watch.health.failed(STORE, str(error)),
            every=EVERY,
        )
        self._pulse.start()
        sender.scheduler.turned = watch.health.turn
        sender.scheduler.redis = redis = RedisState(self._meter, watch.health)
        redis.well()  # it has not failed yet: nothing is sent before something is due
        sender.scheduler.ended = self.end

    def end(self) -> None:
        """Beat ends. Ending twice is fine."""
        if self._pulse is not None:
            self._pulse.stop()
        if self._watch is not None:
            self._watch.close()
        self._opened.close()


def show_ledgers(store: Store, meter: Meter) -> None:
    """Show what the store holds for people to see to.

    Raises:
        StorageError: it cannot be read.
    """
    cleanups = store.cleanups.count(store.engine, states=_STATES)
    cascades = store.cascades.count(store.engine, states=_CASCADE_STATES)
    letters = Counter[str]()
    for (_, _, reason), count in store.dead_letters.count(store.engine).items():
        letters[reason] += count
    events = store.outbox.count(store.engine)
    meter.show(CLEANUPS, {(state.value,): count for state, count in cleanups.items()})
    meter.show(CASCADES, {(state.value,): count for state, count in cascades.items()})
    meter.show(DEAD_LETTERS_KEPT, {(reason,): count for reason, count in letters.items()})
    meter.show(OUTBOX, {(): events})
    meter.show_age(LEDGER_AGE)


class WatchedScheduler(Scheduler):  # type: ignore[misc] # Celery has no types
    """Celery's scheduler, which says that it turns, also while it waits for Redis.

    What it sent last is kept in a file of our own (`tasks.schedule_file`) and not in Celery's: that one is pickles,
    and whoever writes a pickle runs code in whoever reads it; and its form differs from one Python to the next.
    """

    turned: Callable[[], None] = staticmethod(ignore)
    ended: Callable[[], None] = staticmethod(ignore)
    redis: RedisState | None = None

    def __init__(self, *args: Any, schedule_filename: str, **options: Any) -> None:
        self._path = schedule_filename
        self._file = ScheduleFile(Path(schedule_filename))
        super().__init__(*args, sync_every_tasks=1, **options)

    @property
    def info(self) -> str:
        """For Celery's banner."""
        return f"    . file -> {self._path}"

    def setup_schedule(self) -> None:
        """Make the schedule, and read from the file what was sent last."""
        super().setup_schedule()
        for name, sent in self._file.read().items():
            entry = self.schedule.get(name)
            if entry is not None:
                entry.last_run_at = datetime.fromtimestamp(sent.at, UTC)
                entry.total_run_count = sent.times
        self.sync()

    def sync(self) -> None:
        """Write to the file what was sent last."""
        self._file.write(
            {name: Sent(entry.last_run_at.timestamp(), entry.total_run_count) for name, entry in self.schedule.items()}
        )

    def tick(self, *args: Any, **options: Any) -> Any:
        """Send what is due; the seconds until the next."""
        self.turned()
        self._bring_back()
        return super().tick(*args, **options)

    def apply_entry(self, entry: Any, producer: Any = None) -> None:
        """Send a job, unless its queue is full of what nobody takes.

        No job expires in its queue: Celery would compare the worker's clock with ours, and clocks differ. A job that
        has waited past its next turn is passed over by the record of the one before it (`storage.locks`).
        """
        waiting = self._count_waiting()
        if waiting >= _PILED:
            log.error("a job is not sent: no worker takes what waits in its queue", job=entry.name, waiting=waiting)
            return
        super().apply_entry(entry, producer=producer)

    def close(self) -> None:
        """Write the schedule to its file, and end what watches it."""
        super().close()
        self.ended()

    def apply_async(self, entry: Any, producer: Any = None, advance: bool = True, **options: Any) -> Any:
        """Send a task that is due, as soon as Redis takes it: the next time it is due may be tomorrow."""
        began, said = time.monotonic(), -math.inf
        while True:
            self.turned()
            try:
                sent = super().apply_async(entry, producer=producer, advance=advance, **options)
            except SchedulingError as error:
                if not isinstance(error.__context__, (OperationalError, RedisError, OSError)):
                    raise
                now = time.monotonic()
                if now - said >= _SAY_EVERY:
                    said = now
                    log.error("waiting for Redis", task=entry.name, error=explain(error), seconds=round(now - began, 1))
                if self.redis is not None:
                    self.redis.waits(error)
                advance = False
                time.sleep(_PAUSE)
            else:
                if self.redis is not None:
                    self.redis.well()
                return sent

    def _bring_back(self) -> None:
        """Bring entries that were sent in the future back to now: the clock was wrong, then or as the file was read.

        Celery sends nothing before such a time has come. Its heap holds times of that clock too, and is made anew.
        """
        now = self.app.now()
        ahead = [entry for entry in self.schedule.values() if (entry.last_run_at - now).total_seconds() > _AHEAD]
        if ahead:
            log.warning(
                "the clock was wrong: jobs are noted as sent in the future, and are taken as sent just now",
                jobs=sorted(entry.name for entry in ahead),
                ahead_seconds=round(max((entry.last_run_at - now).total_seconds() for entry in ahead)),
            )
            for entry in ahead:
                entry.last_run_at = now
            self._heap = None
            self.sync()

    def _count_waiting(self) -> int:
        """How many tasks wait in the jobs' queue; 0 where Redis does not say, since sending will tell."""
        try:
            client: Any = self.connection.default_channel.client
            return int(client.llen(self.app.conf.task_default_queue))
        except (OperationalError, RedisError, OSError):
            return 0

    def _ensure_connected(self) -> Any:
        def failed(error: Exception, interval: float) -> None:
            self.turned()
            if self.redis is not None:
                self.redis.waits(error)
            log.error("waiting for Redis", error=explain(error), retry_in=interval)

        tries = self.app.conf.broker_connection_max_retries
        return self.connection.ensure_connection(failed, tries, **RECONNECT)
