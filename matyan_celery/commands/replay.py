"""``matyan-celery replay``: recorded records into a store, without Kafka."""

from __future__ import annotations

import sys
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from matyan_celery.commands.options import settings_for, store_option
from matyan_celery.commands.printing import printable
from storage.apply import Result
from storage.control import DELETES, decode_event
from storage.errors import Poison
from storage.meaning import CONTROL, INGEST
from storage.recorded import BadLineError, Recorded, read_recorded
from storage.replay import Replay
from tasks.opened import open_settings_store

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
    help="Only records of this topic; repeatable. Control topics are told by 'control' in the name.",
)
@click.option(
    "--with-deletes",
    is_flag=True,
    help="Apply the deletes of control topics too: runs' blobs go, and what points to deleted experiments and tags.",
)
@click.argument(
    "files",
    nargs=-1,
    required=True,
    type=click.Path(path_type=Path, exists=True, dir_okay=False, allow_dash=True),
    metavar="FILE...",
)
def replay(
    store_url: str | None,
    strict: bool,
    size: int,
    topics: tuple[str, ...],
    with_deletes: bool,
    files: tuple[Path, ...],
) -> None:
    """Apply recorded records, without Kafka.

    In file order, by the same code as the task. A FILE holds lines of {"topic", "partition", "offset",
    "timestamp_ms", "key", "value"}, and "headers" where there are some; a null value is a Kafka tombstone,
    value_base64 stands for bytes that are not UTF-8; .gz is unpacked, - is standard input. Records that can never be
    applied become dead letters, as they would behind Kafka. A second replay applies the records again.

    The deletes of control topics (run_deleted, experiment_deleted, tag_deleted, project_deleted) are held back and
    counted, unless they are asked for: then each leaves its cleanup or cascade, and beat has it done.
    """
    settings = settings_for(store_url)
    with open_settings_store(settings) as store:
        count = _Count(topics, settings.kafka_control_events_topic, with_deletes=with_deletes)
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
        topics: those that are replayed; none: all.
        control: the control topic's name, whatever it is.
        with_deletes: the deletes of control topics count too.
    """

    def __init__(self, topics: tuple[str, ...], control: str, *, with_deletes: bool) -> None:
        self._topics = topics
        self._control = control
        self._with_deletes = with_deletes
        self.total = Result()
        self.records = 0
        self.skipped: Counter[str] = Counter()
        self.held: Counter[str] = Counter()

    def choose(self, recorded: Iterable[Recorded]) -> Iterator[tuple[str, Recorded]]:
        """The records to replay, each with its route; the others are counted."""
        for item in recorded:
            if self._topics and item.topic not in self._topics:
                self.skipped[item.topic] += 1
            elif item.topic != self._control and "control" not in item.topic:
                yield INGEST, item
            elif not self._with_deletes and (kind := _find_type(item)) in DELETES:
                self.held[kind] += 1
            else:
                yield CONTROL, item

    def add(self, records: int, result: Result) -> None:
        """Add a batch."""
        self.records += records
        self.total.applied += result.applied
        self.total.dead += result.dead
        self.total.dropped += result.dropped
        self.total.transactions += result.transactions


def _find_type(recorded: Recorded) -> str:
    """The type of a control event; empty where it is none, which whoever applies it will say."""
    try:
        return decode_event(recorded.record).type
    except Poison:
        return ""


def _replay(store: Store, files: Iterable[Path], size: int, count: _Count) -> None:
    running: dict[str, Replay] = {}
    batch: list[Recorded] = []
    held, at = 0, ""

    def apply() -> None:
        nonlocal held
        if batch:
            if at not in running:
                running[at] = Replay(store, at)
            count.add(len(batch), running[at].apply(batch))
            batch.clear()
            held = 0

    try:
        try:
            for route, item in count.choose(record for file in files for record in read_recorded(file)):
                if route != at:
                    apply()
                    at = route
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
        for one in running.values():
            one.finish()


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
    for kind, number in sorted(count.held.items()):
        _print_count("held", kind, number)
    if count.held:
        click.echo("deletes are held back: apply them too with --with-deletes")
    if total.applied.keys() & DELETES:
        click.echo("beat has what is to be deleted done; look at it with: matyan-celery cleanups list, cascades list")
    if total.dead:
        click.echo("look at the dead ones with: matyan-celery dead-letters list")


def _print_count(what: str, kind: str, number: int) -> None:
    click.echo(f"  {what:8} {kind:30} {number:>9}")
