"""``matyan-celery replay``: recorded records into a store, without Kafka."""

from __future__ import annotations

import itertools
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from matyan_celery.commands.options import open_chosen, store_option
from storage.apply import Result
from storage.recorded import Recorded, read_recorded
from storage.replay import Replay

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from storage.store import Store


@click.command(
    epilog="Example: matyan-celery replay --store sqlite:///matyan.db streams/digits.jsonl streams/long.jsonl.gz"
)
@store_option
@click.option("--strict", is_flag=True, help="Exit with 1 if a record was dead-lettered.")
@click.option(
    "--batch", "size", default=1_000, show_default=True, type=click.IntRange(1, 10_000), help="Records at a time."
)
@click.option(
    "--topic",
    "topics",
    multiple=True,
    help="Only records of this topic; repeatable. Otherwise all but those of control topics (no key and no run id).",
)
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path, allow_dash=True), metavar="FILE...")
def replay(store_url: str | None, strict: bool, size: int, topics: tuple[str, ...], files: tuple[Path, ...]) -> None:
    """Apply recorded records in file order, by the same code as the task.

    A FILE holds lines of {"topic", "partition", "offset", "timestamp_ms", "key", "value"}; a null value is a Kafka
    tombstone, value_base64 stands for bytes that are not UTF-8; .gz is unpacked, - is standard input. Records that can
    never be applied become dead letters, as they would behind Kafka. A replay again applies the records again.
    """
    for file in files:
        if str(file) != "-" and not file.is_file():
            raise click.BadParameter(f"{file} is no file", param_hint="FILE")
    with open_chosen(store_url) as store:
        began = time.monotonic()
        other: list[int] = [0]
        total, records = _replay(store, _choose(_read(files), topics, other), size)
        seconds = time.monotonic() - began
    click.echo(
        f"{records} records in {seconds:.1f} s ({records / seconds:,.0f} a second), {total.transactions} transactions"
    )
    for kind, count in sorted(total.applied.items()):
        click.echo(f"  applied  {kind:20} {count:>9}")
    if total.dropped:
        click.echo(f"  dropped  {'of deleted runs':20} {total.dropped:>9}")
    for reason, count in sorted(total.dead.items()):
        click.echo(f"  dead     {reason:20} {count:>9}")
    if other[0]:
        click.echo(f"  skipped  {'of other topics':20} {other[0]:>9}")
    if total.dead:
        click.echo("look at them with: matyan-celery dead-letters list")
    if strict and total.dead:
        sys.exit(1)


def _read(files: Iterable[Path]) -> Iterator[Recorded]:
    return itertools.chain.from_iterable(read_recorded(file) for file in files)


def _choose(recorded: Iterable[Recorded], topics: tuple[str, ...], other: list[int]) -> Iterator[Recorded]:
    """The ingestion records; counts the others in ``other[0]``."""
    for item in recorded:
        if item.topic in topics or (not topics and not _is_control(item)):
            yield item
        else:
            other[0] += 1


def _is_control(item: Recorded) -> bool:
    """Control records have no key, and their topics say so in their names (CONTRACT 7)."""
    return item.record.key is None and "control" in item.topic


def _replay(store: Store, recorded: Iterator[Recorded], size: int) -> tuple[Result, int]:
    total, records = Result(), 0
    running = Replay(store)
    try:
        while some := list(itertools.islice(recorded, size)):
            result = running.apply(some)
            records += len(some)
            total.applied += result.applied
            total.dead += result.dead
            total.dropped += result.dropped
            total.transactions += result.transactions
    finally:
        running.finish()
    return total, records
