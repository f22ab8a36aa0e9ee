"""Beat's metrics and health: a thread reads what the store holds now and then, the scheduler says that it turns."""

from __future__ import annotations

import math
import os
import sys
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import structlog
from celery.beat import PersistentScheduler, SchedulingError
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


class WatchedScheduler(PersistentScheduler):  # type: ignore[misc] # Celery has no types
    """Celery's scheduler, which says that it turns, also while it waits for Redis.

    It remembers in a file what it sent last: pickles, and whoever writes a pickle runs code in whoever reads it. The
    default is in the folder for temporary files, where everybody may write: so only our own file is read.
    """

    turned: Callable[[], None] = staticmethod(ignore)
    ended: Callable[[], None] = staticmethod(ignore)
    redis: RedisState | None = None

    def setup_schedule(self) -> None:
        """Read the schedule from its file, whose folder is made if it is absent.

        Raises:
            OSError: the folder cannot be made, or written to.
            PermissionError: the file belongs to another user; says which.
        """
        name = Path(self.schedule_filename)
        name.parent.mkdir(parents=True, exist_ok=True)
        for suffix in self.known_suffixes:
            path = name.with_name(name.name + suffix)
            if path.exists() and path.stat().st_uid != os.geteuid():
                msg = f"{path} belongs to another user: delete it, or name another with BEAT_SCHEDULE_FILE"
                raise PermissionError(msg)
        super().setup_schedule()

    def tick(self, *args: Any, **options: Any) -> Any:
        """Send what is due; the seconds until the next."""
        self.turned()
        return super().tick(*args, **options)

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

    def _ensure_connected(self) -> Any:
        def failed(error: Exception, interval: float) -> None:
            self.turned()
            if self.redis is not None:
                self.redis.waits(error)
            log.error("waiting for Redis", error=explain(error), retry_in=interval)

        tries = self.app.conf.broker_connection_max_retries
        return self.connection.ensure_connection(failed, tries, **RECONNECT)
