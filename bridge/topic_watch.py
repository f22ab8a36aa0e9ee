"""Whether the topic is still the one that was taken over. `bridge.verifier` asks the same of what was just read."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from bridge.verifier import TopicChanged

if TYPE_CHECKING:
    from bridge.lookup import Lookup
    from bridge.notices import Notices
    from bridge.store_desk import StoreDesk


class TopicWatch:
    """Looks from time to time, and soon where something speaks for it, whether the topic has its id still.

    Args:
        lookup: asks Kafka.
        desk: in whose thread.
        notices: where to say that the topic is there again.
        topic: the topic.
        topic_id: the id it was taken over with.
        every: seconds between two looks.
    """

    def __init__(
        self, lookup: Lookup, desk: StoreDesk, notices: Notices, *, topic: str, topic_id: str, every: float
    ) -> None:
        self._lookup = lookup
        self._desk = desk
        self._notices = notices
        self._topic = topic
        self._topic_id = topic_id
        self._every = every
        self._looked_at = time.monotonic()
        self._looking = False

    def look(self, now: float) -> None:
        """Look, if it is time to; another id makes the desk's next check raise `TopicChanged`."""
        if self._looking or now - self._looked_at < self._every:
            return
        self._looking, self._looked_at = True, now

        def then(topic_id: str) -> None:
            self._looking = False
            self._notices.over("topic")
            if topic_id != self._topic_id:
                self._desk.stop_with(TopicChanged(topic_id))

        def failed(error: Exception) -> None:
            self._looking = False
            self._desk.failed(error, "looking up the topic")

        self._desk.ask(lambda: self._lookup.topic_id(self._topic), then, failed)

    def look_at_once(self) -> None:
        """Have the next `look` look: the topic may have been made anew."""
        self._looked_at = 0.0

    def look_within(self, seconds: float, now: float) -> None:
        """Have a `look` in so many seconds look, if none would before."""
        self._looked_at = min(self._looked_at, now - self._every + seconds)
