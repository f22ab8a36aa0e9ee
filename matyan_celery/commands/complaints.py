"""What is wrong, in words, with the way out: a function of what store, Kafka and Redis say, and of the clock."""

from __future__ import annotations

import time
from collections import Counter
from typing import TYPE_CHECKING

from bridge.membership import CLIENT_ID
from bridge.progress import Standstill, Step
from bridge.takeover import Found, decide_start
from matyan_celery.commands.condition import find_watched
from storage.batch import Source
from storage.errors import Refused
from storage.ledger import Standing

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bridge.lookup import Offsets
    from matyan_celery.commands.condition import (
        Condition,
        KafkaSide,
        RedisSide,
        StoreSide,
        TopicSide,
        Watched,
    )
    from storage.letter_index import DeadKey
    from tasks.settings import Settings

_PROMISED = 180.0  # seconds; workers publish at once, beat what they left within a minute or two
_NOBODY = Standing(None, {})


def find_wrong(condition: Condition, settings: Settings) -> list[str]:
    """Sentences; none if all is well."""
    store, kafka, redis = condition.store, condition.kafka, condition.redis
    wrong: list[str] = []
    if isinstance(kafka, str):
        servers = settings.kafka_bootstrap_servers
        wrong.append(f"Kafka at {servers} does not answer ({kafka}): commits, lag and the group are not known")
    else:
        for side in kafka.topics.values():
            wrong += _look_at_topic(store, kafka, side)
    if not store.standings:
        wrong.append("no partition was ever taken over in this store: start the bridge (matyan-celery bridge)")
    for source, standing in sorted(store.standings.items()):
        if not isinstance(kafka, str) and kafka.topic_of(source) is None:
            continue
        for watched in find_watched(settings):
            if source.topic == watched.topic:
                wrong += _look_at_standing(source, standing, watched)
    if isinstance(redis, str):
        wrong.append(f"{redis}; queues and workers are not known")
    else:
        wrong += _look_at_redis(redis)
    wrong += [
        f"{gap.source}: offsets {gap.first} to {gap.last} were gone from Kafka before they were read, and are lost: "
        "lengthen the topic's retention"
        for gap in store.gaps
    ]
    wrong += [
        f"{stall.source} lane {stall.lane}: offsets {stall.first} to {stall.last} have not moved for "
        f"{max(0.0, time.time() - stall.since):.0f} s (attempt {stall.attempt}): look at the workers' logs"
        for stall in store.stalls
    ]
    for note in store.standstills:
        still = Standstill(note.source.partition, Step(note.step), time.time() - note.since, note.at, note.end)
        wrong.append(f"{still.describe(note.source.topic)}. Look at its log, restart it")
    for reason, count in sorted(_by_reason(store.dead).items()):
        wrong.append(
            f"{count} dead letters ({reason}): look with `matyan-celery dead-letters list --reason {reason}`, then "
            "requeue or drop them"
        )
    wrong += [
        f"{count} {ledger} {state}: look with `matyan-celery {ledger} list --state {state}`, then requeue or purge them"
        for (ledger, state), count in sorted(store.left.items())
    ]
    if store.promised is not None and time.time() - store.promised > _PROMISED:
        waited = time.time() - store.promised
        wrong.append(
            f"an event has waited in the outbox for {waited:.0f} s: do workers and beat reach Kafka? "
            "Publish what waits with `matyan-celery jobs run outbox`"
        )
    return wrong


def _by_reason(dead: Counter[DeadKey]) -> Counter[str]:
    total: Counter[str] = Counter()
    for (*_, reason), count in dead.items():
        total[reason] += count
    return total


def _look_at_topic(store: StoreSide, kafka: KafkaSide, side: TopicSide) -> Iterator[str]:
    topic, group = side.watched.topic, side.watched.group
    if side.topic_id is None:
        yield f"Kafka has no topic {topic!r}: make it, or look at {side.watched.topic_setting}"
        return
    foreign = sorted({name for name in side.members or () if not name.startswith(CLIENT_ID)})
    if foreign:
        yield f"the group {group!r} has members that are no bridge ({', '.join(foreign)}): stop the stock workers"
    waiting = sum(count_lag(offsets) for offsets in side.offsets.values())
    if waiting and side.members is not None and len(foreign) == len(set(side.members)):
        yield f"{waiting} records wait in Kafka and no bridge is in the group {group!r}: start matyan-celery bridge"
    missing = []
    for partition, offsets in side.offsets.items():
        source = Source(kafka.cluster, topic, side.topic_id, partition)
        standing = store.standings.get(source, _NOBODY)
        if standing.owner is None:
            missing.append(partition)
        yield from _look_at_start(source, standing, offsets, store, side.watched)
    if missing and store.standings:
        which = ", ".join(map(str, missing))
        yield f"{topic}, partitions {which}: never taken over; a bridge takes them when it is in the group {group!r}"


def count_lag(offsets: Offsets) -> int:
    """Offsets between the group's commit (the log's start without one) and where reading ends now."""
    start = offsets.log_start if offsets.committed is None else max(offsets.committed, offsets.log_start)
    return max(0, offsets.readable - start)


def _look_at_start(
    source: Source, standing: Standing, offsets: Offsets, store: StoreSide, watched: Watched
) -> Iterator[str]:
    """What a bridge would find if it took the partition over now."""
    owner = standing.owner
    found = Found(
        committed=offsets.committed,
        stamp=offsets.stamp,
        log_start=offsets.log_start,
        log_end=offsets.log_end,
        lanes=watched.lanes if owner is None else owner.lanes,
        cursors=standing.cursors,
        floor=store.floors.get(source),
        store=store.id,
    )
    try:
        notes = decide_start(source, found).notes
    except Refused as error:
        yield str(error)
        return
    lifts = [note for note in notes if "cursor lifted" in note]
    yield from (note for note in notes if note not in lifts)
    if lifts:
        yield (
            f"{source}: somebody else committed {offsets.committed} in this group (the stock workers, or an operator): "
            f"the next take-over goes on from there and passes over the cursors of {len(lifts)} lanes"
        )


def _look_at_standing(source: Source, standing: Standing, watched: Watched) -> Iterator[str]:
    owner, cursors = standing
    if owner is None:
        return
    if owner.group != watched.group:
        yield (
            f"{source} belongs to the consumer group {owner.group!r}, {watched.group_setting} is {watched.group!r}: a "
            "bridge with it will stop"
        )
    missing = sorted(set(range(owner.lanes)) - cursors.keys())
    if missing:
        which = ", ".join(map(str, missing))
        yield f"{source}: no cursor in lanes {which}: a take-over was not finished; start matyan-celery bridge"


def _look_at_redis(redis: RedisSide) -> Iterator[str]:
    waiting = {name: count for name, count in redis.queues.items() if count}
    if waiting and not redis.workers:
        yield (
            f"{sum(waiting.values())} tasks wait in Redis and no worker answers: start some (celery -A tasks worker)"
        )
        return
    read = set[str]().union(*redis.workers.values())
    unread = sorted(set(redis.queues) - read)
    if redis.workers and unread:
        yield (
            f"no worker reads {', '.join(unread)}: start one that does, and give bridge and workers the same "
            "INGEST_QUEUES and CONTROL_QUEUES"
        )
