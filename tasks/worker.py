"""A worker's metrics and health: its parent process shows them, its children count and ask the store.

The parent never opens the store: a FoundationDB client opened before a fork is of no use after it. So a thread in each
child sees from time to time whether the store answers, and touches a file that the parent looks at.
"""

from __future__ import annotations

import math
import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from celery import bootsteps

from storage.meaning import CONTROL, INGEST
from tasks.celeryconfig import find_queues
from tasks.children import VARIABLE, ChildMetrics, forget_child, prepare_folder
from tasks.metrics import Role
from tasks.pulse import Pulse
from tasks.queues import CLEANUP_QUEUE
from tasks.redis_state import AWAY, REDIS, RedisState
from tasks.settings import WrongSettingError
from tasks.tracing import check_installed, start_tracing, stop_tracing
from tasks.watch import Watch

if TYPE_CHECKING:
    from collections.abc import Collection

    from tasks.meter import Meter
    from tasks.opened import OpenedStore
    from tasks.settings import Settings

STORE: Final = "store"
_STORE_SECONDS: Final = 45.0  # without an answer from the store for so long, the worker is not ready
_LANES: Final = (f"{INGEST}.", f"{CONTROL}.")


def name_role(queues: Collection[str]) -> Role:
    """What a worker is that consumes these queues (without their prefix): by the most urgent work that it does."""
    if any(name.startswith(_LANES) for name in queues):
        return Role.WORKER
    return Role.CLEANER if CLEANUP_QUEUE in queues else Role.JOBS


class WorkerWatch:
    """Handles the signals of a worker's life. Each handler runs in the process that its name says.

    Args:
        settings: port, folder, which store.
        opened: this process' store.
        meter: counts what this process does.
    """

    def __init__(self, settings: Settings, opened: OpenedStore, meter: Meter) -> None:
        self._settings = settings
        self._opened = opened
        self._meter = meter
        self._watch: Watch | None = None
        self._redis: RedisState | None = None
        self._parent = 0
        self._folder: Path | None = None
        self._pulse: Pulse | None = None
        self._seen = 0.0

    # -- the parent ----------------------------------------------------------------------------------------------------

    def begin(self, sender: Any, **_: Any) -> None:
        """The worker is made, nothing is forked yet."""
        queues, known = set(sender.app.amqp.queues.consume_from), find_queues(self._settings)
        if not queues <= set(known):
            sys.exit(f"no such queues: {', '.join(sorted(queues - set(known)))}; ours are {', '.join(known)}")
        role = name_role({name.removeprefix(self._settings.queue_prefix) for name in queues})
        self._parent = os.getpid()
        try:
            if self._settings.tracing:
                check_installed()
            self._folder = prepare_folder(Path(self._settings.heartbeat_folder) / "workers")
            needs = {REDIS: math.inf, STORE: _STORE_SECONDS}
            self._watch = Watch(self._settings, role, self._meter, [ChildMetrics(self._folder)], needs)
            self._redis = RedisState(self._meter, self._watch.health)
        except WrongSettingError as error:
            sys.exit(str(error))
        except OSError as error:
            sys.exit(f"HEARTBEAT_FOLDER={self._settings.heartbeat_folder!r}: cannot write there ({error.strerror})")
        sender.matyan_watch = self

    def turn(self) -> None:
        """The worker's loop has turned, or waits for Redis."""
        if self._watch is None:
            return
        touched = _touched(self._folder)
        if touched != self._seen:  # not later than before: the clock may have been set back
            self._seen = touched
            self._watch.health.answered(STORE)
        self._watch.health.turn()

    def connected(self) -> None:
        """The worker consumes its queues."""
        if self._redis is not None:
            self._redis.well()

    def connects(self) -> None:
        """The worker has no connection to Redis, and makes one."""
        if self._redis is not None:
            self._redis.waits_for(AWAY, "no connection")

    def disconnected(self, error: BaseException) -> None:
        """The worker waits for Redis."""
        if self._redis is not None:
            self._redis.waits(error)

    def become_ready(self, sender: Any, **_: Any) -> None:
        """It consumes; where nothing is forked, this process is its own child."""
        from celery.concurrency.prefork import TaskPool

        if not isinstance(sender.pool, TaskPool):
            self.begin_child()

    def end(self, **_: Any) -> None:
        """The worker ends."""
        self._stop_pulse()
        stop_tracing()
        if self._watch is not None and os.getpid() == self._parent:
            self._watch.close()
            if self._folder is not None:
                shutil.rmtree(self._folder, ignore_errors=True)

    # -- a child -------------------------------------------------------------------------------------------------------

    def begin_child(self, **_: Any) -> None:
        """A child begins, or what takes its place."""
        if self._watch is not None and os.getpid() != self._parent and self._watch.endpoint is not None:
            self._watch.endpoint.release()
        self._meter.begin(Role.WORKER)
        if self._settings.tracing:
            start_tracing(Role.WORKER)
        folder = os.environ.get(VARIABLE)
        if self._pulse is None and folder:
            self._pulse = Pulse(self._opened.look, (Path(folder) / STORE).touch)
            self._pulse.start()

    def end_child(self, pid: int = 0, **_: Any) -> None:
        """A child ends."""
        self._stop_pulse()
        stop_tracing()
        forget_child(pid or os.getpid())

    def _stop_pulse(self) -> None:
        if self._pulse is not None:
            self._pulse.stop()
            self._pulse = None


class HeartbeatStep(bootsteps.StartStopStep):  # type: ignore[misc] # Celery has no types
    """Has the worker's loop say each second that it turns."""

    requires = ("celery.worker.components:Timer",)

    def start(self, worker: Any) -> None:
        """Begin when the worker starts; the timer ends with the loop."""
        watch: WorkerWatch = worker.matyan_watch
        watch.turn()
        worker.timer.call_repeatedly(1.0, watch.turn)


def _touched(folder: Path | None) -> float:
    """When a child last saw the store answer; 0 if never."""
    try:
        return 0.0 if folder is None else (folder / STORE).stat().st_mtime
    except FileNotFoundError:
        return 0.0
