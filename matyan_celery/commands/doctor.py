"""``matyan-celery doctor``: every dependency is asked; a sentence each, and what to do."""

from __future__ import annotations

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final

import click

from matyan_celery.checks.blobs import look_at_blobs
from matyan_celery.checks.kafka import look_at_kafka
from matyan_celery.checks.redis import check_workers, look_at_redis
from matyan_celery.checks.store import look_at_store
from matyan_celery.commands.printing import printable
from tasks.settings import load_settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from matyan_celery.checks.finding import Finding
    from tasks.settings import Settings

    Check = Callable[[Settings], Iterable[Finding]]


def _alone(check: Callable[[Settings], Finding]) -> Check:
    return lambda settings: [check(settings)]


_CHECKS: Final[list[Check]] = [
    look_at_store,
    look_at_kafka,
    look_at_redis,
    _alone(check_workers),
    look_at_blobs,
]


@click.command(
    epilog="""\b
Examples:
  matyan-celery doctor
  matyan-celery doctor --json | jq -r '.[] | select(.well | not) | .remedy'"""
)
@click.option("--json", "as_json", is_flag=True, help="One JSON array.")
def doctor(as_json: bool) -> None:
    """Ask every dependency, and say what to do.

    Store, Kafka, its topics and groups, Redis, the clocks, workers and the blob store; all at once, within some
    seconds even if they are away. Store and blob store are given a probe to keep and to give back, Redis a write that
    changes nothing, Kafka nothing: it is asked how topics are kept. Where all are well and something is wrong, see
    `status`. Exit code 1 if anything is WRONG; a WARN is what will be one day.
    """
    findings = examine(load_settings())
    if as_json:
        click.echo(json.dumps([finding._asdict() for finding in findings], indent=2))
    else:
        for finding in findings:
            click.echo(printable(f"{finding.word:6} {finding.subject:8} {finding}"))
    sys.exit(0 if all(finding.well for finding in findings) else 1)


def examine(settings: Settings) -> list[Finding]:
    """All findings, in the order of the checks."""

    def run(check: Any) -> list[Finding]:
        return list(check(settings))

    with ThreadPoolExecutor(len(_CHECKS)) as pool:
        return [finding for findings in pool.map(run, _CHECKS) for finding in findings]
