"""``matyan-celery bridge`` and ``drain``."""

from __future__ import annotations

import sys

import click

from tasks.settings import load_settings


@click.command(epilog="The same as: python -m bridge")
@click.option(
    "--adopt",
    is_flag=True,
    help="Trust a commit of the consumer group that belongs to another Kafka cluster or store, and go on from it.",
)
def bridge(adopt: bool) -> None:
    """Run the bridge: Kafka to Celery queues, until SIGTERM or Ctrl-C."""
    from bridge.main import run

    sys.exit(run(load_settings(), adopt=adopt))


@click.command()
def drain() -> None:
    """Bring everything to rest, so that the stock workers can take over.

    Applies all that was ever begun, commits, and fences what may still lie in a queue. Stop the bridge first; the
    Celery workers must run. Ends by itself with exit code 0.
    """
    from bridge.main import drain as run_drain

    sys.exit(run_drain(load_settings()))
