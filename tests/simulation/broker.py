"""The lossy broker: queues of packed batches that lose, double, reorder and hold back what they are given."""

from __future__ import annotations

from dataclasses import dataclass, field, replace


@dataclass(frozen=True, slots=True)
class Message:
    """A task in a queue; ``task`` and ``retries`` are what Celery would call its id and its retries."""

    packed: bytes
    task: str
    retries: int = 0
    not_before: float = 0.0

    def retry(self, at: float) -> Message:
        return replace(self, retries=self.retries + 1, not_before=at)


@dataclass(slots=True)
class Broker:
    """One queue per lane. The faults are drawn by the scheduler; this only keeps the messages."""

    queues: dict[int, list[Message]] = field(default_factory=dict)
    sent: int = 0

    def push(self, lane: int, message: Message) -> None:
        self.queues.setdefault(lane, []).append(message)

    def send(self, lane: int, packed: bytes) -> None:
        self.sent += 1
        self.push(lane, Message(packed, f"task-{self.sent}"))

    def is_empty(self, lane: int) -> bool:
        return not self.queues.get(lane)

    def places(self, now: float | None = None) -> list[tuple[int, int]]:
        """Lane and index of every message, or of those whose time has come."""
        return [
            (lane, index)
            for lane, queue in sorted(self.queues.items())
            for index, message in enumerate(queue)
            if now is None or message.not_before <= now
        ]

    def wipe(self) -> None:
        self.queues.clear()
