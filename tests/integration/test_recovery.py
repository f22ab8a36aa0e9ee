"""What has failed is seen and requeued: on the page in Flower, by its API, by Celery's command, on real servers."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
from base64 import b64encode
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlencode
from uuid import uuid4

import pytest

from demo.servers.process import wait_until
from demo.servers.product import FlowerProcess, clear_settings
from demo.servers.redis import RedisServer
from demo.servers.s3 import S3Server, VersityServer
from storage.batch import Epoch, Record, Source
from storage.cleanups import CleanupState
from storage.dead_letters import DeadLetter
from storage.ledger import Owner
from storage.store import Store, open_store
from tasks.queues import REQUEUE_CLEANUP_TASK, REQUEUE_DEAD_LETTER_TASK
from tests.conftest import Programs
from tests.integration.browser import Browser

pytestmark = pytest.mark.integration

SOURCE = Source("cluster", "data-ingestion", "topic-1", 2)
RUNS = [f"{number:x}f0c2d9a7b4c3d8e2f1a0b9c8d7e6f{number:03d}"[:32] for number in range(1, 5)]
DENIED = (
    "AccessDenied on 3 of 1,204 objects: An error occurred (AccessDenied) when calling the DeleteObjects operation: "
    "Access Denied.\nThe first of them:\n  {run}/checkpoints/epoch-003.pt\n  {run}/checkpoints/epoch-004.pt\n"
    "  {run}/figures/confusion.png"
)
PICTURE = Path(__file__).parents[2] / "docs" / "images" / "recovery.png"  # made anew with WRITE_PICTURES=1


class Bucket(NamedTuple):
    """A test's own bucket."""

    server: S3Server
    name: str

    def put(self, keys: Iterable[str]) -> None:
        self.server.put(keys, bucket=self.name)

    def keys(self, prefix: str = "") -> list[str]:
        return self.server.keys(prefix, self.name)


@pytest.fixture
def bucket(s3: VersityServer) -> Bucket:
    made = Bucket(s3, f"recovery-{uuid4().hex[:12]}")
    s3.make_bucket(made.name)
    return made


@pytest.fixture
def settings(redis: RedisServer, bucket: Bucket, tmp_path: Path) -> dict[str, str]:
    """Settings of programs that need no Kafka."""
    return {
        "STORAGE_URL": f"sqlite:///{tmp_path / 'store.db'}",
        "REDIS_URL": redis.url,
        "LOG_LEVEL": "INFO",
        **bucket.server.settings(bucket.name),
    }


@pytest.fixture
def store(settings: dict[str, str]) -> Iterator[Store]:
    with open_store(settings["STORAGE_URL"]) as opened:
        yield opened


def fail(store: Store, bucket: Bucket, *runs: str) -> None:
    """Cleanups that have failed, their blobs still there. Nobody ever knew the runs, so they may go."""
    began = time.time() - 9_000

    def work(transaction: Any) -> None:
        for number, run in enumerate(runs):
            now = began + 700 * number
            store.cleanups.ask(transaction, run, source="event", now=now)
            store.cleanups.begin(transaction, run, task_id="", token="token", now=now, lease=9.0)
            error = DENIED.format(run=run)
            store.cleanups.fail(transaction, run, token="token", error=error, tries=1, due=now, now=now + 600)

    store.engine.transact(work)
    for run in runs:
        bucket.put(f"{run}/checkpoints/epoch-{number:03d}.pt" for number in range(5))


def ask_and_hold(store: Store, run: str) -> None:
    def work(transaction: Any) -> None:
        store.cleanups.ask(transaction, run, source="event", now=time.time())
        store.cleanups.hold(transaction, run, reason="legal asked for these files", now=time.time())

    store.engine.transact(work)


def keep(store: Store, offset: int, run: str, *, reason: str = "bug") -> None:
    """A dead letter that applies when it is requeued."""
    value = {"type": "finish_run", "run_id": run, "timestamp": "2026-01-01T00:00:00Z", "payload": {}}
    data = json.dumps(value).encode()
    letter = DeadLetter(SOURCE, 0, offset, reason, f"boom at {offset}", 1.79e9, run, "finish_run", len(data))

    def work(transaction: Any) -> None:
        store.ledger.write_owner(transaction, SOURCE, Owner(Epoch(1, "e"), "ingestion-workers", 1))
        store.dead_letters.keep(transaction, letter, Record(offset, 0, None, data))

    store.engine.transact(work)


def state_of(store: Store, run: str) -> CleanupState | None:
    entry = store.engine.read(lambda transaction: store.cleanups.get(transaction, run))
    return None if entry is None else entry.state


def offsets(store: Store) -> list[int]:
    return [letter.offset for letter in store.dead_letters.each(store.engine)]


