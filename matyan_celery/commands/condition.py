"""What store, Kafka and Redis say of the whole, each asked once, within a few seconds even if one is away."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import msgpack
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from bridge.lookup import KafkaAway, Lookup, NoSuchTopic, Offsets
from storage.batch import Source
from storage.masking import mask_url
from storage.replay import CLUSTER as REPLAY
from tasks.app import make_app
from tasks.queues import ingest_queues

if TYPE_CHECKING:
    from storage.engine import Transaction
    from storage.ledger import Gap, Owner, Standing
    from storage.store import Store
    from tasks.settings import Settings

_KAFKA_SECONDS: Final = 4.0
_REDIS_SECONDS: Final = 3.0
_WORKER_SECONDS: Final = 1.0  # a living worker answers in milliseconds, a busy one too (but for the solo pool)
_MOCK: Final = "mockCluster"  # how librdkafka's mock cluster begins its id; it cannot list a group's members

DeadKey = tuple[Source, int, str]  # source, lane, reason


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
    """

    id: str
    standings: dict[Source, Standing]
    floors: dict[Source, int | None]
    gaps: list[Gap]
    dead: Counter[DeadKey]
    replays: int


@dataclass(frozen=True, slots=True)
class KafkaSide:
    """What Kafka knows of the topic and the group.

    Attributes:
        cluster: cluster id.
        topic_id: the topic's id, None if there is no such topic.
        offsets: commit and bounds of each partition.
        members: client ids in the group; None where the broker cannot tell.
    """

    cluster: str
    topic_id: str | None
    offsets: dict[int, Offsets]
    members: list[str] | None


@dataclass(frozen=True, slots=True)
class RedisSide:
    """What Redis and the workers behind it know.

    Attributes:
        queues: batches that wait, by queue.
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
        redis = pool.submit(_ask_redis, settings)
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
    dead = Counter((letter.source, letter.lane, letter.reason) for letter in store.dead_letters.each(store.engine))
    store_id = "" if name is None else str(msgpack.unpackb(name))
    return StoreSide(store_id, standings, floors, gaps, dead, len(owners) - len(standings))


def _ask_kafka(settings: Settings) -> KafkaSide | str:
    topic = settings.kafka_data_ingestion_topic
    try:
        # Asks for all topics, since a question for one by name may make it.
        found = AdminClient({**settings.kafka_client(), "log_level": 2}).list_topics(timeout=_KAFKA_SECONDS)
        cluster = str(found.cluster_id)
        with Lookup(settings.kafka_client(), settings.ingest_group) as lookup:
            members = None if cluster.startswith(_MOCK) else lookup.members()
            if topic not in found.topics:
                return KafkaSide(cluster, None, {}, members)
            offsets = {
                partition: lookup.offsets(topic, partition) for partition in sorted(found.topics[topic].partitions)
            }
            return KafkaSide(cluster, lookup.topic_id(topic), offsets, members)
    except NoSuchTopic:
        return KafkaSide(cluster, None, {}, members)
    except KafkaException as error:
        return str(error.args[0].str())
    except KafkaAway as error:
        return str(error)


def _look_at_ends_again(settings: Settings, kafka: KafkaSide, known: StoreSide) -> KafkaSide | str:
    """The ends of logs that had grown between asking Kafka and asking the store."""
    grown = [
        source.partition
        for source, standing in known.standings.items()
        if (source.cluster, source.topic_id) == (kafka.cluster, kafka.topic_id)
        and source.partition in kafka.offsets
        and max(standing.cursors.values(), default=-1) >= kafka.offsets[source.partition].log_end
    ]
    if not grown:
        return kafka
    offsets = dict(kafka.offsets)
    try:
        with Lookup(settings.kafka_client(), settings.ingest_group) as lookup:
            for partition in grown:
                later = lookup.offsets(settings.kafka_data_ingestion_topic, partition)
                offsets[partition] = offsets[partition]._replace(log_end=later.log_end)
    except KafkaAway as error:
        return str(error)
    return KafkaSide(kafka.cluster, kafka.topic_id, offsets, kafka.members)


def _ask_redis(settings: Settings) -> RedisSide | str:
    try:
        with make_app(settings) as app, app.connection_for_read() as connection:
            connection.ensure_connection(max_retries=1, timeout=_REDIS_SECONDS)
            client = connection.default_channel.client
            queues = {name: int(client.llen(name)) for name in ingest_queues(settings.ingest_queues)}
            inspect = app.control.inspect(timeout=_WORKER_SECONDS, connection=connection)
            answers = inspect.active_queues() or {}
            return RedisSide(queues, {name: {queue["name"] for queue in read} for name, read in answers.items()})
    except (OperationalError, RedisError, OSError) as error:
        return mask_url(str(error))
