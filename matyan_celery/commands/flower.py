"""``matyan-celery flower``: Flower with the page ``/recovery``, in one command."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import click

_CONFIG: Final = Path(__file__).parent.parent / "recovery" / "flowerconfig.py"


@click.command(
    context_settings={"ignore_unknown_options": True, "help_option_names": []},
    epilog="""\b
Examples:
  matyan-celery flower --port=5555 --basic_auth=user:password
  celery -A tasks flower --conf="$(matyan-celery flower --config-path)" --basic_auth=user:password""",
)
@click.option("--config-path", is_flag=True, help="Print the path of the file for Flower's --conf, and exit.")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def flower(config_path: bool, arguments: tuple[str, ...]) -> None:
    """Start Flower with a page for requeueing, at /recovery.

    Takes Flower's own options (--help lists them) and its configuration files. The page can only be read, not used,
    where Flower runs without authentication.
    """
    if config_path:
        click.echo(_CONFIG)
        return
    from celery.bin.celery import celery

    from matyan_celery.recovery.install import install

    install()
    celery(["-A", "tasks", "flower", *arguments], prog_name="celery", auto_envvar_prefix="CELERY")
