"""One topic with one partition, and the commits of one group. The topic can be made anew."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from bridge.lookup import Offsets
from bridge.takeover import unpack_stamp
from storage.batch import Record

if TYPE_CHECKING:
    from tests.faults.world import World

CLUSTER, TOPIC, GROUP = "cluster", "topic", "group"
BAD, KILLER = b"bad", "killer"


class SimKafka:
    """The log, and what the group has committed."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.life = 0
        self.records: list[Record] = []
        self.start = 0
        self.end = 0
        self.committed: tuple[int, str] | None = None
        self.late_commits: list[tuple[int, int, str]] = []
        self.make_anew()

    def make_anew(self) -> None:
        """The topic is deleted and made again; the group's commit stays what it was."""
        self.life += 1
        self.records = []
        self.start = self.end = 0

    def produce(self, run: int, number: int, kind: str) -> None:
        self.end += self.world.random.choice((1, 1, 1, 2, 5))  # transactions and compaction leave gaps
        value = json.dumps({"life": self.life, "run": run, "number": number, "kind": kind}).encode()
        if kind == "bad":
            value = BAD
        self.records.append(Record(self.end - 1, 0, f"run-{run}".encode(), value))

    def topic_id(self, topic: str) -> str:
        return f"life-{self.life}"

    def offsets(self, topic: str, partition: int) -> Offsets:
        self.world.pause("offsets looked up")
        if self.committed is None:
            return Offsets(None, None, self.start, self.end)
        offset, metadata = self.committed
        return Offsets(offset, unpack_stamp(metadata), self.start, self.end)

    def fetch(self, position: int, count: int) -> list[Record]:
        return [record for record in self.records if record.offset >= position][:count]

    def commit(self, offset: int, metadata: str) -> None:
        """A commit that lands now, or later than others, or never."""
        chance = self.world.random.random()
        if self.world.calm or chance < 0.7:
            self.committed = (offset, metadata)
        elif chance < 0.9:
            self.world.count("commit lands late")
            self.late_commits.append((self.world.now + self.world.random.randint(1, 20), offset, metadata))

    def land(self) -> None:
        for when, offset, metadata in list(self.late_commits):
            if when <= self.world.now:
                self.late_commits.remove((when, offset, metadata))
                self.committed = (offset, metadata)
