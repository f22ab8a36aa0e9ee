"""``matyan-celery dead-letters``: look at records that could not be applied; requeue or drop them."""

from __future__ import annotations

import json
import sys
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from matyan_celery.commands.options import open_chosen, store_option

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from storage.dead_letters import DeadLetter
    from storage.store import Store


def _filters(command: Callable[..., None]) -> Callable[..., None]:
    for option in (
        click.option("--offset", type=int, help="Only the record of this offset (with --topic and --partition)."),
        click.option("--partition", type=int, help="Only records of this partition."),
        click.option("--topic", help="Only records of this topic."),
        click.option("--reason", help="Only with this reason, such as invalid, unknown_type, value_too_large, bug."),
        click.option("--run", help="Only of this run id."),
        store_option,
    ):
        command = option(command)
    return command


def _choose(store: Store, wanted: dict[str, Any]) -> Iterator[DeadLetter]:
    """The letters that pass the filters, in offset order within topic and partition."""
    for letter in store.dead_letters.each(store.engine):
        have = {
            "run": letter.run,
            "reason": letter.reason,
            "topic": letter.source.topic,
            "partition": letter.source.partition,
            "offset": letter.offset,
        }
        if all(value is None or have[name] == value for name, value in wanted.items()):
            yield letter


@click.group(name="dead-letters")
def dead_letters() -> None:
    """Records that can never be applied as they are: list, show, requeue, drop."""


@dead_letters.command(name="list")
@_filters
@click.option("--json", "as_json", is_flag=True, help="One JSON line a letter.")
def list_letters(store_url: str | None, as_json: bool, **wanted: Any) -> None:
    """List dead letters."""
    count = 0
    with open_chosen(store_url) as store:
        for letter in _choose(store, wanted):
            count += 1
            click.echo(json.dumps(_as_fields(letter)) if as_json else _as_line(letter))
    if not as_json:
        click.echo(f"{count} dead letters" if count else "no dead letters")


@dead_letters.command()
@_filters
@click.option("--raw", is_flag=True, help="Write the value's bytes alone, as they are.")
def show(store_url: str | None, raw: bool, **wanted: Any) -> None:
    """Show dead letters with their whole records."""
    found = False
    with open_chosen(store_url) as store:
        for letter in _choose(store, wanted):
            read = store.engine.read(
                lambda transaction: store.dead_letters.get(transaction, letter.source, letter.offset)  # noqa: B023
            )
            if read is None:
                continue
            found = True
            _, record = read
            if raw:
                sys.stdout.buffer.write(record.value or b"")
                continue
            click.echo(_as_line(letter))
            click.echo(f"  error      {letter.error}")
            click.echo(f"  kept       {_as_time(letter.time)}, requeued {letter.requeues} times")
            click.echo(f"  record     {_as_time(record.timestamp_ms / 1_000)}, lane {letter.lane}, {letter.size} bytes")
            click.echo(f"  key        {_as_text(record.key)}")
            click.echo(f"  value      {_as_text(record.value)}")
    if not found:
        msg = "no dead letter passes these filters"
        raise click.ClickException(msg)


@dead_letters.command()
@_filters
@click.option("--all", "everything", is_flag=True, help="All of them, where no filter is given.")
def requeue(store_url: str | None, everything: bool, **wanted: Any) -> None:
    """Apply dead letters once more, in offset order; each exactly once, also if this command dies.

    What fails again stays, with its new reason. A requeued record is applied after all that came since: it is out of
    its run's order by nature. Exit code 1 if one failed again.
    """
    _need_choice(wanted, everything=everything)
    failed = 0
    with open_chosen(store_url) as store:
        for letter in list(_choose(store, wanted)):
            outcome = store.dead_letters.requeue(store.engine, store.applier, letter, now=time.time())
            if outcome is None:
                became = "was gone"
            elif outcome.error is None:
                became = outcome.kind if outcome.kind == "applied" else "dropped: its run is deleted"
            else:
                failed += 1
                became = f"failed again ({outcome.error.reason}): {outcome.error}"
            click.echo(f"{letter.source} offset {letter.offset}: {became}")
    if failed:
        click.echo(f"{failed} failed again", err=True)
        sys.exit(1)


@dead_letters.command()
@_filters
@click.option("--all", "everything", is_flag=True, help="All of them, where no filter is given.")
def drop(store_url: str | None, everything: bool, **wanted: Any) -> None:
    """Delete dead letters; their records are gone then."""
    _need_choice(wanted, everything=everything)
    count = 0
    with open_chosen(store_url) as store:
        for letter in list(_choose(store, wanted)):
            store.engine.transact(
                lambda transaction: store.dead_letters.remove(transaction, letter.source, letter.offset)  # noqa: B023
            )
            count += 1
    click.echo(f"{count} dropped")


def _need_choice(wanted: dict[str, Any], *, everything: bool) -> None:
    if not everything and all(value is None for value in wanted.values()):
        msg = "give a filter, or --all"
        raise click.UsageError(msg)


def _as_line(letter: DeadLetter) -> str:
    return (
        f"{letter.source} offset {letter.offset}  {letter.reason}  run {letter.run or '-'}  {letter.type or '-'}  "
        f"{letter.error[:100]}"
    )


def _as_fields(letter: DeadLetter) -> dict[str, Any]:
    return {
        "topic": letter.source.topic,
        "partition": letter.source.partition,
        "offset": letter.offset,
        "topic_id": letter.source.topic_id,
        "lane": letter.lane,
        "reason": letter.reason,
        "error": letter.error,
        "time": letter.time,
        "run": letter.run,
        "type": letter.type,
        "size": letter.size,
        "requeues": letter.requeues,
    }


def _as_time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")


def _as_text(data: bytes | None) -> str:
    if data is None:
        return "none"
    try:
        return data.decode()
    except UnicodeDecodeError:
        return f"{data!r} (not UTF-8)"
