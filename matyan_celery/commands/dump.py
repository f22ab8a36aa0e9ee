"""``matyan-celery dump`` and ``load``: a store as lines of JSON, and back."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from matyan_celery.commands.options import open_chosen, store_option
from storage.recorded import BadLineError, open_text
from storage.scan import DIRECTORIES, Row, format_row, is_empty, parse_row, scan, write

if TYPE_CHECKING:
    from collections.abc import Iterator


@click.command(epilog="Example: matyan-celery dump --store sqlite:///matyan.db > store.jsonl")
@store_option
@click.option(
    "--directory",
    "directories",
    multiple=True,
    type=click.Choice(DIRECTORIES),
    help="Only this directory; repeatable. Otherwise all, with our own records (cursors, dead letters) in `bridge`.",
)
def dump(store_url: str | None, directories: tuple[str, ...]) -> None:
    """Print a store, one JSON line a key, sorted by directory and key.

    dir, key_hex and value_hex say all; key and value are for reading. Stop bridge and workers first: pages are read
    one after the other, and what is written meanwhile may be in some and not in others.
    """
    with open_chosen(store_url) as store:
        for directory in sorted(directories or DIRECTORIES):
            for row in scan(store.engine, directory):
                sys.stdout.write(format_row(row) + "\n")


@click.command(epilog="Example: matyan-celery load --store fdb:///etc/foundationdb/fdb.cluster store.jsonl")
@store_option
@click.option("--force", is_flag=True, help="Write also into directories that hold keys already.")
@click.argument("file", type=click.Path(path_type=Path, allow_dash=True))
def load(store_url: str | None, force: bool, file: Path) -> None:
    """Write what `dump` printed into a store; - is standard input.

    Only dir, key_hex and value_hex are needed. A directory that already holds keys is refused.
    """
    with open_chosen(store_url) as store:
        known: dict[str, bool] = {}

        def rows() -> Iterator[Row]:
            for row in _read(file):
                if row.directory not in known:
                    known[row.directory] = force or is_empty(store.engine, row.directory)
                if not known[row.directory]:
                    msg = f"{row.directory} already holds keys in {store.engine.url}: use an empty store, or --force"
                    raise click.ClickException(msg)
                yield row

        count = write(store.engine, rows())
    click.echo(f"{count} keys written")


def _read(file: Path) -> Iterator[Row]:
    with open_text(file) as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                try:
                    yield parse_row(line)
                except ValueError as error:
                    msg = f"{file}, line {number}: {error}"
                    raise BadLineError(msg) from error
