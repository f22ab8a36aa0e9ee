"""`make demo UI=1`: the stock user interface shows the demo's runs, and what the stock client logs; Ctrl-C ends all."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver.common.keys import Keys

from demo.deletion import DELETED
from demo.servers.process import Process, wait_until
from demo.servers.stock_environment import NEEDED, missing_for_stock
from demo.training import PLANS
from tests.integration.browser import Browser
from tests.integration.leaks import left_running

pytestmark = [pytest.mark.integration, pytest.mark.stock, pytest.mark.timeout(900)]

ROOT = Path(__file__).parents[2]
EPOCHS = 20


class Demo(Process):
    """``python -m demo --ui``, ready once it waits for Ctrl-C."""

    def __init__(self, folder: Path) -> None:
        command = [sys.executable, "-m", "demo", "--ui", "--epochs", str(EPOCHS)]
        environment = {"PYTHONPATH": str(ROOT), "COLUMNS": "300"}
        super().__init__(
            "demo", command, folder / "demo.log", environment=environment, folder=folder, ready_seconds=600
        )

    def is_ready(self) -> bool:
        return "Ctrl-C ends it" in self.output()

    def cleanups(self) -> dict[str, Any]:
        """What ``matyan-celery cleanups list`` says, by run."""
        done = subprocess.run(
            [sys.executable, "-m", "matyan_celery", "cleanups", "list", "--all", "--json"],
            cwd=self.log.parent / ".demo",
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        )
        return {entry["run"]: entry for entry in map(json.loads, done.stdout.splitlines())}

    def find(self, pattern: str) -> str:
        """What it printed, by a pattern with one group."""
        found = re.search(pattern, self.output())
        assert found is not None, f"{pattern} is not in:\n{self.tail(60)}"
        return found[1]


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Demo]:
    missing = missing_for_stock()
    if missing is not None:
        pytest.skip(missing)
    with Demo(tmp_path / "demo") as running:
        yield running


def test_it_shows_the_demos_runs_and_the_clients(demo: Demo, browser: Browser, pictures: Path) -> None:
    address = demo.find(r"the user interface +(http://\S+)")
    _see_the_runs(browser, address)
    _see_a_chart(browser, address)
    browser.picture(pictures / "ui.png")
    run = _log_a_run(demo.find(r"log a run of your own +(.+)"))
    _see_the_clients_run(browser, address, run)
    _delete_it(browser, address, run, demo.cleanups)
    _see_what_waits(browser, demo.find(r"what waits for you +(http://\S+)"))
    _stop(demo)


def _see_the_runs(browser: Browser, address: str) -> None:
    browser.open(f"{address}/runs")
    for plan in PLANS[DELETED:]:
        browser.wait_text(plan.name)
    assert "spirals and blobs" in browser.text()
    assert not [plan.name for plan in PLANS[:DELETED] if plan.name in browser.text()]


def _see_a_chart(browser: Browser, address: str) -> None:
    """The metrics explorer draws a chart for each metric that is chosen, with a line for each sequence."""
    browser.open(f"{address}/metrics")
    browser.wait_element("button.MuiButton-containedPrimary")
    _press(browser, "Metrics")
    for name in ("loss", 'accuracy subset="val"'):
        browser.wait_element("[role=option]")
        next(option for option in browser.find("[role=option]") if option.text == name).click()
    browser.find("body")[0].send_keys(Keys.ESCAPE)
    _press(browser, "Search")
    sequences = 3 * len(PLANS[DELETED:])  # the loss of training and of validation, and the accuracy of validation
    wait_until(lambda: len(browser.find("path.Line")) == sequences, f"{sequences} lines", seconds=60, pause=0.2)
    browser.wait_text("Show Table Diff")  # the table below the charts comes last
    wait_until(lambda: "Processing" not in browser.text(), "the charts are shown", seconds=60, pause=0.2)
    assert all(len((line.get_attribute("d") or "").split("L")) >= EPOCHS for line in browser.find("path.Line"))


def _press(browser: Browser, text: str, css: str = "button") -> None:
    next(button for button in browser.find(css) if button.text.strip() == text).click()


def _log_a_run(command: str) -> str:
    """Start the client as the demo says; the run's id."""
    *addresses, python, script = shlex.split(command)
    given = dict(address.split("=", 1) for address in addresses)
    done = subprocess.run(
        [python, script, "--steps", "60", "--pause", "0"],
        env={**os.environ, **given},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
        cwd=ROOT,
    )
    found = re.search(r"logged run ([0-9a-f]{32})", done.stdout)
    assert found is not None, done.stdout + done.stderr
    return found[1]


def _see_the_clients_run(browser: Browser, address: str, run: str) -> None:
    """From client to frontier, Kafka, bridge, worker and store, back through the backend; its image from S3."""
    browser.open(f"{address}/runs/{run}/metrics")
    browser.wait_text("client script")
    wait_until(lambda: len(browser.find("path.Line")) == 3, "its metrics are drawn", seconds=60, pause=0.2)
    browser.open(f"{address}/runs/{run}/logs")
    browser.wait_text("step 40: loss")
    browser.open(f"{address}/runs/{run}/images")
    browser.wait_element("img[src^='data:image']")


def _delete_it(browser: Browser, address: str, run: str, cleanups: Callable[[], dict[str, Any]]) -> None:
    """A person deletes it on its page; the control path takes its blobs out of S3."""
    browser.open(f"{address}/runs/{run}/settings")
    browser.wait_text("Delete")
    _press(browser, "Delete")
    browser.wait_element("[role=dialog]")
    _press(browser, "Delete", "[role=dialog] button")
    wait_until(lambda: cleanups().get(run, {}).get("state") == "done", "its blobs are deleted", seconds=120, pause=0.5)
    assert cleanups()[run]["objects"] == 2, "its image and its script"
    browser.open(f"{address}/runs")
    browser.wait_text(PLANS[-1].name)
    assert "client script" not in browser.text()


def _see_what_waits(browser: Browser, address: str) -> None:
    """Flower's page of what waits for a person: of the demo, only the one bad record."""
    browser.open(address.replace("http://", "http://demo:demo@"))
    assert browser.wait_element("#count-letters").text == "1"
    assert browser.wait_element("#count-failed").text == "0"


def _stop(demo: Demo) -> None:
    """Ctrl-C: it ends well, and nothing that it started is left."""
    demo.signal(signal.SIGINT)
    assert demo.wait(60) == 0, demo.tail(60)  # it takes 15 s, unless the machine has a lot else to do
    assert "stopping everything" in demo.output()
    assert left_running(demo.log.parent) == []


@pytest.mark.skipif(f"python{sys.version_info.major}.{sys.version_info.minor}" in NEEDED, reason="this one would do")
def test_without_a_newer_python_it_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "nothing").mkdir()
    environment = {"PATH": str(tmp_path / "nothing"), "PYENV_ROOT": str(tmp_path), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-m", "demo", "--ui"],
        cwd=tmp_path,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "need Python 3.12 or 3.13" in " ".join(done.stdout.split())
    assert "pyenv install 3.12" in done.stdout
