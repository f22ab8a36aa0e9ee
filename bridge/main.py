"""The bridge as a program: open the store, run each route in a thread of its own, end in order."""

from __future__ import annotations

import math
import signal
import threading
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import structlog
from confluent_kafka import Consumer
from confluent_kafka.admin import AdminClient

from bridge.membership import Membership
from bridge.notices import Notices
from bridge.reader import describe_consumer
from bridge.report import STORE, Report
from bridge.route import Route, find_routes
from bridge.service import Service, Waiting
from storage.errors import Fatal
from tasks.errors import WrongSettingError
from tasks.health import MAIN, Health
from tasks.kafka_clients import find_refusals, without_group, word_refusals
from tasks.logs import configure_logs
from tasks.meter import Meter
from tasks.metrics import Role
from tasks.opened import open_settings_store
from tasks.redis_refusals import REFUSALS
from tasks.redis_state import REDIS, RedisState
from tasks.tracing import connect_signals, start_tracing, stop_tracing
from tasks.watch import Watch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bridge.lookup import Lookup
    from storage.store import Store
    from tasks.settings import Settings

log = structlog.get_logger("bridge")

STORE_SECONDS = 30.0  # without an answer from the store for so long, the bridge is not ready


def check_kafka_settings(settings: Settings) -> None:
    """See whether the Kafka clients that a bridge needs can be made. Connects to nothing.

    Raises:
        WrongSettingError: one cannot; names each setting that librdkafka refuses.
    """
    config = settings.kafka_client()
    refused = find_refusals(AdminClient, without_group(config), config)
    for route in find_routes(settings):
        refused += find_refusals(Consumer, describe_consumer(config, route, Membership(config, route.group)), config)
    if refused:
        raise WrongSettingError(word_refusals(refused))


def run(settings: Settings, *, adopt: bool = False) -> int:
    """Run the bridge until SIGTERM or SIGINT.

    Args:
        settings: all settings.
        adopt: trust a commit that belongs to another Kafka cluster or store, and go on from it.

    Returns:
        The exit code: 0 after a signal, 1 where a person has to decide (the last log line says what).

    Raises:
        WrongSettingError: a setting is wrong, in a way that only shows where it is used.
    """
    return _Program(settings, adopt=adopt, drain=False).run()


def drain(settings: Settings) -> int:
    """Apply up to beyond everything that was ever applied, commit, fence: then the stock workers can go on.

    The bridge must be stopped, the workers running. Waits for both, and says so.

    Returns:
        The exit code: 0 when all partitions are drained, 1 where it was interrupted or a person has to decide.
    """
    return _Program(settings, adopt=False, drain=True).run()


class _Program:
    """One run of the bridge: the routes side by side. Where one has to stop, all do."""

    def __init__(self, settings: Settings, *, adopt: bool, drain: bool) -> None:
        self._settings = settings
        self._adopt = adopt
        self._drain = drain
        self._stop = threading.Event()
        self._errors: list[BaseException] = []
        self._well = True
        self._meter = Meter()
        self._health: Health | None = None
        self._redis = RedisState(self._meter, None)

    def run(self) -> int:
        settings = self._settings
        check_kafka_settings(settings)
        REFUSALS.aloud = True
        configure_logs(settings.log_level, settings.log_format, traced=settings.tracing)
        if settings.tracing:
            start_tracing(Role.BRIDGE)
            connect_signals()
        try:
            return self._run()
        finally:
            stop_tracing()

    def _run(self) -> int:
        with _signals(self._stop), ExitStack() as stack:
            routes = find_routes(self._settings)
            if not self._drain:
                watch = stack.enter_context(self._watch(routes))
                self._health = watch.health
                self._redis = RedisState(self._meter, self._health)
                self._redis.well()  # it has not failed yet: nothing is sent before there is something to do
            try:
                store = Waiting(self._stop, Notices(log), self._turned).wait("store", self._open_store)
            except Fatal as error:
                log.error("stopped: a person has to decide", error=str(error))
                return 1
            if store is None:
                return int(self._drain)
            with store:
                self._run_routes(store, routes)
        for problem in self._errors:
            if not isinstance(problem, Fatal):
                raise problem
        return 0 if self._well and not self._errors else 1

    def _watch(self, routes: list[Route]) -> Watch:
        self._meter.begin(Role.BRIDGE)
        needs = {STORE: STORE_SECONDS, REDIS: math.inf, **dict.fromkeys((route.topic for route in routes), math.inf)}
        return Watch(self._settings, Role.BRIDGE, self._meter, [self._meter.registry], needs)

    def _turned(self) -> None:
        if self._health is not None:
            self._health.turn()

    def _make_report(self, route: Route, lookup: Lookup) -> Report:
        return Report(route, self._meter, self._health, self._redis, lookup)

    def _run_routes(self, store: Store, routes: list[Route]) -> None:
        threads = []
        for route in routes:
            service = Service(
                self._settings, route, store, self._stop, self._make_report, adopt=self._adopt, drain=self._drain
            )
            thread = threading.Thread(target=self._run_service, args=(service,), name=f"route-{route.topic}")
            thread.start()
            threads.append(thread)
        if self._health is not None:
            for route in routes:
                self._health.turn(route.topic)  # from here on these loops turn
            self._health.end_loop(MAIN)
        for thread in threads:
            thread.join()  # a signal's handler runs meanwhile

    def _run_service(self, service: Service) -> None:
        """One route, to its end; whatever ends it otherwise than it should ends the others too."""
        structlog.contextvars.bind_contextvars(topic=service.route.topic)
        try:
            if not service.run():
                self._well = False
        except Fatal as error:
            log.error("stopped: a person has to decide", topic=service.route.topic, error=str(error))
            self._errors.append(error)
            self._stop.set()
        except BaseException as error:  # noqa: BLE001 - raised by the main thread when the other routes have ended
            self._errors.append(error)
            self._stop.set()

    def _open_store(self) -> Store:
        return open_settings_store(self._settings)


@contextmanager
def _signals(stop: threading.Event) -> Iterator[None]:
    """SIGTERM and SIGINT set ``stop`` while the program runs."""
    before = {number: signal.signal(number, lambda *_: stop.set()) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
