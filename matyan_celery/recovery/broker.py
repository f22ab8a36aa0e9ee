"""Flower's lengths of queues, asked by kombu's client, as all our programs ask Redis.

Flower's own client takes what it knows from the URL and a few settings: it asks the first sentinel alone, knows no
database behind a socket, and where it cannot connect the page is empty.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flower.api.tasks import GetQueueLengths
from flower.views.broker import BrokerView

if TYPE_CHECKING:
    from collections.abc import Iterable

    from matyan_celery.recovery.desk import Desk


class QueueLengths:
    """What Flower's pages ask of a broker.

    Args:
        desk: asks Redis.
    """

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def queues(self, names: Iterable[str]) -> list[dict[str, Any]]:
        """Name and length of each queue."""
        waiting = await self._desk.run(self._desk.count_waiting, list(names))
        return [{"name": name, "messages": count} for name, count in waiting.items()]


class _AsksUs:
    def initialize(self, desk: Desk) -> None:
        self._desk = desk

    def get_broker(self) -> QueueLengths:
        return QueueLengths(self._desk)


class OurBrokerView(_AsksUs, BrokerView):  # type: ignore[misc] # Flower has no types
    """The page Broker."""


class OurQueueLengths(_AsksUs, GetQueueLengths):  # type: ignore[misc] # Flower has no types
    """The address ``/api/queues/length``."""
