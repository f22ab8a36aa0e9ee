"""What the bridge commits to Kafka, and when it does not: the floor first, and only for what is still held."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import TopicPartition

from bridge.committer import Committer
from bridge.holdings import Holding, Holdings
from bridge.partition import Limits, Partition
from bridge.takeover import Stamp
from storage.batch import Epoch, Source
from storage.errors import StorageUnavailable
from storage.ledger import Owner, Standing
from tests.unit.test_partition import EPOCH, SOURCE

NUMBER = SOURCE.partition
STAMP = Stamp("cluster", "topic-1", "store")


class FakeConsumer:
    """Remembers what it is told."""

    def __init__(self) -> None:
        self.said: list[tuple[str, int]] = []

    def assignment(self) -> list[TopicPartition]:
        return [TopicPartition("topic", NUMBER)]

    def incremental_unassign(self, places: list[TopicPartition]) -> None:
        self.said.append(("unassign", places[0].partition))

    def commit(self, *, offsets: list[TopicPartition], asynchronous: bool) -> None:
        assert offsets[0].metadata == STAMP.at(offsets[0].offset).pack()
        self.said.append(("commit" if asynchronous else "commit now", offsets[0].offset))


class FakeKeeper:
    """Remembers the floors; says whether the partition is ours, or fails."""

    def __init__(self) -> None:
        self.floors: list[int] = []
        self.answer: bool | Exception = True

    def raise_floor(self, source: Source, epoch: Epoch, *, cursors: Mapping[int, int], offset: int) -> bool:
        assert (source, epoch, dict(cursors)) == (SOURCE, EPOCH, {0: offset - 1})
        if isinstance(self.answer, Exception):
            raise self.answer
        self.floors.append(offset)
        return self.answer


class FakeDesk:
    """Does its jobs when it is asked for the answers."""

    def __init__(self) -> None:
        self.jobs: list[tuple[Callable[[], Any], Callable[[Any], None], Callable[[Exception], None]]] = []
        self.failures: list[str] = []
        self.is_away = False

    def ask(self, job: Callable[[], Any], then: Callable[[Any], None], failed: Callable[[Exception], None]) -> None:
        self.jobs.append((job, then, failed))

    def answer(self) -> None:
        jobs, self.jobs = ([], self.jobs) if self.is_away else (self.jobs, [])
        for job, then, failed in jobs:
            try:
                result = job()
            except StorageUnavailable as error:
                failed(error)
            else:
                then(result)

    def failed(self, _: Exception, doing: str) -> None:
        self.failures.append(doing)


class Bench:
    """A committer with one partition, applied up to 9, and everything around it faked."""

    def __init__(self) -> None:
        self.consumer, self.keeper, self.desk = FakeConsumer(), FakeKeeper(), FakeDesk()
        self.looks: list[str] = []
        self.holdings = Holdings(self.consumer, "topic")  # type: ignore[arg-type]
        self.holdings.add(NUMBER)
        self.holding.state = Partition(SOURCE, EPOCH, {0: 9}, 10, Limits())
        self.holding.stamp = STAMP
        watch = SimpleNamespace(look_at_once=lambda: self.looks.append("topic"))
        self.committer = Committer(
            self.consumer,  # type: ignore[arg-type]
            "topic",
            self.keeper,  # type: ignore[arg-type]
            self.desk,  # type: ignore[arg-type]
            self.holdings,
            watch,  # type: ignore[arg-type]
            every=1.0,
            alive=lambda: None,
            away=lambda: self.looks.append("away"),
        )

    @property
    def holding(self) -> Holding:
        found = self.holdings.get(NUMBER)
        assert found is not None
        return found


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_the_floor_is_raised_before_the_commit_and_once(bench: Bench) -> None:
    bench.committer.look(10.0)
    bench.committer.look(10.5)  # too early, and one is under way
    bench.committer.look(11.0)
    assert bench.consumer.said == []
    bench.desk.answer()
    bench.committer.look(12.0)
    assert (bench.keeper.floors, bench.consumer.said) == ([10], [("commit", 10)])


def test_a_partition_that_is_not_ours_is_dropped_and_not_committed(bench: Bench) -> None:
    bench.keeper.answer = False
    bench.committer.look(10.0)
    bench.desk.answer()
    assert bench.consumer.said == [("unassign", NUMBER)]
    assert (bench.holding.state, bench.looks) == (None, ["topic"])


def test_nothing_is_committed_for_what_has_gone_meanwhile(bench: Bench) -> None:
    bench.committer.look(10.0)
    state = bench.holding.state
    bench.holdings.remove(NUMBER)
    bench.holdings.add(NUMBER)  # and come back
    bench.holding.state = state
    bench.desk.answer()
    assert (bench.keeper.floors, bench.consumer.said) == ([10], [])


def test_a_store_that_is_away_is_asked_again(bench: Bench) -> None:
    bench.keeper.answer = StorageUnavailable("away")
    bench.committer.look(10.0)
    bench.desk.answer()
    assert bench.desk.failures == ["raising the floor before a commit"]
    bench.keeper.answer = True
    bench.committer.look(11.0)
    bench.desk.answer()
    assert bench.consumer.said == [("commit", 10)]


def test_a_commit_that_kafka_refused_is_made_again(bench: Bench) -> None:
    bench.committer.look(10.0)
    bench.desk.answer()
    refusal: Any = SimpleNamespace(str=lambda: "not now")
    bench.committer.answered(refusal, [TopicPartition("topic", NUMBER, 10)])
    assert (bench.holding.committed, bench.holding.landed) == (None, None)
    assert bench.looks == ["away"]
    bench.committer.look(11.0)
    bench.desk.answer()
    bench.committer.answered(None, [TopicPartition("topic", NUMBER, 10), TopicPartition("topic", 99, 1)])
    assert bench.consumer.said == [("commit", 10), ("commit", 10)]
    assert bench.holding.landed == 10


def test_a_partition_that_goes_is_committed_at_once_if_the_store_answers_in_time(bench: Bench) -> None:
    bench.desk.is_away = True
    bench.committer.commit_now(bench.holding, time.monotonic() + 0.02)
    assert bench.consumer.said == []
    bench.desk.is_away = False
    bench.committer.commit_now(bench.holding, time.monotonic() + 5.0)
    assert (bench.consumer.said, bench.holding.landed) == ([("commit now", 10)], 10)
    bench.committer.commit_now(bench.holding, time.monotonic() + 5.0)
    assert len(bench.consumer.said) == 1


def test_what_moved_is_committed_next(bench: Bench) -> None:
    bench.committer.look(10.0)
    bench.desk.answer()
    state = bench.holding.state
    assert state is not None
    state.position = 13
    state.observe(Standing(Owner(EPOCH, "group", 1), {0: 12}), 1.0)
    bench.committer.look(11.0)
    bench.desk.answer()
    assert bench.consumer.said == [("commit", 10), ("commit", 13)]
