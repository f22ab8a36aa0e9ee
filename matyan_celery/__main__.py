"""``matyan-celery``: one program for all that people and service managers do. Also ``python -m matyan_celery``."""

from __future__ import annotations

import importlib.metadata

import click

from matyan_celery.lazy import LazyGroup

_COMMANDS = "matyan_celery.commands"


@click.group(
    cls=LazyGroup,
    places={
        "bridge": f"{_COMMANDS}.bridge:bridge",
        "cascades": f"{_COMMANDS}.cascades:cascades",
        "cleanups": f"{_COMMANDS}.cleanups:cleanups",
        "config": f"{_COMMANDS}.config:config",
        "dead-letters": f"{_COMMANDS}.dead_letters:dead_letters",
        "doctor": f"{_COMMANDS}.doctor:doctor",
        "drain": f"{_COMMANDS}.bridge:drain",
        "dump": f"{_COMMANDS}.dump:dump",
        "flower": f"{_COMMANDS}.flower:flower",
        "health": f"{_COMMANDS}.health:health",
        "jobs": f"{_COMMANDS}.jobs:jobs",
        "load": f"{_COMMANDS}.dump:load",
        "replay": f"{_COMMANDS}.replay:replay",
        "status": f"{_COMMANDS}.status:status",
        "wait": f"{_COMMANDS}.wait:wait",
    },
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


def main() -> None:
    """Run the command of the command line, and exit."""
    cli(prog_name="matyan-celery")


if __name__ == "__main__":
    main()
