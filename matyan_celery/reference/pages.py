"""Which pages there are, and whether those on disk are as the code is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from matyan_celery.reference.commands import write_commands
from matyan_celery.reference.metrics import write_metrics
from matyan_celery.reference.settings import write_settings
from matyan_celery.reference.tasks import write_tasks

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PAGES: Final[dict[str, Callable[[], str]]] = {
    "commands.md": write_commands,
    "metrics.md": write_metrics,
    "settings.md": write_settings,
    "tasks.md": write_tasks,
}


def write_pages(folder: Path) -> None:
    """Write all pages."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, write in PAGES.items():
        (folder / name).write_text(write(), encoding="utf-8")


def find_outdated(folder: Path) -> list[str]:
    """Names of the pages that are missing, or not as the code is."""
    return [
        name
        for name, write in PAGES.items()
        if not (folder / name).is_file() or (folder / name).read_text(encoding="utf-8") != write()
    ]
