"""`doctor`, `wait` and `health` against real servers that go and come; beat's metrics."""

from __future__ import annotations

import json
import signal
import socket
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from demo.servers.kafka import KafkaServer
from demo.servers.process import free_port, wait_until
from demo.servers.redis import RedisServer
from demo.servers.s3 import MotoServer
from storage.dead_letters import DeadLetter
from storage.store import open_store
from tests.conftest import Programs
from tests.integration.test_watching import Watched
from tests.unit.test_apply import SOURCE, batch

pytestmark = pytest.mark.integration


@pytest.fixture
def s3(tmp_path: Path, settings: dict[str, str]) -> Iterator[MotoServer]:
    """A server without a bucket; our programs are set to it."""
    with MotoServer(tmp_path / "s3") as server:
        settings |= server.settings()
        yield server


def examine(programs: Programs, **settings: str) -> tuple[int, dict[str, list[str]]]:
    """The doctor's exit code, and what is wrong: sentence and remedy by subject."""
    code, output = programs.run("doctor", "--json", **settings)
    wrong: dict[str, list[str]] = {}
    for finding in json.loads(output):
        if not finding["well"]:
            assert finding["remedy"]
            wrong.setdefault(finding["subject"], []).append(f"{finding['sentence']}: {finding['remedy']}")
    return code, wrong


def test_the_doctor_finds_what_is_missing_and_then_nothing(
    programs: Programs, settings: dict[str, str], kafka: KafkaServer, redis: RedisServer, s3: MotoServer
) -> None:
    # Nothing of ours runs, and there is no bucket; then one thing after the other is mended.
    code, wrong = examine(programs)
    assert code == 1
    assert wrong.keys() == {"groups", "workers", "s3"}
    assert len(wrong["groups"]) == 2
    assert wrong["groups"][0].startswith(f"no bridge is in the group '{settings['INGEST_GROUP']}': start one")
    assert wrong["workers"] == ["no worker answers: start some: celery -A tasks worker"]
    assert "there is no bucket 'matyan-artifacts'" in wrong["s3"][0]

    s3.make_bucket()
    bridge, worker = programs.bridge(), programs.worker()
    bridge.start()
    worker.start()
    wait_until(lambda: programs.run("health", "bridge", "--probe", "ready")[0] == 0, "the bridge is ready", seconds=60)
    code, wrong = examine(programs)
    assert (code, wrong) == (0, {})
    code, output = programs.run("doctor")
    assert code == 0
    warned = [line for line in output.splitlines() if not line.startswith("ok ")]
    assert all("the cluster has one broker" in line or "make room" in line for line in warned), output

    code, wrong = examine(programs, KAFKA_CONTROL_EVENTS_TOPIC="nowhere", INGEST_QUEUES="11")
    assert code == 1
    assert wrong.keys() == {"topics", "workers"}
    assert "no topic 'nowhere': make it, or look at KAFKA_CONTROL_EVENTS_TOPIC" in wrong["topics"][0]
    assert "no worker reads ingest.08, ingest.09, ingest.10" in wrong["workers"][0]


def test_the_doctor_names_each_server_that_is_away(programs: Programs, tmp_path: Path) -> None:
    nobody = free_port()
    code, wrong = examine(
        programs,
        STORAGE_URL=f"sqlite:///{tmp_path / 'no-such-folder' / 'store.db'}",
        KAFKA_BOOTSTRAP_SERVERS=f"127.0.0.1:{nobody}",
        REDIS_URL=f"redis://:hunter2@127.0.0.1:{nobody}/0",
        S3_ENDPOINT=f"http://127.0.0.1:{nobody}",
    )
    assert code == 1
    assert wrong.keys() == {"store", "kafka", "redis", "workers", "s3"}
    assert str(nobody) in wrong["kafka"][0]
    assert f"Redis at redis://:***@127.0.0.1:{nobody}/0 does not answer" in wrong["redis"][0]
    assert "hunter2" not in json.dumps(wrong)


def test_wait_waits_for_servers_to_come(
    programs: Programs, kafka: KafkaServer, redis: RedisServer, s3: MotoServer
) -> None:
    s3.make_bucket()
    s3.stop()
    redis.stop()
    waiting = programs.command("wait", "--for", "store,kafka,topics,redis,s3", "--timeout", "120")
    waiting.launch()
    waiting.wait_output("waiting: Redis at", 60)
    waiting.wait_output("waiting: S3 at", 60)
    assert waiting.is_alive()
    s3.start()
    s3.make_bucket()
    redis.start()
    assert waiting.wait(60) == 0
    assert "Redis at" in waiting.tail()


