"""``matyan-celery dump`` and ``load``: a store as lines of JSON, and back."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from matyan_celery.commands.options import open_chosen, open_existing, settings_for, store_option
from storage.recorded import BadLineError, read_lines
from storage.scan import DIRECTORIES, Row, format_row, is_empty, parse_row, scan, write

if TYPE_CHECKING:
    from collections.abc import Iterator

    from storage.store import Store


@click.command(
    epilog="""\b
Examples:
  matyan-celery dump --store sqlite:///matyan.db > store.jsonl
  matyan-celery dump --directory data/runs | grep loss"""
)
@store_option
@click.option(
    "--directory",
    "directories",
    multiple=True,
    type=click.Choice(DIRECTORIES),
    help="Only this directory; repeatable. Otherwise all; our own records (cursors, dead letters) are in `bridge`.",
)
def dump(store_url: str | None, directories: tuple[str, ...]) -> None:
    """Print a store as JSON lines.

    One line a key, sorted by directory and key: dir, key_hex and value_hex say all; key and value are for
    reading. Stop bridge and workers first: pages are read one after the other, and of what is written meanwhile
    some may be in and some not.
    """
    with open_existing(settings_for(store_url)) as store:
        for directory in sorted(set(directories or DIRECTORIES)):
            for row in scan(store.engine, directory):
                sys.stdout.write(format_row(row) + "\n")


@click.command(
    epilog="""\b
Moving a store from the embedded engine to FoundationDB (bridge and workers stopped):
  matyan-celery dump --store sqlite:///matyan.db > store.jsonl
  matyan-celery load --store fdb:///etc/foundationdb/fdb.cluster store.jsonl"""
)
@store_option
@click.option("--force", is_flag=True, help="Write also into directories that hold keys already.")
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False, allow_dash=True))
def load(store_url: str | None, force: bool, file: Path) -> None:
    """Write a dump into a store.

    FILE is what `dump` printed; - is standard input, .gz is unpacked. Only dir, key_hex and value_hex are needed.
    A directory that already holds keys is refused. The whole file is checked before anything is written (a pipe, as
    standard input often is, can be read only once: there, what comes before a bad line is written).
    """
    if str(file) != "-" and file.is_file():
        for _ in read_lines(file, parse_row):
            pass
    count = 0
    with open_chosen(store_url) as store:

        def rows() -> Iterator[Row]:
            nonlocal count
            known: set[str] = set()
            for row in read_lines(file, parse_row):
                if row.directory not in known and not force:
                    _need_empty(store, row.directory)
                known.add(row.directory)
                yield row
                count += 1

        try:
            write(store.engine, rows())
        except BadLineError:
            click.echo(f"{count} keys came before the bad line; some or all of them are written", err=True)
            raise
    click.echo(f"{count} keys written")


def _need_empty(store: Store, directory: str) -> None:
    if not is_empty(store.engine, directory):
        msg = f"{directory} already holds keys in {store.engine.url}: name an empty store, or give --force"
        raise click.ClickException(msg)
