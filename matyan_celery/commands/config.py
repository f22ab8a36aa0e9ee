"""``matyan-celery config``: the settings in force, and where each came from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from matyan_celery.commands.printing import printable
from tasks.settings import Settings, load_settings
from tasks.settings.kinds import show
from tasks.settings.sources import find_secret, read_given


@click.command(
    epilog="""\b
Examples:
  matyan-celery config
  matyan-celery config --given
  matyan-celery config --format json | jq -r '.STORAGE_URL.value'"""
)
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True)
@click.option("--given", "only_given", is_flag=True, help="Only what is not the default.")
def config(form: str, only_given: bool) -> None:
    """Show the settings in force, and where each came from.

    That is the environment, .env, a file (NAME_FILE) or the default. Secrets and passwords are masked. Exit code 2
    and a sentence each if something is wrong with them.
    """
    rows = describe_settings(load_settings(), Path(".env"))
    if only_given:
        rows = {name: row for name, row in rows.items() if row["from"] != "default"}
    if form == "json":
        click.echo(json.dumps(rows, indent=2))
        return
    values = {name: _as_text(row["value"]) for name, row in rows.items()}
    names = max(map(len, rows), default=0)
    width = min(max(map(len, values.values()), default=0), 50)
    for name, row in rows.items():
        click.echo(printable(f"{name:{names}}  {values[name]:{width}}  {row['from']}"))


def describe_settings(settings: Settings, env_file: Path | None) -> dict[str, dict[str, Any]]:
    """Value and origin of each setting, by its name in capitals, secrets masked.

    Args:
        settings: those in force.
        env_file: the file that they were read from, beside the environment.
    """
    given = read_given(Settings, env_file)
    rows = {}
    for name, field in Settings.model_fields.items():
        origin = "default"
        if name in given:
            # By another name than its own (a stock one, or NAME_FILE): that is what one would look for.
            by = f" ({given[name].name})" if given[name].name != name.upper() else ""
            origin = given[name].origin + by
        rows[name.upper()] = {"value": show(getattr(settings, name), find_secret(field)), "from": origin}
    return rows


def _as_text(value: Any) -> str:
    if value is None:
        return "(unset)"
    if value == "":
        return "(empty)"
    return value if isinstance(value, str) else json.dumps(value)