def call(flower: FlowerProcess, path: str, data: bytes | None = None, *, login: str = "demo:demo") -> tuple[int, str]:
    """Ask Flower without a browser; status and body."""
    headers = {"Authorization": f"Basic {b64encode(login.encode()).decode()}"} if login else {}
    request = urllib.request.Request(f"{flower.url}{path}", data, headers)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def apply_async(flower: FlowerProcess, task: str, *arguments: object, login: str = "demo:demo") -> int:
    body = json.dumps({"args": arguments}).encode()
    return call(flower, f"/api/task/async-apply/{task}", body, login=login)[0]


def start_both(programs: Programs, *, prefix: str = "") -> FlowerProcess:
    """A worker, and a Flower that hears of its tasks."""
    worker, flower = programs.worker(), programs.flower(prefix=prefix)
    worker.start()
    flower.start()
    worker.wait_output("Events of group {task} enabled", 60)
    return flower


def open_page(browser: Browser, flower: FlowerProcess, path: str = "/recovery") -> None:
    browser.open(flower.url.replace("://", f"://{flower.login}@") + path)
    browser.wait_text("Recovery")


class TestPage:
    def test_list_select_requeue_done(
        self, programs: Programs, store: Store, bucket: Bucket, browser: Browser, tmp_path: Path
    ) -> None:
        fail(store, bucket, *RUNS)
        for run in ("held-by-a-person", "another"):
            ask_and_hold(store, run)
        for offset in range(3):
            keep(store, offset, f"{offset:032x}")
        flower = start_both(programs)

        open_page(browser, flower)
        for run in RUNS:
            browser.wait_text(run)
        assert browser.find("#count-failed")[0].text == "4"
        assert browser.find("#count-letters")[0].text == "3"
        for box in browser.find('input[name="item"]')[:2]:
            box.click()
        assert browser.find('#requeue button[type="submit"]')[0].text == "Requeue 2"
        browser.find(".recovery-error summary")[0].click()
        assert f"{RUNS[0]}/figures/confusion.png" in browser.text()
        browser.driver.set_window_size(1_400, 1_240)
        browser.picture(PICTURE if os.environ.get("WRITE_PICTURES") else tmp_path / "recovery.png")

        browser.find('#requeue button[type="submit"]')[0].click()
        browser.wait_text(f"{RUNS[0]}: requeued")
        wait_until(
            lambda: [state_of(store, run) for run in RUNS[:2]] == [CleanupState.DONE] * 2, "both are done", seconds=60
        )
        assert bucket.keys(f"{RUNS[0]}/") + bucket.keys(f"{RUNS[1]}/") == []
        assert [state_of(store, run) for run in RUNS[2:]] == [CleanupState.FAILED] * 2
        assert len(bucket.keys(f"{RUNS[2]}/")) == 5
        assert state_of(store, "another") is CleanupState.HELD

        open_page(browser, flower, "/recovery?show=done")
        browser.wait_text(RUNS[0])
        browser.find(".recovery-name a")[0].click()
        browser.wait_text("5 objects")
        task = browser.find(".detail-row a")  # Flower has seen the task and links to its page
        assert len(task) == 1
        task[0].click()
        browser.wait_text("matyan.cleanup")
        assert browser.complaints() == []

    def test_requeue_all(self, programs: Programs, store: Store, bucket: Bucket, browser: Browser) -> None:
        fail(store, bucket, *RUNS)
        ask_and_hold(store, "held-by-a-person")
        for offset in range(120):
            keep(store, offset, f"{offset:032x}", reason="bug" if offset else "invalid")
        flower = start_both(programs, prefix="inside")

        open_page(browser, flower, "/recovery?show=failed")
        browser.find("#requeue-all")[0].click()
        browser.wait_text("A worker requeues them all")
        wait_until(lambda: {state_of(store, run) for run in RUNS} == {CleanupState.DONE}, "all are done", seconds=60)
        assert bucket.keys() == []

        open_page(browser, flower, "/recovery?show=held")
        browser.find("#requeue-all")[0].click()
        browser.wait_text("Those that a person holds are left, for their own pages.")

        open_page(browser, flower, "/recovery?show=letters&reason=bug")
        browser.wait_text("Requeue all 119")
        browser.find("#requeue-all")[0].click()
        browser.wait_text("A worker requeues them all")
        wait_until(lambda: offsets(store) == [0], "all with this reason are applied", seconds=60)
        assert state_of(store, "held-by-a-person") is CleanupState.HELD

    def test_search(self, programs: Programs, store: Store, browser: Browser) -> None:
        for offset in range(60):
            keep(store, offset, f"run-{offset}")
        flower = programs.flower()
        flower.start()
        open_page(browser, flower, "/recovery?show=letters")
        assert len(browser.find('input[name="item"]')) == 50
        browser.find('input[name="find"]')[0].send_keys("run-42")
        browser.find('.recovery-search button[type="submit"]')[0].click()
        browser.wait_text("1 shown")
        assert browser.find(".recovery-name")[0].text == "run-42"
        box = browser.find('input[name="find"]')[0]
        box.clear()
        box.send_keys("boom at 7")
        browser.run("document.querySelector('select[name=how]').value = 'text'")
        browser.find('.recovery-search button[type="submit"]')[0].click()
        browser.wait_text("60 looked at")
        assert [row.text for row in browser.find(".recovery-name")] == ["run-7"]

    def test_a_forged_form_and_a_stranger_are_refused(self, programs: Programs, store: Store, bucket: Bucket) -> None:
        fail(store, bucket, RUNS[0])
        flower = programs.flower()
        flower.start()
        form = urlencode({"item": json.dumps(["cleanup", RUNS[0]])}).encode()
        assert call(flower, "/recovery/requeue", form)[0] == 403
        assert call(flower, "/recovery/requeue", form, login="")[0] in {401, 403}
        assert call(flower, "/recovery", login="demo:wrong")[0] == 401
        assert call(flower, "/recovery", login="")[0] == 401
        status, body = call(flower, "/recovery")
        assert (status, RUNS[0] in body) == (200, True)
        assert state_of(store, RUNS[0]) is CleanupState.FAILED

    def test_an_open_flower_only_shows(
        self, programs: Programs, store: Store, bucket: Bucket, browser: Browser
    ) -> None:
        fail(store, bucket, RUNS[0])
        flower = programs.flower(login="")
        flower.start()
        browser.open(f"{flower.url}/recovery")
        browser.wait_text("Flower runs without authentication")
        assert RUNS[0] in browser.text()
        assert not browser.find("#requeue-all")[0].is_enabled()

    def test_is_there_before_the_store(self, programs: Programs) -> None:
        flower = programs.flower()
        flower.start()
        status, body = call(flower, "/recovery")
        assert (status, "there is no store at" in body) == (503, True)
        assert call(flower, "/tasks")[0] == 200


