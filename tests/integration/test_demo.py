"""The demo passes its own check on a machine with nothing but Python (with Java, `make demo` runs it)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]

ROOT = Path(__file__).parents[2]


def test_without_java_or_redis_on_the_path(tmp_path: Path) -> None:
    (tmp_path / "nothing").mkdir()
    environment = {**os.environ, "PATH": str(tmp_path / "nothing"), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "demo", "--epochs", "20"]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 0, done.stdout[-3_000:] + done.stderr[-3_000:]
    assert "librdkafka's mock cluster (java and mvn not found)" in done.stdout
    assert "nothing lost, nothing twice" in done.stdout
