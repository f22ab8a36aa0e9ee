"""Fetch and build what the tests run beside the product, before they begin: ``python -m tests.prepare``.

Each test would do it for itself; but then the first ones wait for minutes without a word, and their time may run out.
What cannot be had here is told, and the tests that need it are skipped with the reason, or fail with it.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from functools import partial

import pytest

from demo.servers.foundationdb_programs import find_foundationdb
from demo.servers.go_programs import FAKE_GCS, VERSITYGW, build_program
from demo.servers.kafka_jars import fetch_kafka
from demo.servers.npm_programs import AZURITE, fetch_program
from demo.servers.process import DidNotStart
from demo.servers.stock_environment import make_stock_environment
from tests.deploy.tools import HELM, KUBECONFORM, find_compose_reader, find_model_checker

NEEDED: dict[str, Callable[[], object]] = {
    "Kafka (Maven Central)": fetch_kafka,
    "FoundationDB (FDB_HOME, the path, or shared/servers/foundationdb)": find_foundationdb,
    "the stock Matyan packages (pip)": make_stock_environment,
    "versitygw, an S3 server (Go)": partial(build_program, VERSITYGW),
    "fake-gcs-server (Go)": partial(build_program, FAKE_GCS),
    "Azurite (npm)": partial(fetch_program, AZURITE, ""),
    "helm (Go)": partial(build_program, HELM),
    "kubeconform (Go)": partial(build_program, KUBECONFORM),
    "a reader of compose files (Go)": find_compose_reader,
    "models of Kubernetes' custom resources (npm)": find_model_checker,
}
AT_A_TIME = 2  # some wait for the network, some for the compiler
SLOW = 5.0  # seconds; what is faster was in the cache


def main() -> None:
    """Have all of it, and say what took its time and what is missing."""
    began, missing = time.monotonic(), 0
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        asked = {pool.submit(have, get): name for name, get in NEEDED.items()}
        for done in as_completed(asked):
            seconds, trouble = done.result()
            if trouble is not None:
                missing += 1
                say(f"   not here: {asked[done]}: {trouble}")
            elif seconds > SLOW:
                say(f"   {asked[done]}: {seconds:.0f} s, kept for the next time")
    but = f", but for {missing} of {len(NEEDED)}: their tests say so" if missing else ""
    say(f"== what the tests need is there{but}; after {time.monotonic() - began:.0f} s")


def have(get: Callable[[], object]) -> tuple[float, str | None]:
    """How long it took, and why it cannot be had."""
    began = time.monotonic()
    try:
        get()
    # A tool that cannot be had for whatever reason must not keep the tests that do without it from running.
    except (DidNotStart, OSError, subprocess.SubprocessError, pytest.skip.Exception) as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        return 0.0, " ".join(lines[:2])  # what failed, and the first that the tool said
    return time.monotonic() - began, None


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
