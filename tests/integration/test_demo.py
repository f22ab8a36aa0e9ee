"""The demo passes its own check on a machine with nothing but Python (with Java, `make demo` runs it)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.leaks import left_running

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

SECONDS = 500  # for a whole demo on a busy machine
ROOT = Path(__file__).parents[2]


def test_without_java_or_redis_on_the_path(tmp_path: Path) -> None:
    (tmp_path / "nothing").mkdir()
    environment = {**os.environ, "PATH": str(tmp_path / "nothing"), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "demo", "--epochs", "20"]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=SECONDS, check=False
    )
    assert done.returncode == 0, done.stdout[-3_000:] + done.stderr[-3_000:]
    assert "librdkafka's mock cluster (java and mvn not found)" in done.stdout
    assert "nothing lost, nothing twice" in done.stdout
    assert "2 cleanups: 1 failed, 1 done" in done.stdout
    assert "SlowDown" in done.stdout
    assert "1 requeued" in done.stdout
    assert "2 cleanups: 2 done" in done.stdout
    assert "blobs and both runs are gone" in done.stdout
    assert left_running(tmp_path) == []
