"""Batches wait here until it is known that their records are the topic's own.

librdkafka goes on at its offset in a topic that was deleted and made again: until we notice, it hands out the new
topic's records as if they were the old one's, and they would be applied under the old topic id, and later again under
the new. A topic id that is still the same *after* they were read says that they are not.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from bridge.desk import Desk
from bridge.fresh import KafkaAway
from bridge.lookup import Lookup, NoSuchTopic

if TYPE_CHECKING:
    from collections.abc import Callable

    from bridge.notices import Notices
    from storage.batch import Batch

_EVERY: Final = 0.01  # seconds between two looks
_AGAIN: Final = 0.5  # seconds after a look that failed


class TopicChanged(Exception):
    """The topic has another id than the one it was taken over with: begin again with a new consumer."""


class Verifier:
    """Looks the topic's id up in a thread of its own, and passes on the batches that were cut before it looked.

    Args:
        lookup: asks Kafka.
        topic: the topic.
        topic_id: the id it was taken over with.
        notices: where to say that Kafka is waited for.
        send: takes the batches.
    """

    def __init__(
        self, lookup: Lookup, topic: str, topic_id: str, notices: Notices, send: Callable[[Batch], None]
    ) -> None:
        self._lookup = lookup
        self._topic = topic
        self._topic_id = topic_id
        self._notices = notices
        self._send = send
        self._desk = Desk("kafka")
        self._held: list[tuple[float, Batch]] = []
        self._looking = False
        self._not_before = 0.0
        self._error: Exception | None = None

    def hold(self, batch: Batch, now: float) -> None:
        """Keep a batch whose records were read before ``now``, until `look` has shown that they are the topic's."""
        self._held.append((now, batch))

    def look(self, now: float) -> None:
        """Look the topic's id up, if batches wait for that."""
        if not self._held or self._looking or now < self._not_before:
            return
        self._looking = True

        def then(topic_id: str) -> None:
            self._looking = False
            if topic_id == self._topic_id:
                self._pass_on(now)
            else:
                self._error = TopicChanged(topic_id)

        def failed(error: Exception) -> None:
            self._looking = False
            if isinstance(error, NoSuchTopic):
                self._pass_on(now)  # it is gone, and no other had come: what was read was its own
            elif isinstance(error, KafkaAway):
                self._not_before = time.monotonic() + _AGAIN
                self._notices.say("verify", "waiting for Kafka", doing="looking up the topic's id", error=str(error))
            else:
                self._error = error

        self._desk.ask(lambda: self._lookup.topic_id(self._topic), then, failed)

    def _pass_on(self, before: float) -> None:
        """Send what was cut before the look began."""
        self._notices.over("verify")
        self._not_before = before + _EVERY
        known = [batch for cut, batch in self._held if cut <= before]
        self._held = [(cut, batch) for cut, batch in self._held if cut > before]
        for batch in known:
            self._send(batch)

    def answer(self) -> None:
        """Deal with Kafka's answers so far.

        Raises:
            TopicChanged: the topic was made anew.
        """
        self._desk.answer()
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def close(self) -> None:
        """End the thread. Closing twice is fine."""
        self._desk.close()
