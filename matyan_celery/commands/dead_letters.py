"""``matyan-celery dead-letters``: look at records that could not be applied; requeue or drop them."""

from __future__ import annotations

import json
import sys
from collections import Counter
from typing import TYPE_CHECKING, Any

import click

from matyan_celery.commands.options import open_existing, settings_for, store_option
from matyan_celery.commands.printing import printable, show_bytes, show_headers, show_sent, show_time
from matyan_celery.commands.told import ToldGroup
from storage.recorded import Recorded, format_recorded
from tasks.app import make_app
from tasks.requeue import Requeuer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from storage.batch import Record
    from storage.dead_letters import DeadLetter
    from storage.engine import Transaction
    from storage.store import Store

_FILTERS = ("run", "reason", "topic", "partition", "offsets")


def _filters(command: Callable[..., None]) -> Callable[..., None]:
    for option in (
        click.option(
            "--offset",
            "offsets",
            type=click.IntRange(min=0),
            multiple=True,
            help="Only this offset; needs --partition; repeatable.",
        ),
        click.option("--partition", type=click.IntRange(min=0), help="Only this partition."),
        click.option("--topic", help="Only this topic."),
        click.option("--reason", help="Only with this reason: invalid, unknown_type, value_too_large, bug, ..."),
        click.option("--run", help="Only of this run id."),
        store_option,
    ):
        command = option(command)
    return command


def _choose(store: Store, wanted: dict[str, Any]) -> Iterator[DeadLetter]:
    """The letters that pass the filters, in offset order within topic and partition; read page by page."""
    if wanted["offsets"] and wanted["partition"] is None:
        msg = "--offset needs --partition: offsets of different partitions have nothing in common"
        raise click.UsageError(msg)
    for letter in store.dead_letters.each(store.engine, reason=wanted["reason"], run=wanted["run"]):
        if (
            wanted["topic"] in {None, letter.source.topic}
            and wanted["partition"] in {None, letter.source.partition}
            and (not wanted["offsets"] or letter.offset in wanted["offsets"])
        ):
            yield letter


@click.group(name="dead-letters", cls=ToldGroup)
def dead_letters() -> None:
    """List, show, requeue or drop bad records.

    A record that cannot be applied as it is is put aside with its reason and its neighbours are applied; nothing
    is lost until it is dropped here.
    """


@dead_letters.command(
    name="list",
    epilog="""\b
Examples:
  matyan-celery dead-letters list --reason unknown_type
  matyan-celery dead-letters list --json | jq -r .run | sort | uniq -c""",
)
@_filters
@click.option("--json", "as_json", is_flag=True, help="One JSON line a letter.")
def list_letters(store_url: str | None, as_json: bool, **wanted: Any) -> None:
    """List dead letters, by topic, partition and offset."""
    reasons: Counter[str] = Counter()
    with open_existing(settings_for(store_url)) as store:
        for letter in _choose(store, wanted):
            if as_json:
                click.echo(json.dumps(_as_fields(letter)))
                continue
            if not reasons:
                click.echo(_as_columns("RECORD", "REASON", "TYPE", "RUN", "ERROR"))
            reasons[letter.reason] += 1
            click.echo(
                _as_columns(_place(letter), letter.reason, letter.type or "-", letter.run or "-", letter.error[:100])
            )
    if not as_json:
        parts = ", ".join(f"{count} {reason}" for reason, count in sorted(reasons.items()))
        click.echo(f"{reasons.total()} dead letters: {parts}" if reasons else "no dead letters")


@dead_letters.command(
    epilog="""\b
Examples:
  matyan-celery dead-letters show --topic data-ingestion --partition 3 --offset 1207
  matyan-celery dead-letters show --run 5f0c... --json > lines.jsonl    (mend them, then: matyan-celery replay)"""
)
@_filters
@click.option("--raw", is_flag=True, help="Write the value's bytes alone, exactly; of one letter.")
@click.option("--json", "as_json", is_flag=True, help="The records as lines that `replay` takes.")
def show(store_url: str | None, raw: bool, as_json: bool, **wanted: Any) -> None:
    """Show dead letters with their whole records."""
    if raw and as_json:
        msg = "--raw and --json exclude each other"
        raise click.UsageError(msg)
    found = 0
    with open_existing(settings_for(store_url)) as store:
        letters = list(_first_two(_choose(store, wanted))) if raw else _choose(store, wanted)
        if isinstance(letters, list) and len(letters) > 1:
            msg = "several dead letters pass these filters, --raw writes one: give --topic, --partition and --offset"
            raise click.UsageError(msg)
        for letter in letters:
            record = _read_record(store, letter)
            if record is None:
                continue
            found += 1
            if raw:
                sys.stdout.buffer.write(record.value or b"")
            elif as_json:
                click.echo(format_recorded(Recorded(letter.source.topic, letter.source.partition, record)))
            else:
                click.echo(_as_text(letter, record))
    if not found:
        msg = "no dead letter passes these filters"
        raise click.ClickException(msg)


