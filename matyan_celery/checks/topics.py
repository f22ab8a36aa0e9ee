"""Would a topic keep what we have still to read? A pure look at what Kafka says of it: configuration and replicas."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from matyan_celery.checks.finding import Finding

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_WEEKEND: Final = 72 * 3_600.0  # seconds: from Friday evening until somebody has looked on Monday
_DAY: Final = 86_400.0


class Replicas(NamedTuple):
    """Which brokers have a partition.

    Attributes:
        partition: its number.
        leader: the broker that reads and writes go to; below 0: none.
        all: the brokers that should have it.
        in_sync: those that have all of it.
    """

    partition: int
    leader: int
    all: Sequence[int]
    in_sync: Sequence[int]


def judge_topic(
    topic: str, config: Mapping[str, str | None] | None, replicas: Sequence[Replicas], brokers: int
) -> Iterator[Finding]:
    """What is to be said of a topic.

    Args:
        topic: its name.
        config: its configuration, by Kafka's names; None where we may not ask.
        replicas: of each partition.
        brokers: how many the cluster has.
    """
    findings = [*_judge_replicas(topic, replicas, brokers)]
    if config is None:
        sentence = f"Kafka does not let us ask how {topic} is configured"
        findings.append(Finding("topics", True, sentence, "allow our user DescribeConfigs on it, or look yourself"))
    else:
        findings += _judge_config(topic, config, replicas)
    if all(finding.well and not finding.remedy for finding in findings):
        keeps = "" if config is None else f", keeps records {_show_retention(config)}"
        least = min((len(one.all) for one in replicas), default=0)
        findings.append(Finding("topics", True, f"{topic} has {len(replicas)} partitions, {least} replicas{keeps}"))
    yield from findings


def _judge_replicas(topic: str, replicas: Sequence[Replicas], brokers: int) -> Iterator[Finding]:
    headless = [one.partition for one in replicas if one.leader < 0]
    if headless:
        sentence = f"{topic}, partitions {_join(headless)}: no leader, so nobody reads or writes them"
        yield Finding("topics", False, sentence, "bring the brokers back that have them")
    behind = [one.partition for one in replicas if len(one.in_sync) < len(one.all)]
    if behind:
        missing = sorted({broker for one in replicas for broker in set(one.all) - set(one.in_sync)})
        sentence = f"{topic}, partitions {_join(behind)}: the brokers {_join(missing)} are behind or away"
        yield Finding("topics", False, sentence, "look at these brokers, before another one goes")
    if any(len(one.all) == 1 for one in replicas):
        sentence = f"{topic} has one replica: what its broker's disk loses is lost"
        if brokers > 1:
            yield Finding("topics", False, sentence, f"give it 3 of the cluster's {brokers} brokers")
        else:
            yield Finding(
                "topics", True, f"{sentence} (the cluster has one broker)", "add brokers before you rely on it"
            )


def _judge_config(topic: str, config: Mapping[str, str | None], replicas: Sequence[Replicas]) -> Iterator[Finding]:
    if "compact" in (config.get("cleanup.policy") or ""):
        sentence = f"{topic} is compacted: of each run Kafka keeps the last record and drops the others, read or not"
        yield Finding("topics", False, sentence, "set its cleanup.policy to delete")
    seconds = _seconds(config)
    if seconds is not None and seconds < _WEEKEND:
        sentence = f"{topic} keeps records {_show_retention(config)}, which is shorter than a weekend"
        yield Finding(
            "topics", False, sentence, "raise its retention.ms above the longest outage that is to lose nothing"
        )
    size = int(config.get("retention.bytes") or -1)
    if size >= 0:
        sentence = f"{topic} keeps {size:,} bytes a partition, whatever the age of what it drops"
        yield Finding("topics", True, sentence, "set its retention.bytes to -1, or watch that the lag stays below it")
    needed = int(config.get("min.insync.replicas") or 1)
    short = [one.partition for one in replicas if 0 < len(one.in_sync) < needed]
    if short:
        sentence = f"{topic}, partitions {_join(short)}: fewer replicas than min.insync.replicas ({needed})"
        yield Finding("topics", False, f"{sentence}, so Kafka refuses what producers send", "bring the brokers back")
    if config.get("unclean.leader.election.enable") == "true":
        sentence = f"{topic} lets a broker that is behind become the leader, which loses records"
        yield Finding("topics", True, sentence, "set its unclean.leader.election.enable to false")


def _seconds(config: Mapping[str, str | None]) -> float | None:
    """How long records are kept; None: for ever, or until they are too many bytes."""
    if "delete" not in (config.get("cleanup.policy") or "delete"):
        return None
    milliseconds = int(config.get("retention.ms") or -1)
    return None if milliseconds < 0 else milliseconds / 1_000


def _show_retention(config: Mapping[str, str | None]) -> str:
    seconds = _seconds(config)
    if seconds is None:
        return "for ever"
    return f"for {seconds / _DAY:.3g} days" if seconds >= _DAY else f"for {seconds / 3_600:.3g} hours"


def _join(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers))
