"""A question to Kafka that is asked once more when what the client remembers of the cluster may have grown old.

A client of librdkafka's remembers for minutes which partitions a topic has and who leads them, and asks with that again
and again, without success: of partitions that were added meanwhile, or whose leader died. Asking it for the cluster's
topics makes it look. (A client made anew would do too; but giving one up in which a question is still under way is not
always survived.)
"""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

from confluent_kafka import KafkaError, KafkaException

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

T = TypeVar("T")

_SOON: Final = 2.0  # seconds: what failed later than that is for its caller to try again


class KafkaAway(Exception):
    """Kafka did not answer in time; try again later."""


class Looking(Protocol):
    """A client of librdkafka's, as far as it is needed here."""

    def list_topics(self, *, timeout: float) -> Any:
        """Ask for the cluster's topics, and remember what is answered."""
        ...


def ask_freshly(
    clients: Iterable[Looking], question: Callable[[], T], *, seconds: float, final: frozenset[int] = frozenset()
) -> T:
    """What a question gives; where it fails, the clients look at the cluster anew and it is asked once more.

    Args:
        clients: what the question asks with.
        question: waits for Kafka for a bounded time.
        seconds: how long a client may look.
        final: codes of Kafka's errors that are answers: nothing that a client remembers would change them.

    Raises:
        KafkaException: one of the final ones.
        KafkaAway: no answer.
    """
    began = time.monotonic()
    try:
        return question()
    except (KafkaException, KafkaAway, TimeoutError) as error:
        if _code(error) in final:
            raise
        failure = error
    with suppress(KafkaException):
        for client in clients:
            client.list_topics(timeout=seconds)
        if time.monotonic() - began < _SOON:
            try:
                return question()
            except (KafkaException, KafkaAway, TimeoutError) as error:
                if _code(error) in final:
                    raise
                failure = error
    raise KafkaAway(str(failure) or f"no answer within {time.monotonic() - began:.0f} s") from failure


def _code(error: Exception) -> int | None:
    first = error.args[0] if error.args else None
    return first.code() if isinstance(first, KafkaError) else None
