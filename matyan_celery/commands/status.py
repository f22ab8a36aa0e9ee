"""``matyan-celery status``: where each partition and lane stands, and what is wrong, in words."""

from __future__ import annotations

import json
import sys
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import click
import redis

from bridge.lookup import KafkaAway, Lookup, NoSuchTopic, Offsets
from matyan_celery.commands.options import settings_for, store_option
from storage.store import open_store
from tasks.queues import ingest_queues

if TYPE_CHECKING:
    from storage.batch import Source
    from storage.engine import Transaction
    from storage.ledger import Gap, Owner, Standing
    from storage.store import Store
    from tasks.settings import Settings


@dataclass
class Report:
    """What was found. ``wrong`` holds sentences for people; empty means that all is well."""

    partitions: list[dict[str, Any]] = field(default_factory=list)
    queues: dict[str, int] | None = None
    dead: Counter[str] = field(default_factory=Counter)
    gaps: list[Gap] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)


@click.command()
@store_option
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def status(store_url: str | None, as_json: bool) -> None:
    """Show epochs, cursors, lag, queues and dead letters, and say what is wrong.

    Kafka and Redis are asked too; where they do not answer, that is said, and the store's side is shown. Exit code 0
    if all is well, 1 if something is wrong.
    """
    settings = settings_for(store_url)
    with open_store(settings.storage_url, timeout=settings.storage_timeout_seconds) as store:
        report = make_report(store, settings)
    click.echo(_as_json(report) if as_json else _as_text(report))
    sys.exit(1 if report.wrong else 0)


def make_report(store: Store, settings: Settings) -> Report:
    """Ask store, Kafka and Redis."""
    report = Report()
    owners, standings, floors, report.gaps = _read_store(store)
    report.dead = Counter(letter.reason for letter in store.dead_letters.each(store.engine))
    report.queues = _ask_redis(settings, report)
    offsets = _ask_kafka(settings, owners, report)
    for source, owner in sorted(owners.items(), key=lambda pair: pair[0]):
        report.partitions.append(
            _describe(source, owner, standings[source], floors[source], offsets.get(source), report)
        )
    if not owners:
        report.wrong.append("no partition was ever taken over in this store: start the bridge (matyan-celery bridge)")
    for gap in report.gaps:
        report.wrong.append(
            f"{gap.source}: offsets {gap.first} to {gap.last} were gone from Kafka before they were read"
        )
    if report.dead:
        report.wrong.append(f"{report.dead.total()} dead letters: look with `matyan-celery dead-letters list`")
    return report


def _read_store(
    store: Store,
) -> tuple[dict[Source, Owner], dict[Source, Standing], dict[Source, int | None], list[Gap]]:
    def work(
        transaction: Transaction,
    ) -> tuple[dict[Source, Owner], dict[Source, Standing], dict[Source, int | None], list[Gap]]:
        owners = store.ledger.sources(transaction)
        return (
            owners,
            store.ledger.standings(transaction, owners),
            {source: store.ledger.floor(transaction, source) for source in owners},
            store.ledger.gaps(transaction),
        )

    return store.engine.read(work)


def _ask_redis(settings: Settings, report: Report) -> dict[str, int] | None:
    try:
        with redis.Redis.from_url(settings.redis_url, socket_timeout=3, socket_connect_timeout=3) as client:
            names = ingest_queues(settings.ingest_queues)
            return {name: int(client.llen(name)) for name in names}
    except redis.RedisError as error:
        report.wrong.append(f"Redis does not answer ({error}): queues are not known")
        return None


def _ask_kafka(settings: Settings, owners: dict[Source, Owner], report: Report) -> dict[Source, Offsets]:
    """Commit and bounds of the sources that are the topic's present ones."""
    topic = settings.kafka_data_ingestion_topic
    try:
        with Lookup(settings.kafka_client(), settings.ingest_group) as lookup:
            cluster, topic_id = lookup.cluster_id(), lookup.topic_id(topic)
            return {
                source: lookup.offsets(topic, source.partition)
                for source in owners
                if (source.cluster, source.topic, source.topic_id) == (cluster, topic, topic_id)
            }
    except KafkaAway as error:
        report.wrong.append(f"Kafka does not answer ({error}): lag is not known")
    except NoSuchTopic:
        report.wrong.append(f"Kafka has no topic {topic!r}: KAFKA_DATA_INGESTION_TOPIC may be wrong")
    return {}


def _describe(
    source: Source, owner: Owner, standing: Standing, floor: int | None, offsets: Offsets | None, report: Report
) -> dict[str, Any]:
    cursors = standing.cursors
    row: dict[str, Any] = {
        "topic": source.topic,
        "partition": source.partition,
        "topic_id": source.topic_id,
        "group": owner.group,
        "epoch": str(owner.epoch),
        "lanes": owner.lanes,
        "cursors": cursors,
        "floor": floor,
    }
    missing = sorted(set(range(owner.lanes)) - cursors.keys())
    if missing:
        report.wrong.append(
            f"{source}: lanes {missing} have no cursor: the take-over was not finished; restart the bridge"
        )
    if offsets is not None:
        committed = offsets.committed
        row["committed"], row["log_end"] = committed, offsets.log_end
        row["lag"] = offsets.log_end - (offsets.log_start if committed is None else committed)
        highest = max(cursors.values(), default=-1)
        if highest >= offsets.log_end:
            report.wrong.append(f"{source}: offset {highest} is applied, but the log ends at {offsets.log_end}")
        if floor is not None and committed is not None and committed > floor:
            report.wrong.append(
                f"{source}: the group's commit {committed} is above the floor {floor}: the store went back, or another "
                "worker commits in this group"
            )
    return row


def _as_json(report: Report) -> str:
    return json.dumps(
        {
            "partitions": report.partitions,
            "queues": report.queues,
            "dead_letters": dict(report.dead),
            "gaps": [{"partition": str(gap.source), "first": gap.first, "last": gap.last} for gap in report.gaps],
            "wrong": report.wrong,
        }
    )


def _as_text(report: Report) -> str:
    lines = []
    for row in report.partitions:
        lag = (
            f"lag {row['lag']} (commit {row['committed']}, log end {row['log_end']})" if "lag" in row else "lag unknown"
        )
        lines.append(f"{row['topic']}[{row['partition']}]  epoch {row['epoch']}  floor {row['floor']}  {lag}")
        shown = "  ".join(f"{lane}:{cursor}" for lane, cursor in sorted(row["cursors"].items()))
        lines.append(f"    cursors by lane  {shown or 'none'}")
    if report.queues is not None:
        waiting = "  ".join(f"{name}: {count}" for name, count in report.queues.items() if count)
        lines.append(f"waiting in queues  {waiting or 'nothing'}")
    for reason, count in sorted(report.dead.items()):
        lines.append(f"dead letters       {reason}: {count}")
    lines += [f"WRONG  {sentence}" for sentence in report.wrong] or ["all is well"]
    return "\n".join(lines)
