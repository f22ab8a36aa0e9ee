"""The desk that talks to the store (and asks Kafka about offsets and ids), and what its failures mean to the loop."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bridge.desk import Desk
from bridge.fresh import KafkaAway
from bridge.lookup import NoSuchTopic
from storage.errors import StorageUnavailable

if TYPE_CHECKING:
    from bridge.notices import Notices
    from bridge.report import Report


class StoreDesk(Desk):
    """A desk whose failures are waited for where waiting helps, and stop the loop where it does not.

    Args:
        report: told whether the store answers.
        notices: where to say what is waited for.
        topic: the loop's.
    """

    def __init__(self, report: Report, notices: Notices, topic: str) -> None:
        super().__init__("store")
        self._report = report
        self._notices = notices
        self._topic = topic
        self._error: Exception | None = None

    def answered(self) -> None:
        """The store has answered."""
        self._report.store_answered()
        self._notices.over("store")

    def failed(self, error: Exception, doing: str) -> None:
        """Wait where waiting helps; stop with the error where it does not."""
        if isinstance(error, StorageUnavailable):
            self._report.store_failed(error)
            self._notices.say("store", "waiting for the store", doing=doing, error=str(error))
        elif isinstance(error, KafkaAway):
            self._report.kafka_failed()
            self._notices.say("kafka", "waiting for Kafka", doing=doing, error=str(error))
        elif isinstance(error, NoSuchTopic):
            self._notices.say("topic", "waiting for the topic: it does not exist", topic=self._topic)
        else:
            self.stop_with(error)

    def stop_with(self, error: Exception) -> None:
        """Have the next `check` raise an error."""
        self._error = error

    def check(self) -> None:
        """Raise the error that the loop has to stop with, if there is one. No `answer` does it: some must not end."""
        if self._error is not None:
            error, self._error = self._error, None
            raise error
