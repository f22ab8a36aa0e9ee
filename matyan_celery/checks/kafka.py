"""Does Kafka answer, has it our topics, would they keep what we have to read, and who is in our groups?

Nothing is written: a record in a topic is its users' and stays. What Kafka says of its topics tells whether it would.
"""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from confluent_kafka import KafkaException, TopicPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined] # its stub forgets OffsetSpec
    AdminClient,
    ConfigResource,
    OffsetSpec,
    ResourceType,
)

from bridge.fresh import KafkaAway
from bridge.lookup import Lookup
from bridge.main import check_kafka_settings
from bridge.membership import CLIENT_ID
from matyan_celery.checks.clocks import WRONG
from matyan_celery.checks.finding import SECONDS, Finding
from matyan_celery.checks.topics import Replicas, judge_topic
from tasks.errors import WrongSettingError
from tasks.kafka_clients import make_client, without_group
from tasks.kafka_trouble import Told
from tasks.outbox import OutboxPublisher

if TYPE_CHECKING:
    from collections.abc import Iterator

    from confluent_kafka.admin._metadata import ClusterMetadata

    from tasks.settings import Settings

_REMEDY: Final = "is it up, and do KAFKA_BOOTSTRAP_SERVERS, KAFKA_SECURITY_PROTOCOL, KAFKA_SASL_* and KAFKA_SSL_* fit"
_PAUSE: Final = 0.2  # seconds between two questions


def check_kafka(settings: Settings) -> Finding:
    """Ask the cluster for itself."""
    return _ask(settings)[0]


def check_topics(settings: Settings) -> Finding:
    """See whether our topics are there."""
    finding, found = _ask(settings)
    if found is None:
        return finding
    missing = _find_missing(settings, found)
    topics = " and ".join(f"{topic} with {len(found.topics[topic].partitions)} partitions" for topic in missing.there)
    return missing.finding or Finding("topics", True, f"Kafka has {topics}")


def look_at_kafka(settings: Settings) -> Iterator[Finding]:
    """First whether it answers; then, if it does, its topics and our groups."""
    finding, found = _ask(settings)
    yield finding
    if found is not None:
        missing = _find_missing(settings, found)
        if missing.finding is not None:
            yield missing.finding
        yield from _look_at_topics(settings, found, missing.there)
        yield from _look_at_groups(settings)


class _Missing(NamedTuple):
    finding: Finding | None
    there: list[str]


def _find_missing(settings: Settings, found: ClusterMetadata) -> _Missing:
    """Which of our topics are not there, and which are."""
    wanted = {
        settings.kafka_data_ingestion_topic: "KAFKA_DATA_INGESTION_TOPIC",
        settings.kafka_control_events_topic: "KAFKA_CONTROL_EVENTS_TOPIC",
    }
    missing = [topic for topic in wanted if topic not in found.topics]
    there = [topic for topic in wanted if topic in found.topics]
    if not missing:
        return _Missing(None, there)
    names = " and ".join(repr(topic) for topic in missing)
    settings_named = " and ".join(wanted[topic] for topic in missing)
    sentence, remedy = f"Kafka has no topic {names}", f"make it, or look at {settings_named}"
    return _Missing(Finding("topics", False, sentence, remedy), there)


def _look_at_topics(settings: Settings, found: ClusterMetadata, topics: list[str]) -> Iterator[Finding]:
    """How they are kept, and whether their newest records are of our time."""
    quiet: dict[str, Any] = {**without_group(settings.kafka_client()), "log_level": 0}
    admin = AdminClient(quiet)
    resources = [ConfigResource(ResourceType.TOPIC, topic) for topic in topics]
    asked = admin.describe_configs(resources, request_timeout=SECONDS) if resources else {}
    for resource, answer in asked.items():
        topic, config = resource.name, None
        with suppress(KafkaException):  # we may not ask: said by whoever judges
            config = {name: entry.value for name, entry in answer.result().items()}
        partitions = found.topics[topic].partitions.values()
        replicas = [Replicas(one.id, one.leader, one.replicas, one.isrs) for one in partitions]
        yield from judge_topic(topic, config, replicas, len(found.brokers))
        yield from _look_at_times(admin, topic, [one.partition for one in replicas if one.leader >= 0])


def _look_at_times(admin: AdminClient, topic: str, partitions: list[int]) -> Iterator[Finding]:
    """Whether a record is of the future. The broker's own clock cannot be asked for."""
    newest: Any = OffsetSpec.max_timestamp()  # type: ignore[no-untyped-call]
    places = {TopicPartition(topic, partition): newest for partition in partitions}
    try:
        asked = admin.list_offsets(places, request_timeout=SECONDS) if places else {}
        stamps = [int(answer.result().timestamp) for answer in asked.values()]
    except KafkaException:
        return  # an old broker, or a moment without a leader: nothing is known
    ahead = max(stamps, default=0) / 1_000 - time.time()
    if ahead > WRONG:
        sentence = f"{topic} has a record of {ahead:,.0f} s ahead of this machine's clock"
        remedy = "set the clocks of producers, brokers (message.timestamp.type=LogAppendTime) and this machine"
        yield Finding("clock", False, sentence, remedy)


def _look_at_groups(settings: Settings) -> Iterator[Finding]:
    """Whether bridges are in our groups, and nobody else."""
    for group in (settings.ingest_group, settings.control_group):
        try:
            members = _ask_members(settings, group)
        except KafkaAway as error:
            yield Finding("groups", False, f"the group {group!r} is not known ({error})", "look at Kafka first")
            continue
        ours = [name for name in members if name.startswith(CLIENT_ID)]
        foreign = sorted(set(members) - set(ours))
        if foreign:
            names = ", ".join(foreign)
            yield Finding("groups", False, f"the group {group!r} has members that are no bridge ({names})", "stop them")
        elif not ours:
            yield Finding("groups", False, f"no bridge is in the group {group!r}", "start one: matyan-celery bridge")
        else:
            yield Finding("groups", True, f"the group {group!r} has {len(ours)} members, all of them bridges")


def _ask_members(settings: Settings, group: str) -> list[str]:
    """The client ids in a group. A broker that has just started does not know its groups for a moment."""
    deadline = time.monotonic() + SECONDS
    with Lookup(settings.kafka_client(), group) as lookup:
        while True:
            try:
                return lookup.members()
            except KafkaAway:
                if time.monotonic() > deadline:
                    raise
            time.sleep(_PAUSE)


def _ask(settings: Settings) -> tuple[Finding, ClusterMetadata | None]:
    """Whether the cluster answers, and what it has."""
    servers = settings.kafka_bootstrap_servers
    config = settings.kafka_client()
    told = Told(config)
    try:
        check_kafka_settings(settings)
        OutboxPublisher(settings).check()
        admin = make_client(AdminClient, {**without_group(config), "log_level": 0, "error_cb": told.hear}, config)
    except WrongSettingError as error:
        return Finding("kafka", False, str(error), "mend them, then ask again"), None
    try:
        # Asks for all topics, since a question for one by name may make it.
        found = admin.list_topics(timeout=SECONDS)
    except KafkaException as error:
        why, remedy = told.explain(admin) or (error.args[0].str(), _REMEDY)
        return Finding("kafka", False, f"Kafka at {servers} does not answer ({why})", remedy), None
    sentence = f"Kafka at {servers} answers: cluster {found.cluster_id}, {len(found.brokers)} brokers"
    return Finding("kafka", True, sentence), found
