"""One route as a service: wait for what it needs, then loops one after the other, one for each life of its topic."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeVar

import structlog

from bridge.fresh import KafkaAway
from bridge.keeper import Keeper
from bridge.lookup import Lookup, NoSuchTopic
from bridge.loop import Loop, Pace
from bridge.membership import CLIENT_ID, InstanceTaken, Membership
from bridge.notices import Notices
from bridge.publisher import Publisher
from bridge.verifier import TopicChanged
from storage.errors import StorageUnavailable
from tasks.app import make_app

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable

    from bridge.report import Report
    from bridge.route import Route
    from storage.store import Store
    from tasks.settings import Settings

T = TypeVar("T")

log = structlog.get_logger("bridge")

_PAUSE: Final = 1.0  # seconds between two looks at what is waited for


class StillThere(Exception):
    """The consumer group has members that we cannot fence."""


class Waiting:
    """Waits until something is there, and says meanwhile what it waits for.

    Args:
        stop: set when we are told to stop.
        notices: where to say it.
        turned: called at each look.
    """

    def __init__(self, stop: threading.Event, notices: Notices, turned: Callable[[], None]) -> None:
        self._stop = stop
        self._notices = notices
        self._turned = turned

    def wait(self, subject: str, look: Callable[[], T]) -> T | None:
        """What ``look`` finds once it finds it; None if we were told to stop meanwhile."""
        while not self._stop.is_set():
            self._turned()
            try:
                found = look()
            except StorageUnavailable as error:
                self._notices.say(subject, "waiting for the store", error=str(error))
            except KafkaAway as error:
                self._notices.say(subject, "waiting for Kafka", error=str(error))
            except NoSuchTopic as error:
                self._notices.say(subject, "waiting for the topic: it does not exist", topic=str(error))
            except StillThere as error:
                self._notices.say(subject, "waiting for the group", error=str(error))
            else:
                self._notices.over(subject)
                return found
            self._stop.wait(_PAUSE)
        return None


class Service:
    """Runs one route until it is told to stop.

    Args:
        settings: all settings.
        route: the route.
        store: the open store, which other routes use too.
        stop: set when we are told to stop.
        make_report: tells metrics and health what the route does.
        adopt: trust a commit that belongs to another Kafka cluster or store.
        drain: end when all that was ever applied is committed.
    """

    def __init__(
        self,
        settings: Settings,
        route: Route,
        store: Store,
        stop: threading.Event,
        make_report: Callable[[Route, Lookup], Report],
        *,
        adopt: bool,
        drain: bool,
    ) -> None:
        self.route = route
        self._settings = settings
        self._store = store
        self._stop = stop
        self._adopt = adopt
        self._drain = drain
        self._make_report = make_report

    def run(self) -> bool:
        """Run it, in a thread of its own.

        Returns:
            Whether it ended as it should: told to stop, or when draining, drained.

        Raises:
            Fatal: a person has to decide.
        """
        settings, route = self._settings, self.route
        pace = Pace(
            poll=settings.poll_ms / 1_000,
            commit=settings.commit_seconds,
            check=settings.check_seconds,
            drain=settings.drain_seconds,
        )
        publisher = Publisher(make_app(settings), route)
        with Lookup(settings.kafka_client(), route.group) as lookup, self._make_report(route, lookup) as report:
            taken = Notices(log)
            self._waiting = Waiting(self._stop, Notices(log), report.alive)
            keeper = Keeper(self._store, lookup, route, adopt=self._adopt)
            while not self._stop.is_set():
                ids = self._find_ids(lookup)
                if ids is None or self._waiting.wait("group", lambda: self._find_no_foreigner(lookup)) is None:
                    break
                cluster, topic_id = ids
                if topic_id is None:
                    log.info("nothing to drain: the topic does not exist", topic=route.topic)
                    return True
                loop = Loop(
                    settings.kafka_client(),
                    route,
                    keeper,
                    lookup,
                    publisher,
                    pace,
                    report,
                    cluster=cluster,
                    topic_id=topic_id,
                )
                try:
                    loop.run(self._stop.is_set, drain=self._drain)
                except TopicChanged as change:
                    log.warning("the topic was made anew", topic=route.topic, was=topic_id, now=str(change))
                    continue
                except InstanceTaken as error:
                    report.left("is not in the group: its group.instance.id is taken")
                    taken.say("group", "waiting for the group", error=str(error))
                    self._stop.wait(_PAUSE)
                    continue
                if self._drain and not self._stop.is_set():
                    log.info("drained: the stock workers can go on from the group's commit", group=route.group)
                    return True
        return not self._drain

    def _find_ids(self, lookup: Lookup) -> tuple[str, str | None] | None:
        """Cluster and topic id, waited for; no topic id where none is needed. None: told to stop."""

        def look() -> tuple[str, str | None]:
            try:
                cluster = lookup.cluster_id()
            except KafkaAway as error:
                raise lookup.explain(error) from error
            try:
                return cluster, lookup.topic_id(self.route.topic)
            except NoSuchTopic:
                if self._drain and self.route.optional:
                    return cluster, None
                raise

        return self._waiting.wait("kafka", look)

    def _find_no_foreigner(self, lookup: Lookup) -> bool:
        """Whether no consumer that we do not fence is in the group: stock workers, or when draining, anybody."""
        membership = Membership(self._settings.kafka_client(), self.route.group)
        foreign = membership.find_foreign(lookup.members(), ours="" if self._drain else CLIENT_ID)
        if foreign is not None:
            raise StillThere(foreign)
        return True
