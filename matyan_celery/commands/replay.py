"""``matyan-celery replay``: recorded records into a store, without Kafka."""

from __future__ import annotations

import sys
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from matyan_celery.commands.options import open_chosen, store_option
from matyan_celery.commands.printing import printable
from storage.apply import Result
from storage.recorded import BadLineError, Recorded, read_recorded
from storage.replay import Replay

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from storage.store import Store

_BATCH_BYTES: Final = 1_000_000  # a batch is cut here too, as the bridge does by default


@click.command(
    epilog="""\b
Examples:
  matyan-celery replay --store sqlite:///matyan.db digits.jsonl long.jsonl.gz
  zcat archive/*.gz | matyan-celery replay --strict -"""
)
@store_option
@click.option("--strict", is_flag=True, help="Exit with 1 if a record was dead-lettered.")
@click.option(
    "--records", "size", default=1_000, show_default=True, type=click.IntRange(1, 10_000), help="Records a batch."
)
@click.option(
    "--topic",
    "topics",
    multiple=True,
    help="Only records of this topic; repeatable. Otherwise all but those of control topics, which are told by "
    "'control' in the name.",
)
@click.argument(
    "files",
    nargs=-1,
    required=True,
    type=click.Path(path_type=Path, exists=True, dir_okay=False, allow_dash=True),
    metavar="FILE...",
)
def replay(store_url: str | None, strict: bool, size: int, topics: tuple[str, ...], files: tuple[Path, ...]) -> None:
    """Apply recorded records, without Kafka.

    In file order, by the same code as the task. A FILE holds lines of {"topic", "partition", "offset",
    "timestamp_ms", "key", "value"}, and "headers" where there are some; a null value is a Kafka tombstone,
    value_base64 stands for bytes that are not UTF-8; .gz is unpacked, - is standard input. Records that can never be
    applied become dead letters, as they would behind Kafka. A second replay applies the records again.
    """
    with open_chosen(store_url) as store:
        count = _Count(topics)
        began = time.monotonic()
        try:
            _replay(store, files, size, count)
        finally:
            _print(count, time.monotonic() - began)
    if strict and count.total.dead:
        sys.exit(1)


class _Count:
    """Which records count, and what became of them.

    Args:
        topics: those that are replayed; none: all but control topics.
    """

    def __init__(self, topics: tuple[str, ...]) -> None:
        self._topics = topics
        self.total = Result()
        self.records = 0
        self.skipped: Counter[str] = Counter()

    def choose(self, recorded: Iterable[Recorded]) -> Iterator[Recorded]:
        """The records to replay; the others are counted."""
        for item in recorded:
            if item.topic in self._topics if self._topics else "control" not in item.topic:
                yield item
            else:
                self.skipped[item.topic] += 1

    def add(self, records: int, result: Result) -> None:
        """Add a batch."""
        self.records += records
        self.total.applied += result.applied
        self.total.dead += result.dead
        self.total.dropped += result.dropped
        self.total.transactions += result.transactions


def _replay(store: Store, files: Iterable[Path], size: int, count: _Count) -> None:
    running = Replay(store)
    batch: list[Recorded] = []
    held = 0

    def apply() -> None:
        nonlocal held
        if batch:
            count.add(len(batch), running.apply(batch))
            batch.clear()
            held = 0

    try:
        try:
            for item in count.choose(record for file in files for record in read_recorded(file)):
                batch.append(item)
                held += item.record.size
                if len(batch) >= size or held >= _BATCH_BYTES:
                    apply()
        except BadLineError as error:
            apply()
            msg = f"{error}. All before this line is applied"
            raise BadLineError(msg) from error
        apply()
    finally:
        running.finish()


def _print(count: _Count, seconds: float) -> None:
    total = count.total
    click.echo(
        f"{count.records} records in {seconds:.1f} s ({count.records / max(seconds, 0.001):,.0f} a second), "
        f"{total.transactions} transactions"
    )
    for kind, number in sorted(total.applied.items()):
        _print_count("applied", kind, number)
    if total.dropped:
        _print_count("dropped", "late records of deleted runs", total.dropped.total())
    for reason, number in sorted(total.dead.items()):
        _print_count("dead", reason, number)
    for topic, number in sorted(count.skipped.items()):
        _print_count("skipped", f"topic {printable(topic)}", number)
    if total.dead:
        click.echo("look at the dead ones with: matyan-celery dead-letters list")


def _print_count(what: str, kind: str, number: int) -> None:
    click.echo(f"  {what:8} {kind:30} {number:>9}")
