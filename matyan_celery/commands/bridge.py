"""``matyan-celery bridge`` and ``drain``."""

from __future__ import annotations

import sys

import click

from tasks.settings import load_settings


@click.command(
    epilog="""\b
Examples:
  KAFKA_BOOTSTRAP_SERVERS=kafka:9092 REDIS_URL=redis://redis:6379/0 matyan-celery bridge
  python -m bridge                                                     (the same)"""
)
@click.option(
    "--adopt",
    is_flag=True,
    help="Trust a commit of the consumer group that belongs to another Kafka cluster or store, and go on from it.",
)
def bridge(adopt: bool) -> None:
    """Run the bridge: Kafka to Celery's queues.

    Runs until SIGTERM or Ctrl-C. It waits for Kafka, Redis and the store, and says so. On SIGTERM it stops
    reading, waits for what is in flight, commits and leaves the group. Exit code 1: a person has to decide, the
    last log line says what.
    """
    from bridge.main import run

    sys.exit(run(load_settings(), adopt=adopt))


@click.command(
    epilog="""\b
Before going back to the stock workers:
  1. stop the bridge (SIGTERM), leave the Celery workers running
  2. matyan-celery drain
  3. stop the Celery workers, start the stock workers"""
)
def drain() -> None:
    """Come to rest, for the stock workers.

    After it they can go on from the group's commit. Applies all up to beyond what was ever applied, commits, and
    fences what may still lie in a queue. Stop the bridge first; the Celery workers must run. Ends by itself with
    exit code 0.
    """
    from bridge.main import drain as run_drain

    sys.exit(run_drain(load_settings()))
