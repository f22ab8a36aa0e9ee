"""What `status` finds wrong, in words: one sentence for each thing, and none where all is well."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from bridge.lookup import Offsets
from bridge.takeover import Stamp
from matyan_celery.commands.complaints import count_lag, find_wrong
from matyan_celery.commands.condition import (
    Condition,
    KafkaSide,
    RedisSide,
    StoreSide,
    TopicSide,
    find_watched,
)
from matyan_celery.commands.status import make_report
from storage.batch import Epoch, Source
from storage.ledger import Gap, Owner, Standing
from storage.stalls import Stall
from storage.standstills import StandstillNote
from tasks.settings import Settings, load_settings

SOURCE = Source("cluster", "data-ingestion", "id-1", 0)
CONTROL = Source("cluster", "control-events", "id-2", 0)
STORE = "store-id"


def standing(group: str = "ingestion-workers", **cursors: int) -> Standing:
    return Standing(Owner(Epoch(3, "e"), group, 2), {0: 49, 1: 40} | {int(k[1:]): v for k, v in cursors.items()})


def offsets(committed: int | None = 50, end: int = 50, start: int = 0, *, topic_id: str = "id-1") -> Offsets:
    stamp = Stamp("cluster", topic_id, STORE) if committed is not None else None
    return Offsets(committed, stamp, start, end, end)


@pytest.fixture
def settings() -> Settings:
    return load_settings(None, ingest_lanes=2, control_lanes=2)


@pytest.fixture
def well(settings: Settings) -> Condition:
    """All is well: a bridge and a worker, nothing waits."""
    ingest, control = find_watched(settings)
    topics = {
        ingest.topic: TopicSide(ingest, "id-1", {0: offsets()}, ["matyan-bridge"]),
        control.topic: TopicSide(control, "id-2", {0: offsets(topic_id="id-2")}, ["matyan-bridge"]),
    }
    store = StoreSide(
        id=STORE,
        standings={SOURCE: standing(), CONTROL: standing("control-workers")},
        floors={SOURCE: 50, CONTROL: 50},
        gaps=[],
        dead=Counter(),
        replays=0,
        stalls=[],
        standstills=[],
        left={},
    )
    return Condition(store, KafkaSide("cluster", topics), RedisSide({"ingest.00": 0}, {"worker@a": {"ingest.00"}}))


def with_topic(condition: Condition, **changes: Any) -> Condition:
    assert isinstance(condition.kafka, KafkaSide)
    topics = dict(condition.kafka.topics)
    topics["data-ingestion"] = replace(topics["data-ingestion"], **changes)
    return replace(condition, kafka=replace(condition.kafka, topics=topics))


def with_store(condition: Condition, **changes: Any) -> Condition:
    return replace(condition, store=replace(condition.store, **changes))


def test_all_is_well(well: Condition, settings: Settings) -> None:
    behind = {0: offsets(end=90)}
    for condition in (
        well,
        with_topic(well, offsets=behind, members=["matyan-bridge"]),  # it is at work
        with_topic(well, offsets=behind, members=None),  # nobody knows whether one is
        with_store(well, promised=time.time() - 60.0),  # beat's turn will come
        replace(well, redis=RedisSide({"ingest.00": 0}, {})),  # nothing waits for a worker
    ):
        assert find_wrong(condition, settings) == []


def test_a_store_that_is_new_is_one_thing_and_not_many(well: Condition, settings: Settings) -> None:
    wrong = find_wrong(with_store(well, standings={}, floors={}), settings)
    assert [one for one in wrong if "taken over" in one] == [
        "no partition was ever taken over in this store: start the bridge (matyan-celery bridge)"
    ]


def test_what_kafka_says(well: Condition, settings: Settings) -> None:
    for condition, sentence in (
        (replace(well, kafka="timed out"), "Kafka at localhost:9092 does not answer (timed out)"),
        (with_topic(well, topic_id=None), "Kafka has no topic 'data-ingestion'"),
        (
            with_topic(well, members=["aiokafka-1", "matyan-bridge"]),
            "has members that are no bridge (aiokafka-1): stop the stock workers",
        ),
        (
            with_topic(well, offsets={0: offsets(end=90)}, members=[]),
            "40 records wait in Kafka and no bridge is in the group 'ingestion-workers'",
        ),
        (
            with_topic(well, offsets={0: offsets(end=90)}, members=["aiokafka-1", "aiokafka-2"]),
            "40 records wait in Kafka and no bridge is in the group 'ingestion-workers'",
        ),
        (
            with_topic(well, offsets={0: offsets(), 1: offsets(None, 0)}),
            "data-ingestion, partitions 1: never taken over",
        ),
    ):
        wrong = find_wrong(condition, settings)
        assert [one for one in wrong if sentence in one], wrong


def test_what_the_next_take_over_would_find(well: Condition, settings: Settings) -> None:
    for found, sentence in (
        (offsets(70, 90), "the group's commit 70 is above the store's floor 50: the store has gone back"),
        (offsets(50, 40), "the log ends at offset 40, but offset 49 is applied already"),
        (offsets(50, 90, start=60), "offsets 50 to 59 are gone from Kafka before they were read"),
        (Offsets(50, Stamp("cluster", "id-1", "another"), 0, 50, 50), "belongs to store 'another'"),
        (Offsets(55, None, 0, 60, 60), "somebody else committed 55 in this group"),
    ):
        wrong = find_wrong(with_topic(well, offsets={0: found}), settings)
        assert [one for one in wrong if sentence in one], wrong
        assert not [one for one in wrong if "cursor lifted" in one], "one sentence for all lanes"


def test_what_the_store_says(well: Condition, settings: Settings) -> None:
    other = {**well.store.standings, SOURCE: standing("another-group")}
    lost = {**well.store.standings, SOURCE: Standing(well.store.standings[SOURCE].owner, {0: 49})}
    dead = Counter({(SOURCE, 0, "invalid"): 2, (SOURCE, 1, "invalid"): 1, (CONTROL, 0, "bug"): 1})
    still = StandstillNote(SOURCE, "read", 50, 90, 1_000.0, 1_060.0)
    stall = Stall(SOURCE, 1, Epoch(3, "e"), 40, 41, 49, 2, 1_000.0)
    for condition, sentence in (
        (with_store(well, standings={}), "no partition was ever taken over in this store"),
        (with_store(well, standings=other), "belongs to the consumer group 'another-group'"),
        (with_store(well, standings=lost), "no cursor in lanes 1"),
        (with_store(well, gaps=[Gap(SOURCE, 3, 7, 1.0)]), "offsets 3 to 7 were gone from Kafka before they were read"),
        (with_store(well, stalls=[stall]), "lane 1: offsets 41 to 49 have not moved for"),
        (with_store(well, standstills=[still]), "data-ingestion[0]: a bridge has it and has not read it for"),
        (with_store(well, dead=dead), "3 dead letters (invalid): look with"),
        (with_store(well, dead=dead), "1 dead letters (bug)"),
        (with_store(well, left={("cleanups", "failed"): 4}), "4 cleanups failed"),
        (with_store(well, promised=1_000.0), "an event has waited in the outbox"),
    ):
        wrong = find_wrong(condition, settings)
        assert [one for one in wrong if sentence in one], wrong


def test_what_redis_says(well: Condition, settings: Settings) -> None:
    for redis, sentence in (
        ("Redis is busy", "Redis is busy; queues and workers are not known"),
        (RedisSide({"ingest.00": 3}, {}), "3 tasks wait in Redis and no worker answers"),
        (RedisSide({"ingest.00": 0, "ingest.01": 0}, {"a": {"ingest.00"}}), "no worker reads ingest.01"),
    ):
        (wrong,) = find_wrong(replace(well, redis=redis), settings)
        assert sentence in wrong


def test_an_earlier_life_of_a_topic_is_no_trouble(well: Condition, settings: Settings) -> None:
    older = SOURCE._replace(topic_id="id-0")
    standings = {**well.store.standings, older: Standing(Owner(Epoch(1, "x"), "another-group", 9), {})}
    condition = with_store(well, standings=standings, floors={**well.store.floors, older: None})
    assert find_wrong(condition, settings) == []
    report = make_report(condition, settings, [])
    assert [row["current"] for row in report["partitions"] if row["topic_id"] == "id-0"] == [False]


def test_lag_counts_from_the_commit_or_the_logs_start() -> None:
    assert count_lag(offsets(50, 90)) == 40
    assert count_lag(offsets(None, 90, start=10)) == 80
    assert count_lag(offsets(5, 90, start=10)) == 80
    assert count_lag(offsets(95, 90)) == 0


def test_the_report_has_each_partition_and_lane(well: Condition, settings: Settings) -> None:
    dead = Counter({(SOURCE, 1, "invalid"): 2})
    row = next(
        row
        for row in make_report(with_store(well, dead=dead), settings, [])["partitions"]
        if row["topic"] == "data-ingestion"
    )
    assert (row["partition"], row["epoch"], row["floor"], row["committed"], row["lag"]) == (0, "3-e", 50, 50, 0)
    assert row["lanes"] == [
        {"lane": 0, "cursor": 49, "dead_letters": 0},
        {"lane": 1, "cursor": 40, "dead_letters": 2},
    ]
