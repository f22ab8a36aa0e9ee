"""``matyan-celery health``: the exec probes. Imports little: they run every few seconds."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

import click

from tasks.heartbeat import PROBES, find_ailments, find_folder

# A worker that consumes no lanes calls itself by what it does: whoever asks for a worker means it too.
_ROLES: Final = {
    "bridge": ["bridge"],
    "worker": ["worker", "cleaner", "jobs"],
    "cleaner": ["cleaner"],
    "jobs": ["jobs"],
    "beat": ["beat"],
}


@click.command(
    epilog="""\b
Examples:
  matyan-celery health bridge
  matyan-celery health worker --probe ready"""
)
@click.argument("role", type=click.Choice(list(_ROLES)))
@click.option("--probe", type=click.Choice(PROBES), default="live", show_default=True, help="Which question.")
def health(role: str, probe: str) -> None:
    """Ask a process of this machine for its health.

    By its heartbeat file, for exec probes; the same is said over HTTP at METRICS_PORT: /livez, /readyz, /startupz.
    live: its loop turns, no dependency is asked. ready: what it needs answers, and it has its share of the work or
    stands by. started: its loop has turned once. Exit code 1 and the reasons if not.
    """
    ailments = find_ailments(find_folder(Path(".env")), _ROLES[role], probe)
    for ailment in ailments:
        click.echo(f"{role} is not {probe}: {ailment}", err=True)
    sys.exit(1 if ailments else 0)
