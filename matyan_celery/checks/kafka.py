"""Does Kafka answer, has it our topics, and who is in our groups?"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient

from bridge.fresh import KafkaAway
from bridge.lookup import Lookup
from bridge.membership import CLIENT_ID
from matyan_celery.checks.finding import SECONDS, Finding

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tasks.settings import Settings

_PAUSE: Final = 0.2  # seconds between two questions


def check_kafka(settings: Settings) -> Finding:
    """Ask the cluster for itself."""
    return _ask(settings)[0]


def check_topics(settings: Settings) -> Finding:
    """See whether our topics are there."""
    finding, partitions = _ask(settings)
    return _look_at_topics(settings, partitions) if finding.well else finding


def look_at_kafka(settings: Settings) -> Iterator[Finding]:
    """First whether it answers; then, if it does, its topics and our groups."""
    finding, partitions = _ask(settings)
    yield finding
    if finding.well:
        yield _look_at_topics(settings, partitions)
        yield from _look_at_groups(settings)


def _look_at_topics(settings: Settings, partitions: dict[str, int]) -> Finding:
    wanted = {
        settings.kafka_data_ingestion_topic: "KAFKA_DATA_INGESTION_TOPIC",
        settings.kafka_control_events_topic: "KAFKA_CONTROL_EVENTS_TOPIC",
    }
    missing = [topic for topic in wanted if topic not in partitions]
    if missing:
        names = " and ".join(repr(topic) for topic in missing)
        settings_named = " and ".join(wanted[topic] for topic in missing)
        return Finding("topics", False, f"Kafka has no topic {names}", f"make it, or look at {settings_named}")
    counts = ", ".join(f"{topic} with {partitions[topic]} partitions" for topic in wanted)
    return Finding("topics", True, f"Kafka has {counts}")


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


def _ask(settings: Settings) -> tuple[Finding, dict[str, int]]:
    """Whether the cluster answers, and how many partitions each topic has."""
    servers = settings.kafka_bootstrap_servers
    said: list[str] = []

    def note(error: KafkaError) -> None:
        said.append(error.str())

    try:
        config: dict[str, Any] = {**settings.kafka_client(), "log_level": 0, "error_cb": note}
        admin = AdminClient(config)
        # Asks for all topics, since a question for one by name may make it.
        found = admin.list_topics(timeout=SECONDS)
        admin.poll(0)
    except KafkaException as error:
        why = said[-1] if said else error.args[0].str()
        remedy = "is it up, and do KAFKA_BOOTSTRAP_SERVERS, KAFKA_SECURITY_PROTOCOL, KAFKA_SASL_* and KAFKA_SSL_* fit"
        return Finding("kafka", False, f"Kafka at {servers} does not answer ({why})", remedy), {}
    partitions = {name: len(topic.partitions) for name, topic in found.topics.items()}
    sentence = f"Kafka at {servers} answers: cluster {found.cluster_id}, {len(found.brokers)} brokers"
    return Finding("kafka", True, sentence), partitions