def test_wait_gives_up_with_a_sentence_each(programs: Programs, redis: RedisServer) -> None:
    redis.stop()
    code, output = programs.run("wait", "--for", "redis,store", "--timeout", "2")
    assert code == 1
    assert "not there after 2 s: Redis at" in output
    assert "look at REDIS_URL" in output
    code, output = programs.run("wait", "--for", "redis,moon")
    assert code == 2
    assert "moon cannot be waited for: choose from store, kafka, topics, redis, blobs, s3" in output


def test_health_tells_a_hung_process_from_a_living_one(programs: Programs, redis: RedisServer) -> None:
    for role, process in {
        "bridge": programs.bridge(HEARTBEAT_STALE_SECONDS="5"),
        "worker": programs.worker(HEARTBEAT_STALE_SECONDS="5"),
        "beat": programs.beat(HEARTBEAT_STALE_SECONDS="7"),
    }.items():

        def ask(probe: str, role: str = role) -> tuple[int, str]:
            return programs.run("health", role, "--probe", probe)

        assert ask("live")[0] == 1
        process.start()
        for probe in ("started", "live", "ready"):
            wait_until(lambda probe=probe: ask(probe)[0] == 0, f"{role} is {probe}", seconds=60)  # type: ignore[misc]
        process.signal(signal.SIGSTOP)
        wait_until(lambda: ask("live")[0] == 1, f"{role} is hung", seconds=60)
        assert "has not turned for" in ask("live")[1]
        process.signal(signal.SIGCONT)
        wait_until(lambda: ask("live")[0] == 0, f"{role} is alive again", seconds=60)
        process.stop()
        code, output = ask("live")
        assert code == 1
        assert "no heartbeat at" in output or "is gone" in output


def test_wait_does_not_wait_for_a_server_that_takes_connections_and_says_nothing(programs: Programs) -> None:
    began = time.monotonic()
    assert programs.run("wait", "--for", "store", "--timeout", "0")[0] == 0, "one look has the time for an answer"
    start = time.monotonic() - began
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        began = time.monotonic()
        code, output = programs.run("wait", "--for", "s3,store", "--timeout", "3", S3_ENDPOINT=endpoint)
    assert code == 1
    assert "s3 has not answered in the time that was left" in output
    assert time.monotonic() - began < start + 13  # a look has 5 seconds; the connection would be held for 20 and more


def test_beat_shows_what_waits_for_a_person_and_lives_without_redis(
    programs: Programs, settings: dict[str, str], redis: RedisServer
) -> None:
    with open_store(settings["STORAGE_URL"]) as store:
        record = batch(b"bad").records[0]
        letter = DeadLetter(SOURCE, 0, 0, "invalid", "no JSON", 1.0, "run", "", record.size)
        store.engine.transact(lambda transaction: store.dead_letters.keep(transaction, letter, record))
        for name in ("a" * 32, "b" * 32):
            store.engine.transact(partial(store.cleanups.ask, run=name, source="event", now=1.0))
        store.engine.transact(partial(store.cascades.ask, kind="project", uuid="p", now=1.0))
    redis.stop()
    watched = Watched(free_port())
    beat = programs.beat(METRICS_PORT=str(watched.port))
    beat.start()
    wait_until(watched.is_ready, "beat is ready", seconds=60)
    assert watched.probe("/livez")[0] == 200
    assert watched.sum("matyan_up", role="beat") == 1
    assert watched.sum("matyan_dead_letters", reason="invalid") == 1
    assert watched.sum("matyan_cleanups", state="pending") == 2
    assert watched.sum("matyan_cleanups", state="failed") == 0
    assert watched.sum("matyan_cascades", state="held") == 1
    assert watched.sum("matyan_outbox_events") == 0
    assert 0 <= watched.sum("matyan_ledger_age_seconds") < 60
    redis.start()
    beat.signal(signal.SIGTERM)
    beat.wait(30)
    assert watched.probe("/livez")[0] == 0


@pytest.mark.parametrize(("role", "queue"), [("cleaner", "cleanup"), ("jobs", "jobs")])
def test_a_worker_of_one_kind_of_work_calls_itself_by_it(
    programs: Programs, settings: dict[str, str], role: str, queue: str
) -> None:
    watched = Watched(free_port())
    worker = programs.worker(name=role, queues=[queue], METRICS_PORT=str(watched.port))
    worker.start()
    wait_until(watched.is_ready, "it is ready", seconds=60)
    assert watched.sum("matyan_up", role=role) == 1
    assert programs.run("health", role)[0] == 0
    assert programs.run("health", "worker")[0] == 0
