"""Being a member of a consumer group: by which of Kafka's two protocols, what refuses one for good, and how to leave.

                     group.protocol=classic (also if not set)      group.protocol=consumer (KIP-848)
who shares out       the group's first member, cooperative-sticky  the broker
time-out of a dead   session.timeout.ms, 10 s if not set           the broker's, 45 s if not set there
a stock worker       is refused while a bridge is in the group     gets a share if the broker lets it: we look
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from confluent_kafka import KafkaError, KafkaException

from storage.errors import Refused
from tasks.kafka_clients import fit_session

if TYPE_CHECKING:
    from collections.abc import Iterable

    from confluent_kafka import Consumer

CLIENT_ID: Final = "matyan-bridge"
_PROTOCOL: Final = "group.protocol"
_INSTANCE: Final = "group.instance.id"


class InstanceTaken(Exception):
    """Another process is in the group with our ``group.instance.id``, or was a moment ago: try again later."""


class Membership:
    """How a bridge is in its group.

    Args:
        config: what all Kafka clients are configured with, KAFKA_CONFIG included.
        group: the consumer group.
    """

    def __init__(self, config: dict[str, Any], group: str) -> None:
        self._config = config
        self._group = group
        self._instance = config.get(_INSTANCE)
        self.is_new = str(config.get(_PROTOCOL, "")).lower() == "consumer"

    @property
    def defaults(self) -> dict[str, Any]:
        """What the consumer is configured with where KAFKA_CONFIG does not say otherwise."""
        # As the stock workers' client has it, not librdkafka's 45 s: after so long another bridge reads on where a
        # killed one was. Epochs, not sessions, keep two bridges apart.
        return {} if self.is_new else {"session.timeout.ms": fit_session(self._config)}

    @property
    def fixed(self) -> dict[str, Any]:
        """What the consumer is configured with in any case. The new protocol refuses to be told more than its name."""
        return {} if self.is_new else {"partition.assignment.strategy": "cooperative-sticky"}

    def find_foreign(self, members: Iterable[str], *, ours: str = CLIENT_ID) -> str | None:
        """A sentence about members that we do not fence; None where there are none.

        Args:
            members: the client ids of all members.
            ours: how the ids of those begin that we fence; empty: none is ours.
        """
        foreign = sorted({name for name in members if not ours or not name.startswith(ours)})
        if not foreign:
            return None
        sentence = f"the group {self._group!r} has other members: {', '.join(foreign)}; stop them first"
        if self.is_new and ours:
            sentence += (
                f". They cannot be mixed with bridges: with {_PROTOCOL}=consumer (KAFKA_CONFIG) Kafka would share the "
                "partitions out among them and us, and nothing keeps them from applying what we have applied"
            )
        return sentence

    def check(self, error: KafkaError) -> None:
        """Look at an error that Kafka sent instead of a record.

        Raises:
            Refused: it will come for as long as nobody changes something.
            InstanceTaken: our ``group.instance.id`` is taken.
        """
        code, text = error.code(), error.str()
        fatal = code == KafkaError._FATAL  # the client has given up; which error it was, only the text says
        if code == KafkaError.INCONSISTENT_GROUP_PROTOCOL or (fatal and _says(text, KafkaError.GROUP_ID_NOT_FOUND)):
            mine = "consumer" if self.is_new else "classic"
            msg = (
                f"the group {self._group!r} is in use by another protocol than ours, {_PROTOCOL}={mine} (KAFKA_CONFIG):"
                " a share or streams group has that name, or its members are of the other protocol, or stock workers, "
                "which share out partitions by other rules. Stop them, or give the bridge a group of its own "
                f"(INGEST_GROUP, CONTROL_GROUP). Kafka said: {text}"
            )
            raise Refused(msg)
        if code == KafkaError.INVALID_SESSION_TIMEOUT:
            msg = (
                "session.timeout.ms (KAFKA_CONFIG) is not within the broker's group.min.session.timeout.ms and "
                f"group.max.session.timeout.ms. Kafka said: {text}"
            )
            raise Refused(msg)
        if not fatal:
            return
        if _says(text, KafkaError.UNRELEASED_INSTANCE_ID):
            msg = (
                f"another process is in the group {self._group!r} as {_INSTANCE}={self._instance!r} (KAFKA_CONFIG), or "
                "was less than the broker's session time-out ago; each bridge needs an id of its own, or none"
            )
            raise InstanceTaken(msg)
        if _says(text, KafkaError.FENCED_INSTANCE_ID):
            msg = (
                f"another process joined the group {self._group!r} as {_INSTANCE}={self._instance!r} (KAFKA_CONFIG), "
                "and has our partitions now; each bridge needs an id of its own, or none"
            )
            raise Refused(msg)
        msg = f"Kafka's client has given up in the group {self._group!r}: {text}"
        raise Refused(msg)

    def leave(self, consumer: Consumer) -> None:
        """Leave the group and close the consumer.

        Closing alone leaves a static member's partitions to nobody until its session is over.
        """
        if self._instance and not self.is_new:
            with suppress(KafkaException, RuntimeError):
                consumer.unsubscribe()
                consumer.poll(1.0)
        consumer.close()


def _says(text: str, code: int) -> bool:
    return KafkaError(code).str() in text
