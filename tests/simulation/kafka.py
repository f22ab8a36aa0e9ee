"""The fake Kafka: a topic with one or two partitions whose logs have gaps, its lives, and one group's commits.

A consumer reads by topic id (as Fetch does from version 13 on): one that was made for an earlier life of the topic gets
an error, never records of the new life. A commit knows nothing of topic ids, epochs or generations: whoever sends one
can have it land at any later moment, which is harsher than Kafka, where a member that was thrown out is refused.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from bridge.takeover import unpack_stamp
from storage.batch import Record, Source
from tests.simulation.store import Identity

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

CLUSTER = "cluster"
TOPIC = "data-ingestion"
TYPES = {"delete": "delete_run", "good": "log_metric"}


class OffsetOutOfRange(Exception):
    """The log no longer begins at or below that offset, or ends below it."""


class TopicGone(Exception):
    """The topic of that id does not exist any more."""


class Written(NamedTuple):
    """One record of a log, and what it is to those who check."""

    record: Record
    identity: Identity
    run: str
    kind: str  # "good", "delete", "invalid", "unknown", "bug", "killer"


@dataclass(slots=True)
class Log:
    """One partition: all that it ever held, and its bounds."""

    life: int
    partition: int
    start: int = 0
    end: int = 0
    records: list[Written] = field(default_factory=list)
    lost: set[int] = field(default_factory=set)  # offsets that retention took
    open: int | None = None  # where an open transaction begins
    pending: set[int] = field(default_factory=set)  # offsets of its records
    cut: bool = False  # an unclean election took its end, and nobody has written since

    @property
    def readable(self) -> int:
        """Where reading ends now."""
        return self.end if self.open is None else self.open

    def write(self, run: str, kind: str, work: int, timestamp_ms: int, *, transactional: bool = False) -> None:
        identity = Identity(self.life, self.partition, self.end)
        payload = {**identity._asdict(), "work": work}
        envelope = {
            "type": TYPES.get(kind, kind),
            "run_id": run,
            "timestamp": timestamp_ms / 1_000,
            "payload": payload,
        }
        value = b"\xffno json" if kind == "invalid" else json.dumps(envelope, separators=(",", ":")).encode()
        self.records.append(Written(Record(self.end, timestamp_ms, run.encode(), value), identity, run, kind))
        if transactional:
            self.pending.add(self.end)
        self.end += 1

    def end_transaction(self, *, commit: bool) -> None:
        """Its records become readable, or never were; the marker takes an offset."""
        if not commit:
            self.records = [written for written in self.records if written.record.offset not in self.pending]
        self.open = None
        self.pending.clear()
        self.end += 1

    def cut_from(self, offset: int) -> None:
        """An unclean election: what was written from this offset on is gone."""
        self.records = [written for written in self.records if written.record.offset < offset]
        self.end, self.open, self.cut = offset, None, True
        self.pending.clear()

    def drop_before(self, offset: int) -> None:
        """Retention: the log begins at this offset."""
        self.lost.update(written.record.offset for written in self.records if written.record.offset < offset)
        self.start = max(self.start, offset)


class Committed(NamedTuple):
    """What the group has committed for a partition."""

    offset: int
    metadata: str | None


class CommitUnderWay(NamedTuple):
    """A commit that was sent and has not landed; ``answer`` is told whether it did.

    Those of one sender land in the order they were sent in, those of several in any order.
    """

    sender: str
    partition: int
    committed: Committed
    answer: Callable[[bool], None]


@dataclass(slots=True)
class Kafka:
    """The topic and the group's commits."""

    partitions: int
    life: int = 0
    logs: list[Log] = field(default_factory=list)
    commits: dict[int, Committed] = field(default_factory=dict)
    under_way: list[CommitUnderWay] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.logs = [Log(self.life, number) for number in range(self.partitions)]

    @property
    def topic_id(self) -> str:
        return f"topic-{self.life}"

    def source(self, partition: int) -> Source:
        return Source(CLUSTER, TOPIC, self.topic_id, partition)

    def fetch(self, topic_id: str, partition: int, position: int, most: int) -> tuple[list[Record], bool]:
        """Records from a position on, and whether that was all."""
        if topic_id != self.topic_id:
            raise TopicGone
        log = self.logs[partition]
        if not log.start <= position <= log.end:
            raise OffsetOutOfRange
        found = [written.record for written in log.records if position <= written.record.offset < log.readable]
        return found[:most], len(found) <= most

    def land_one(self, rng: Random) -> CommitUnderWay:
        """Take the next commit of some sender."""
        drawn = rng.choice(self.under_way)
        first = next(c for c in self.under_way if (c.sender, c.partition) == (drawn.sender, drawn.partition))
        self.under_way.remove(first)
        return first

    def make_anew(self, rng: Random) -> None:
        """Delete the topic and make it again. Commits of the group go with it, or (stamped) stay for a while."""
        self.life += 1
        self.logs = [Log(self.life, number) for number in range(self.partitions)]
        for partition, committed in list(self.commits.items()):
            if unpack_stamp(committed.metadata) is None or rng.random() < 0.5:
                del self.commits[partition]
