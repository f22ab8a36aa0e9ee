"""What store, Kafka and Redis say of the whole, each asked once, within a few seconds even if one is away."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgpack
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from bridge.fresh import KafkaAway
from bridge.lookup import Lookup, NoSuchTopic, Offsets
from storage.cascades import CascadeState
from storage.cleanup import CleanupState
from storage.masking import mask_url
from storage.replay import CLUSTER as REPLAY
from storage.stalls import Stalls
from storage.standstills import Standstills
from tasks.app import make_app
from tasks.celeryconfig import find_queues
from tasks.errors import WrongSettingError
from tasks.kafka_clients import make_client, without_group
from tasks.kafka_trouble import Told
from tasks.redis_answers import explain

if TYPE_CHECKING:
    from collections import Counter

    from storage.batch import Source
    from storage.engine import Transaction
    from storage.ledger import Gap, Owner, Standing
    from storage.letter_index import DeadKey
    from storage.stalls import Stall
    from storage.standstills import StandstillNote
    from storage.store import Store
    from tasks.settings import Settings

_KAFKA_SECONDS: Final = 4.0
_REDIS_SECONDS: Final = 3.0
_WORKER_SECONDS: Final = 1.0  # a living worker answers in milliseconds, a busy one too (but for the solo pool)
_MOCK: Final = "mockCluster"  # how librdkafka's mock cluster begins its id; it cannot list a group's members


@dataclass(frozen=True, slots=True)
class StoreSide:
    """What the store knows.

    Attributes:
        id: its random id; empty before a bridge first ran with it.
        standings: owner and cursors of every source that was ever taken over.
        floors: the floors of those.
        gaps: offsets that were gone from Kafka before they were read.
        dead: dead letters.
        replays: replays that are running, or were broken off.
        stalls: batches that do not move, as the bridge has noted them.
        standstills: partitions that a bridge has and that stand still though they could move, as it has noted them.
        left: cleanups and cascades that a person has to see to, by ledger and state.
        promised: when the oldest event in the outbox was put there, Unix seconds; None: it is empty.
    """

    id: str
    standings: dict[Source, Standing]
    floors: dict[Source, int | None]
    gaps: list[Gap]
    dead: Counter[DeadKey]
    replays: int
    stalls: list[Stall]
    standstills: list[StandstillNote]
    left: dict[tuple[str, str], int]
    promised: float | None = None


class Watched(NamedTuple):
    """A topic that we look at, and the names of the settings that say so."""

    topic: str
    group: str
    lanes: int
    topic_setting: str
    group_setting: str


def find_watched(settings: Settings) -> list[Watched]:
    """The topics of all routes."""
    return [
        Watched(
            settings.kafka_data_ingestion_topic,
            settings.ingest_group,
            settings.ingest_lanes,
            "KAFKA_DATA_INGESTION_TOPIC",
            "INGEST_GROUP",
        ),
        Watched(
            settings.kafka_control_events_topic,
            settings.control_group,
            settings.control_lanes,
            "KAFKA_CONTROL_EVENTS_TOPIC",
            "CONTROL_GROUP",
        ),
    ]


@dataclass(frozen=True, slots=True)
class TopicSide:
    """What Kafka knows of a topic and its group.

    Attributes:
        watched: which ones.
        topic_id: the topic's id, None if there is no such topic.
        offsets: commit and bounds of each partition.
        members: client ids in the group; None where the broker cannot tell.
    """

    watched: Watched
    topic_id: str | None
    offsets: dict[int, Offsets]
    members: list[str] | None


@dataclass(frozen=True, slots=True)
class KafkaSide:
    """What Kafka knows: its id, and our topics by name."""

    cluster: str
    topics: dict[str, TopicSide]

    def topic_of(self, source: Source) -> TopicSide | None:
        """The topic that a source is a partition of, as it now is; None: of an earlier life, or elsewhere."""
        side = self.topics.get(source.topic)
        here = side is not None and (source.cluster, source.topic_id) == (self.cluster, side.topic_id)
        return side if here else None


@dataclass(frozen=True, slots=True)
class RedisSide:
    """What Redis and the workers behind it know.

    Attributes:
        queues: tasks that wait, by queue.
        workers: the queues that each worker reads.
    """

    queues: dict[str, int]
    workers: dict[str, set[str]]


@dataclass(frozen=True, slots=True)
class Condition:
    """All of it; a side that did not answer stands as the reason why."""

    store: StoreSide
    kafka: KafkaSide | str
    redis: RedisSide | str


def ask(store: Store, settings: Settings) -> Condition:
    """Ask all three.

    Raises:
        StorageUnavailable: the store did not answer.
    """
    with ThreadPoolExecutor(1) as pool:
        redis = pool.submit(ask_redis, settings)
        # The bridge writes the floor before it commits: read in the other order, no commit is above its floor.
        kafka = _ask_kafka(settings)
        known = _ask_store(store)
        if isinstance(kafka, KafkaSide):
            kafka = _look_at_ends_again(settings, kafka, known)
        return Condition(known, kafka, redis.result())


def _ask_store(store: Store) -> StoreSide:
    ledger = store.ledger

    def work(
        transaction: Transaction,
    ) -> tuple[bytes | None, dict[Source, Owner], dict[Source, Standing], dict[Source, int | None], list[Gap]]:
        name = transaction.get(ledger.key("store"))  # `Ledger.store_id` would make one
        owners = ledger.sources(transaction)
        sources = [source for source in owners if source.cluster != REPLAY]
        floors = {source: ledger.floor(transaction, source) for source in sources}
        return name.wait(), owners, ledger.standings(transaction, sources), floors, ledger.gaps(transaction)

    name, owners, standings, floors, gaps = store.engine.read(work)
    dead = store.dead_letters.count(store.engine)
    store_id = "" if name is None else str(msgpack.unpackb(name))
    stalls = Stalls(ledger).find(store.engine)
    standstills = Standstills(ledger).find(store.engine, time.time())
    replays = len(owners) - len(standings)
    promised = next((event.time for event in store.outbox.each(store.engine, page=1)), None)
    return StoreSide(
        store_id, standings, floors, gaps, dead, replays, stalls, standstills, _count_left(store), promised
    )


def _count_left(store: Store) -> dict[tuple[str, str], int]:
    cleanups = store.cleanups.count(store.engine, states=[CleanupState.FAILED, CleanupState.HELD])
    cascades = store.cascades.count(store.engine, states=[CascadeState.FAILED, CascadeState.HELD])
    return {
        **{("cleanups", str(state)): count for state, count in cleanups.items() if count},
        **{("cascades", str(state)): count for state, count in cascades.items() if count},
    }


def _ask_kafka(settings: Settings) -> KafkaSide | str:
    config = settings.kafka_client()
    told = Told(config)
    admin = make_client(AdminClient, {**without_group(config), "log_level": 2, "error_cb": told.hear}, config)
    try:
        # Asks for all topics, since a question for one by name may make it.
        found = admin.list_topics(timeout=_KAFKA_SECONDS)
        sides = {}
        for watched in find_watched(settings):
            metadata = found.topics.get(watched.topic)
            partitions = None if metadata is None else sorted(metadata.partitions)
            sides[watched.topic] = _ask_topic(settings, watched, str(found.cluster_id), partitions)
        return KafkaSide(str(found.cluster_id), sides)
    except KafkaException as error:
        return str(told.explain(admin) or error.args[0].str())
    except KafkaAway as error:
        return str(error)


def _ask_topic(settings: Settings, watched: Watched, cluster: str, partitions: list[int] | None) -> TopicSide:
    with Lookup(settings.kafka_client(), watched.group) as lookup:
        members = None if cluster.startswith(_MOCK) else lookup.members()
        if partitions is None:
            return TopicSide(watched, None, {}, members)
        offsets = {partition: lookup.offsets(watched.topic, partition) for partition in partitions}
        try:
            return TopicSide(watched, lookup.topic_id(watched.topic), offsets, members)
        except NoSuchTopic:
            return TopicSide(watched, None, {}, members)


def _look_at_ends_again(settings: Settings, kafka: KafkaSide, known: StoreSide) -> KafkaSide | str:
    """The ends of logs that had grown between asking Kafka and asking the store."""
    sides = dict(kafka.topics)
    for source, standing in known.standings.items():
        side = kafka.topic_of(source)
        if side is None or source.partition not in side.offsets:
            continue
        before = side.offsets[source.partition]
        if max(standing.cursors.values(), default=-1) < before.log_end >= (before.committed or 0):
            continue
        try:
            with Lookup(settings.kafka_client(), side.watched.group) as lookup:
                after = lookup.offsets(source.topic, source.partition)
        except KafkaAway as error:
            return str(error)
        later = before._replace(log_end=after.log_end, readable=after.readable)
        sides[source.topic] = replace(side, offsets={**sides[source.topic].offsets, source.partition: later})
    return KafkaSide(kafka.cluster, sides)


def ask_redis(settings: Settings) -> RedisSide | str:
    """What Redis and the workers say, or why Redis says nothing."""
    try:
        with make_app(settings) as app, app.connection_for_read() as connection:
            connection.ensure_connection(max_retries=1, timeout=_REDIS_SECONDS)
            channel: Any = connection.default_channel
            channel.try_writing()
            client = channel.client
            queues = {name: int(client.llen(name)) for name in find_queues(settings)}
            inspect = app.control.inspect(timeout=_WORKER_SECONDS, connection=connection)
            answers = inspect.active_queues() or {}
            return RedisSide(queues, {name: {queue["name"] for queue in read} for name, read in answers.items()})
    except WrongSettingError as error:
        return mask_url(str(error))
    except (OperationalError, RedisError, OSError) as error:
        return mask_url(explain(error))
