"""``matyan-celery``: one program for all that people and service managers do. Also ``python -m matyan_celery``."""

from __future__ import annotations

import importlib.metadata
import sys

import click

from matyan_celery.commands.bridge import bridge, drain
from matyan_celery.commands.dead_letters import dead_letters
from matyan_celery.commands.dump import dump, load
from matyan_celery.commands.replay import replay
from matyan_celery.commands.status import status
from storage.errors import StorageError
from storage.recorded import BadLineError
from tasks.settings import WrongSettingError


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(importlib.metadata.version("matyan-celery"))
def cli() -> None:
    """Matyan's Kafka workers as Celery tasks: exactly once, in order per run.

    Settings come from the environment and from .env; --store overrides STORAGE_URL where a command has it.
    The workers themselves are started with: celery -A tasks worker
    """


for command in (bridge, drain, status, dead_letters, replay, dump, load):
    cli.add_command(command)


def main() -> None:
    """Run a command; what a person can mend ends in one sentence, not in a traceback."""
    try:
        cli()
    except (StorageError, WrongSettingError, BadLineError, OSError) as error:
        click.echo(f"matyan-celery: {error}", err=True)
        sys.exit(2 if isinstance(error, WrongSettingError) else 1)


if __name__ == "__main__":
    main()
