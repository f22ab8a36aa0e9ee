"""``matyan-celery status``: where each partition and lane stands, and what is wrong, in words."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import click

from matyan_celery.commands.complaints import count_lag, find_wrong
from matyan_celery.commands.condition import Condition, KafkaSide, ask
from matyan_celery.commands.options import open_existing, settings_for, store_option
from matyan_celery.commands.printing import printable

if TYPE_CHECKING:
    from bridge.lookup import Offsets
    from storage.batch import Source
    from tasks.settings import Settings


@click.command(
    epilog="""\b
Examples:
  matyan-celery status
  matyan-celery status --json | jq -r '.wrong[]'"""
)
@store_option
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def status(store_url: str | None, as_json: bool) -> None:
    """Show where all stands, and what is wrong.

    That is epochs, cursors, lag, queues and dead letters. Kafka, Redis and the workers are asked too; where they
    do not answer within a few seconds, that is said, and the store's side is shown. Lag counts from the group's
    commit to the log's end. Exit code 0 if all is well, 1 if something is wrong.
    """
    settings = settings_for(store_url)
    with open_existing(settings) as store:
        condition = ask(store, settings)
    wrong = find_wrong(condition, settings)
    report = make_report(condition, settings, wrong)
    click.echo(json.dumps(report) if as_json else printable(_as_text(report), lines=True))
    sys.exit(1 if wrong else 0)


def make_report(condition: Condition, settings: Settings, wrong: list[str]) -> dict[str, Any]:
    """All that was found, for JSON."""
    store, kafka, redis = condition.store, condition.kafka, condition.redis
    return {
        "store": {"url": settings.storage_url, "id": store.id or None, "replays": store.replays},
        "kafka": {"error": kafka}
        if isinstance(kafka, str)
        else {
            "cluster": kafka.cluster,
            "topics": [
                {
                    "topic": side.watched.topic,
                    "topic_id": side.topic_id,
                    "group": side.watched.group,
                    "members": side.members,
                }
                for side in kafka.topics.values()
            ],
        },
        "redis": {"error": redis}
        if isinstance(redis, str)
        else {"queues": redis.queues, "workers": {name: sorted(read) for name, read in sorted(redis.workers.items())}},
        "partitions": [_describe(condition, source) for source in sorted(store.standings)],
        "dead_letters": [
            {
                "topic": source.topic,
                "partition": source.partition,
                "topic_id": source.topic_id,
                "lane": lane,
                "reason": reason,
                "count": count,
            }
            for (source, lane, reason), count in sorted(store.dead.items())
        ],
        "left": [
            {"ledger": ledger, "state": state, "count": count} for (ledger, state), count in sorted(store.left.items())
        ],
        "gaps": [
            {"topic": gap.source.topic, "partition": gap.source.partition, "first": gap.first, "last": gap.last}
            for gap in store.gaps
        ],
        "stalls": [
            {
                "topic": stall.source.topic,
                "partition": stall.source.partition,
                "lane": stall.lane,
                "first": stall.first,
                "last": stall.last,
                "attempt": stall.attempt,
                "since": stall.since,
            }
            for stall in store.stalls
        ],
        "standstills": [
            {
                "topic": note.source.topic,
                "partition": note.source.partition,
                "step": note.step,
                "at": note.at,
                "end": note.end,
                "since": note.since,
            }
            for note in store.standstills
        ],
        "wrong": wrong,
    }


def _describe(condition: Condition, source: Source) -> dict[str, Any]:
    store, kafka = condition.store, condition.kafka
    owner, cursors = store.standings[source]
    current: bool | None = None
    offsets: Offsets | None = None
    if isinstance(kafka, KafkaSide):
        side = kafka.topic_of(source)
        current = side is not None
        offsets = None if side is None else side.offsets.get(source.partition)
    lanes = max(cursors, default=-1) + 1 if owner is None else owner.lanes
    return {
        "topic": source.topic,
        "partition": source.partition,
        "topic_id": source.topic_id,
        "cluster": source.cluster,
        "current": current,
        "epoch": None if owner is None else str(owner.epoch),
        "group": None if owner is None else owner.group,
        "floor": store.floors.get(source),
        "committed": None if offsets is None else offsets.committed,
        "log_start": None if offsets is None else offsets.log_start,
        "log_end": None if offsets is None else offsets.log_end,
        "readable": None if offsets is None else offsets.readable,
        "lag": None if offsets is None else count_lag(offsets),
        "lanes": [
            {"lane": lane, "cursor": cursors.get(lane), "dead_letters": _count_dead(condition, source, lane)}
            for lane in range(lanes)
        ],
    }


def _count_dead(condition: Condition, source: Source, lane: int) -> int:
    return sum(count for key, count in condition.store.dead.items() if key[:2] == (source, lane))


def _as_text(report: dict[str, Any]) -> str:
    store, kafka, redis = report["store"], report["kafka"], report["redis"]
    lines = [f"store   {store['url']}" + (f"  (id {store['id'][:8]})" if store["id"] else "")]
    if store["replays"]:
        lines.append(f"        {store['replays']} replays are running, or were broken off")
    if "error" in kafka:
        lines.append("Kafka   does not answer")
    else:
        lines.append(f"Kafka   cluster {kafka['cluster']}")
        for topic in kafka["topics"]:
            members = "unknown" if topic["members"] is None else ", ".join(sorted(set(topic["members"]))) or "nobody"
            lines.append(f"        topic {topic['topic']}, group {topic['group']}: {members}")
    if "error" in redis:
        lines.append("Redis   is not there, or refuses: see below")
    else:
        waiting = ", ".join(f"{count} tasks in {name}" for name, count in redis["queues"].items() if count)
        workers = ", ".join(redis["workers"]) or "none answer"
        lines.append(f"Redis   {waiting or 'nothing waits'}; workers: {workers}")
    shown = [row for row in report["partitions"] if row["current"] is not False]
    for row in shown:
        lines += _as_lines(row)
    if len(shown) < len(report["partitions"]):
        lines.append(f"{len(report['partitions']) - len(shown)} partitions of other topics or of earlier lives: --json")
    lines += [f"WRONG   {sentence}" for sentence in report["wrong"]] or ["all is well"]
    return "\n".join(lines)


def _as_lines(row: dict[str, Any]) -> list[str]:
    commit = "none" if row["committed"] is None else row["committed"]
    lag = f"lag {row['lag']} (commit {commit}, log end {row['log_end']})" if row["lag"] is not None else "lag unknown"
    if row["lag"] is not None and row["readable"] < row["log_end"]:
        lag += f"  an open transaction holds back what lies from offset {row['readable']} on"
    floor = "none" if row["floor"] is None else row["floor"]
    dead = sum(lane["dead_letters"] for lane in row["lanes"])
    head = f"{row['topic']}[{row['partition']}]  {lag}  floor {floor}  epoch {row['epoch']}  dead letters {dead}"
    cursors = "  ".join(
        f"{lane['lane']}:{'none' if lane['cursor'] is None else lane['cursor']}"
        + (f" ({lane['dead_letters']} dead)" if lane["dead_letters"] else "")
        for lane in row["lanes"]
    )
    return [head, f"    {len(row['lanes'])} lanes, cursors  {cursors}"]
