"""The users of Redis that the deploy guide gives: with exactly their rights everything works."""

from __future__ import annotations

import re
import urllib.parse
import urllib.request
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from demo.servers.kafka import KafkaServer
from demo.servers.process import wait_until
from demo.servers.redis import RedisServer
from demo.servers.s3 import VersityServer
from storage.cleanups import CleanupState
from tests.conftest import Programs
from tests.integration.control_traffic import Control, new_run
from tests.integration.traffic import all_numbers, log_records, produce, read_numbers, wait_applied

pytestmark = [pytest.mark.integration, pytest.mark.broker, pytest.mark.timeout(300)]

PAGE: Final = Path(__file__).parents[2] / "docs" / "how-to" / "deploy.md"
PASSWORD: Final = "of-the-test"
RUNS: Final = 12


def read_users() -> dict[str, list[str]]:
    """The page's rules, by role."""
    _, _, section = PAGE.read_text(encoding="utf-8").partition("### Users of Redis\n")
    lines = re.findall(r"^    (ACL SETUSER .*)$", section, re.MULTILINE)
    rules = [line.split()[2:] for line in lines]
    return {name.removeprefix("matyan-"): rule for name, *rule in rules}


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis that no other test uses, with the page's users."""
    with RedisServer(tmp_path / "redis") as server:
        yield server


def test_each_role_does_with_its_rights(
    kafka: KafkaServer,
    own_redis: RedisServer,
    s3: VersityServer,
    topic: str,
    group: str,
    programs: Programs,
    settings: dict[str, str],
    tmp_path: Path,
) -> None:
    users = read_users()
    assert set(users) == {"bridge", "worker", "beat", "flower", "command", "default"}
    settings |= {"STALL_SECONDS": "1", "CLEANUP_BACKOFF_SECONDS": "0.3", "CLEANUP_TRIES": "1"}
    control = Control(settings, s3, tmp_path)

    def url(role: str) -> str:
        return own_redis.url.replace("://", f"://matyan-{role}:{PASSWORD}@")

    with own_redis.client() as admin:
        for role, rule in users.items():
            name = "default" if role == "default" else f"matyan-{role}"
            admin.execute_command("ACL", "SETUSER", name, *(part.replace("PASSWORD", PASSWORD) for part in rule))
        bridge, worker = (
            programs.bridge(REDIS_URL=url("bridge")),
            programs.worker(concurrency=2, REDIS_URL=url("worker")),
        )
        beat = programs.beat(REDIS_URL=url("beat"), CRON_OUTBOX="* * * * *")
        flower = programs.flower(REDIS_URL=url("flower"))
        running = [bridge, worker, beat, flower]
        for program in running:
            program.launch()
        for program in running:
            program.start()
        settings["REDIS_URL"] = url("command")

        produce(kafka.bootstrap_servers, topic, log_records(RUNS, range(50)))
        wait_applied(kafka.bootstrap_servers, group, topic, seconds=60)
        assert read_numbers(settings["STORAGE_URL"]) == all_numbers(RUNS, 50)
        by_command, by_flower = new_run(), new_run()
        for run in (by_command, by_flower):
            control.put(run)
            control.event("run_deleted", run_id=run)
            control.wait(run, CleanupState.DONE)
        control.put(by_command)
        assert programs.run("cleanups", "requeue", "--run", by_command)[0] == 0
        control.wait(by_command, CleanupState.DONE, since=2)
        assert control.left(by_command) == []
        control.put(by_flower)
        ask_flower(
            flower.url, flower.login, "/api/task/async-apply/matyan.requeue_cleanup", f'{{"args": ["{by_flower}"]}}'
        )
        control.wait(by_flower, CleanupState.DONE, since=2)
        assert by_command not in ask_flower(flower.url, flower.login, "/api/workers?refresh=1")
        assert "ingest.00" in ask_flower(flower.url, flower.login, "/api/queues/length")

        code, report = programs.run("status", "--json")
        assert "NOPERM" not in report, report
        assert "worker@" in report
        assert code == 0, report
        for job in ("stalled-cleanups", "orphan-blobs", "outbox"):
            assert programs.run("jobs", "run", job)[0] == 0
        assert programs.run("wait", "--for", "redis", "--timeout", "10")[0] == 0
        doctor = programs.run("doctor")[1]
        assert "NOPERM" not in doctor
        wait_until(lambda: "Sending due task outbox" in beat.output(), "beat has sent a job", seconds=90)
        worker.restart()  # takes its queue of remote control away, and makes it anew
        assert bridge.stop() == 0
        refused = [
            {key: entry[key] for key in ("reason", "object", "username", "context")} for entry in admin.acl_log()
        ]
        if admin.info("server")["redis_version"].startswith("6."):  # has no rights for parts of CLIENT
            refused = [entry for entry in refused if entry["object"] != "client"]
        assert refused == []


def ask_flower(address: str, login: str, path: str, body: str | None = None) -> str:
    headers = {"Authorization": f"Basic {b64encode(login.encode()).decode()}"}
    request = urllib.request.Request(address + path, body.encode() if body else None, headers)
    with urllib.request.urlopen(request, timeout=60) as answer:
        return str(answer.read().decode())
