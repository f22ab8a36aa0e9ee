"""``matyan-celery`` as a person calls it: one command, its answer, its exit code."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

from demo.servers.product import clear_settings

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


def run_command(settings: Mapping[str, str], folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """``matyan-celery`` with some arguments, configured by ``settings`` alone.

    Raises:
        subprocess.TimeoutExpired: it still ran after 90 seconds.
    """
    given = {**os.environ, **clear_settings(settings)}
    environment = {name: value for name, value in given.items() if value is not None}
    command = [sys.executable, "-m", "matyan_celery", *arguments]
    return subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, timeout=90, check=False)
