"""The bridge as a program: wait for what it needs, run its loop, end in order."""

from __future__ import annotations

import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, TypeVar

import structlog

from bridge.keeper import Keeper
from bridge.lookup import CLIENT_ID, KafkaAway, Lookup, NoSuchTopic
from bridge.loop import Loop, Pace
from bridge.notices import Notices
from bridge.publisher import Publisher
from bridge.route import Route, ingest_route
from bridge.verifier import TopicChanged
from storage.errors import Fatal, StorageUnavailable
from tasks.app import make_app
from tasks.logs import configure_logs
from tasks.opened import open_settings_store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from storage.store import Store
    from tasks.settings import Settings

T = TypeVar("T")

log = structlog.get_logger("bridge")

_PAUSE: Final = 1.0  # seconds between two looks at what is waited for


def run(settings: Settings, *, adopt: bool = False) -> int:
    """Run the bridge until SIGTERM or SIGINT.

    Args:
        settings: all settings.
        adopt: trust a commit that belongs to another Kafka cluster or store, and go on from it.

    Returns:
        The exit code: 0 after a signal, 1 where a person has to decide (the last log line says what).
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
    """One run of the bridge."""

    def __init__(self, settings: Settings, *, adopt: bool, drain: bool) -> None:
        self._settings = settings
        self._adopt = adopt
        self._drain = drain
        self._stop = threading.Event()
        self._notices = Notices(log)

    def run(self) -> int:
        configure_logs(self._settings.log_level)
        route = ingest_route(self._settings)
        with _signals(self._stop):
            try:
                store = self._wait("store", self._open_store)
                if store is None:
                    return int(self._drain)
                with store:
                    return self._serve(store, route)
            except Fatal as error:
                log.error("stopped: a person has to decide", error=str(error))
                return 1

    def _serve(self, store: Store, route: Route) -> int:
        """Loops, one after the other: a new one for each life of the topic."""
        settings = self._settings
        pace = Pace(
            poll=settings.poll_ms / 1_000,
            commit=settings.commit_seconds,
            check=settings.check_seconds,
            drain=settings.drain_seconds,
        )
        publisher = Publisher(make_app(settings), route)
        with Lookup(settings.kafka_client(), route.group) as lookup:
            keeper = Keeper(store, lookup, route, adopt=self._adopt)
            while not self._stop.is_set():
                ids = self._wait("kafka", lambda: (lookup.cluster_id(), lookup.topic_id(route.topic)))
                if ids is None or self._wait("group", lambda: self._find_no_foreigner(lookup, route)) is None:
                    break
                cluster, topic_id = ids
                loop = Loop(
                    settings.kafka_client(),
                    route,
                    keeper,
                    lookup,
                    publisher,
                    pace,
                    cluster=cluster,
                    topic_id=topic_id,
                )
                try:
                    loop.run(self._stop.is_set, drain=self._drain)
                except TopicChanged as change:
                    log.warning("the topic was made anew", topic=route.topic, was=topic_id, now=str(change))
                    continue
                if self._drain and not self._stop.is_set():
                    log.info("drained: the stock workers can go on from the group's commit", group=route.group)
                    return 0
        return int(self._drain)

    def _open_store(self) -> Store:
        return open_settings_store(self._settings)

    def _find_no_foreigner(self, lookup: Lookup, route: Route) -> bool:
        """Whether no consumer that we do not fence is in the group: stock workers, or when draining, anybody."""
        members = lookup.members()
        foreign = [name for name in members if self._drain or not name.startswith(CLIENT_ID)]
        if foreign:
            msg = f"the group {route.group!r} has other members: {', '.join(sorted(set(foreign)))}; stop them first"
            raise _StillThere(msg)
        return True

    def _wait(self, subject: str, look: Callable[[], T]) -> T | None:
        """What ``look`` finds once it finds it; None if we were told to stop meanwhile."""
        while not self._stop.is_set():
            try:
                found = look()
            except StorageUnavailable as error:
                self._notices.say(subject, "waiting for the store", error=str(error))
            except KafkaAway as error:
                self._notices.say(subject, "waiting for Kafka", error=str(error))
            except NoSuchTopic as error:
                self._notices.say(subject, "waiting for the topic: it does not exist", topic=str(error))
            except _StillThere as error:
                self._notices.say(subject, "waiting for the group", error=str(error))
            else:
                self._notices.over(subject)
                return found
            self._stop.wait(_PAUSE)
        return None


class _StillThere(Exception):
    """The consumer group has members that we cannot fence."""


@contextmanager
def _signals(stop: threading.Event) -> Iterator[None]:
    """SIGTERM and SIGINT set ``stop`` while the program runs."""
    before = {number: signal.signal(number, lambda *_: stop.set()) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