@dead_letters.command(
    epilog="""\b
Examples:
  matyan-celery dead-letters requeue --reason bug
  matyan-celery dead-letters requeue --topic data-ingestion --partition 3 --offset 1207 --offset 1301"""
)
@_filters
@click.option("--all", "everything", is_flag=True, help="All of them; without a filter.")
def requeue(store_url: str | None, everything: bool, **wanted: Any) -> None:
    """Apply dead letters once more, in offset order.

    Each is applied exactly once, also if this command is killed and run again. What fails again stays, with its new
    reason, and the exit code is 1. A requeued record is applied after all that came since: it is out of its run's
    order by nature.
    """
    _need_choice(wanted, everything=everything)
    became: Counter[str] = Counter()
    settings = settings_for(store_url)
    with open_existing(settings) as store, make_app(settings) as app:
        requeuer = Requeuer(store, app)
        for letter in _choose(store, wanted):
            requeued = requeuer.requeue_letter(letter)
            became[requeued.kind] += 1
            click.echo(f"{_place(letter)}: {printable(requeued.words)}")
    click.echo(", ".join(f"{count} {kind}" for kind, count in sorted(became.items())) or "no dead letter passes these")
    if became["applied"]:
        click.echo("They were applied after all that came since: out of their runs' order, by nature.")
    if became["failed again"]:
        sys.exit(1)


@dead_letters.command(epilog="Example: matyan-celery dead-letters drop --reason unknown_type --topic data-ingestion")
@_filters
@click.option("--all", "everything", is_flag=True, help="All of them; without a filter.")
def drop(store_url: str | None, everything: bool, **wanted: Any) -> None:
    """Delete dead letters. Their records are gone then: look with `list` and the same filters first."""
    _need_choice(wanted, everything=everything)
    count = 0
    with open_existing(settings_for(store_url)) as store:
        for letter in _choose(store, wanted):
            _drop(store, letter)
            count += 1
    click.echo(f"{count} dropped")


def _need_choice(wanted: dict[str, Any], *, everything: bool) -> None:
    given = any(wanted[name] not in {None, ()} for name in _FILTERS)
    if given == everything:
        msg = "give --all or filters, not both" if given else "give filters, or --all"
        raise click.UsageError(msg)


def _first_two(letters: Iterator[DeadLetter]) -> Iterator[DeadLetter]:
    for _, letter in zip(range(2), letters, strict=False):
        yield letter


def _read_record(store: Store, letter: DeadLetter) -> Record | None:
    found = store.engine.read(lambda transaction: store.dead_letters.get(transaction, letter.source, letter.offset))
    return None if found is None else found[1]


def _drop(store: Store, letter: DeadLetter) -> None:
    def work(transaction: Transaction) -> None:
        store.dead_letters.remove(transaction, letter.source, letter.offset)

    store.engine.transact(work)


def _place(letter: DeadLetter) -> str:
    return f"{letter.source} offset {letter.offset}"


def _as_columns(place: str, reason: str, kind: str, run: str, error: str) -> str:
    return printable(f"{place:<36}  {reason:<16}  {kind:<18}  {run:<32}  {error}")


def _as_text(letter: DeadLetter, record: Record) -> str:
    again = f", requeued {letter.requeues} times since" if letter.requeues else ""
    return "\n".join(
        (
            printable(f"{_place(letter)} (lane {letter.lane}, {letter.size} bytes)"),
            f"  run     {printable(letter.run) or '-'}",
            f"  type    {printable(letter.type) or '-'}",
            f"  reason  {letter.reason}",
            "  error   " + printable(letter.error, lines=True).replace("\n", "\n          "),
            f"  kept    {show_time(letter.time)}{again}",
            f"  sent    {show_sent(record.timestamp_ms)}",
            *([f"  headers {show_headers(record.headers)}".replace("\n", "\n          ")] if record.headers else []),
            f"  key     {show_bytes(record.key)}",
            f"  value   {show_bytes(record.value)}",
        )
    )


def _as_fields(letter: DeadLetter) -> dict[str, Any]:
    return {
        "topic": letter.source.topic,
        "partition": letter.source.partition,
        "offset": letter.offset,
        "cluster": letter.source.cluster,
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