class TestApi:
    def test_requeues_cleanups_and_letters(self, programs: Programs, store: Store, bucket: Bucket) -> None:
        fail(store, bucket, *RUNS)
        keep(store, 7, RUNS[0])
        flower = start_both(programs)
        assert apply_async(flower, REQUEUE_CLEANUP_TASK, RUNS[0], login="") == 401
        assert apply_async(flower, REQUEUE_CLEANUP_TASK, RUNS[0]) == 200
        wait_until(lambda: state_of(store, RUNS[0]) is CleanupState.DONE, "the cleanup is done", seconds=60)
        assert apply_async(flower, REQUEUE_DEAD_LETTER_TASK, "data-ingestion", 2, 7) == 200
        wait_until(lambda: offsets(store) == [], "the letter is applied", seconds=60)
        assert state_of(store, RUNS[1]) is CleanupState.FAILED

    def test_tells_what_became_of_it(self, programs: Programs, store: Store) -> None:
        flower = start_both(programs)
        status, body = call(
            flower, f"/api/task/async-apply/{REQUEUE_CLEANUP_TASK}", json.dumps({"args": ["nobody"]}).encode()
        )
        assert status == 200
        task = json.loads(body)["task-id"]
        wait_until(
            lambda: "there is no cleanup of this run" in call(flower, f"/api/task/info/{task}")[1],
            "Flower has the result",
            seconds=60,
        )


class TestCeleryCommand:
    def run(self, settings: dict[str, str], folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, **clear_settings(settings)}
        return subprocess.run(
            [sys.executable, "-m", "celery", "-A", "tasks", *arguments],
            cwd=folder,
            env={name: value for name, value in environment.items() if value is not None},
            capture_output=True,
            text=True,
            check=False,
        )

    def test_has_our_commands(self, settings: dict[str, str], store: Store, bucket: Bucket, tmp_path: Path) -> None:
        fail(store, bucket, RUNS[0])
        keep(store, 7, RUNS[0])
        listed = self.run(settings, tmp_path, "cleanups", "list")
        assert re.search(rf"{RUNS[0]}\s+failed", listed.stdout), listed
        assert "requeued" in self.run(settings, tmp_path, "cleanups", "requeue", "--all").stdout
        assert state_of(store, RUNS[0]) is CleanupState.PENDING
        assert "1 applied" in self.run(settings, tmp_path, "dead-letters", "requeue", "--all").stdout
        assert offsets(store) == []

    def test_errors_are_sentences(self, settings: dict[str, str], tmp_path: Path) -> None:
        ended = self.run({**settings, "STORAGE_URL": "sqlite:///nowhere.db"}, tmp_path, "cleanups", "list")
        assert ended.returncode == 1
        assert "Error: there is no store at sqlite:///nowhere.db" in ended.stderr
        assert "Traceback" not in ended.stderr

    def test_starts_flower_with_the_file_that_we_name(self, programs: Programs, store: Store) -> None:
        command = [sys.executable, "-m", "matyan_celery", "flower", "--config-path"]
        named = subprocess.run(command, capture_output=True, text=True, check=True)
        keep(store, 7, RUNS[0])
        flower = programs.flower(config=Path(named.stdout.strip()))
        flower.start()
        status, body = call(flower, "/recovery")
        assert (status, RUNS[0] in body) == (200, True)
