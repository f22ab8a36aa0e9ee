"""The demo passes its own check on a machine with nothing but Python (with Java, `make demo` runs it)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from demo.servers.foundationdb_programs import HOME_VARIABLE, find_foundationdb, missing_for_foundationdb
from tests.integration.leaks import left_running

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

SECONDS = 500  # for a whole demo on a busy machine
ROOT = Path(__file__).parents[2]


def test_without_java_or_redis_on_the_path(tmp_path: Path) -> None:
    said = run_demo(tmp_path)
    assert "librdkafka's mock cluster (java and mvn not found)" in said


def test_on_a_real_foundationdb(tmp_path: Path) -> None:
    """On the mock cluster too: what is new here is the store."""
    missing = missing_for_foundationdb()
    if missing is not None:
        pytest.skip(f"no FoundationDB: {missing}")
    library = find_foundationdb().library
    said = run_demo(tmp_path, "--store", "fdb", environment={} if library is None else {HOME_VARIABLE: str(library)})
    assert "starting FoundationDB, one process" in said
    assert "one for cleanups, and beat, on FoundationDB" in said


def run_demo(folder: Path, *options: str, environment: dict[str, str] | None = None) -> str:
    """Run a short demo with nothing on the path; it passes its own check and leaves nothing running. What it said."""
    (folder / "nothing").mkdir()
    environment = {**os.environ, **(environment or {}), "PATH": str(folder / "nothing"), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "demo", "--epochs", "20", *options]
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=SECONDS, check=False
    )
    assert done.returncode == 0, done.stdout[-3_000:] + done.stderr[-3_000:]
    assert "nothing lost, nothing twice" in done.stdout
    assert "2 cleanups: 1 failed, 1 done" in done.stdout
    assert "SlowDown" in done.stdout
    assert "1 requeued" in done.stdout
    assert "2 cleanups: 2 done" in done.stdout
    assert "blobs and both runs are gone" in done.stdout
    assert left_running(folder) == []
    return done.stdout
