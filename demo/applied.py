"""How far a consumer group has come: what it has committed is applied or dead-lettered."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bridge.fresh import KafkaAway
from bridge.lookup import Lookup
from demo.servers.process import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterable


def count_committed(lookup: Lookup, topic: str, partitions: Iterable[int]) -> int:
    """Records below the group's commits; 0 while the coordinator does not answer yet."""
    try:
        return sum(lookup.offsets(topic, number).committed or 0 for number in partitions)
    except KafkaAway:
        return 0


def wait_committed(
    bootstrap_servers: str, group: str, topic: str, partitions: Iterable[int], count: int, *, seconds: float
) -> int:
    """Wait until so many records are committed; their number.

    Raises:
        TimeoutError: they are not within ``seconds``.
    """
    numbers = list(partitions)
    with Lookup({"bootstrap.servers": bootstrap_servers}, group) as lookup:
        wait_until(
            lambda: count_committed(lookup, topic, numbers) >= count,
            f"{count} records are applied and committed",
            seconds=seconds,
            pause=0.1,
        )
        return count_committed(lookup, topic, numbers)
