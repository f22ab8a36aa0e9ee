"""``matyan-celery``: one program for all that people and service managers do. Also ``python -m matyan_celery``."""

from __future__ import annotations

import importlib.metadata

import click

from matyan_celery.commands.bridge import bridge, drain
from matyan_celery.commands.cascades import cascades
from matyan_celery.commands.cleanups import cleanups
from matyan_celery.commands.config import config
from matyan_celery.commands.dead_letters import dead_letters
from matyan_celery.commands.dump import dump, load
from matyan_celery.commands.flower import flower
from matyan_celery.commands.jobs import jobs
from matyan_celery.commands.replay import replay
from matyan_celery.commands.status import status
from matyan_celery.commands.told import ToldGroup


@click.group(
    cls=ToldGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog="""\b
The workers are started with:
  celery -A tasks worker
Exit codes: 0 well, 1 something is wrong (it says what), 2 wrong usage or a wrong setting.""",
)
@click.version_option(importlib.metadata.version("matyan-celery"), prog_name="matyan-celery")
def cli() -> None:
    """Matyan's Kafka workers as Celery tasks: exactly once, in order per run.

    Settings come from the environment and from .env, for example STORAGE_URL, REDIS_URL, KAFKA_BOOTSTRAP_SERVERS.
    """


for _command in (bridge, drain, status, dead_letters, cleanups, flower, replay, dump, load, jobs, cascades, config):
    cli.add_command(_command)


def main() -> None:
    """Run the command of the command line, and exit."""
    cli(prog_name="matyan-celery")


if __name__ == "__main__":
    main()
