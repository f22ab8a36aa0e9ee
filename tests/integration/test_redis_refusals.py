"""A Redis that is there and refuses: everything waits, says why, and goes on by itself when it is over."""

from __future__ import annotations

import json
import signal
import urllib.request
from base64 import b64encode
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from threading import Thread
from time import monotonic, time

import pytest

from demo.servers.kafka import KafkaServer
from demo.servers.process import Process, wait_until
from demo.servers.product import FlowerProcess
from demo.servers.redis import RedisServer
from tasks.app import make_app
from tasks.beat import WatchedScheduler
from tasks.health import Health
from tasks.meter import Meter
from tasks.metrics import Role
from tasks.queues import JOBS_QUEUE
from tasks.redis_answers import ANSWERS
from tasks.redis_state import REDIS, RedisState
from tasks.settings import Settings
from tests.conftest import Programs
from tests.integration.redis_trouble import TROUBLES
from tests.integration.traffic import all_numbers, log_records, produce, read_numbers, wait_applied

pytestmark = [pytest.mark.integration, pytest.mark.broker, pytest.mark.timeout(400)]

RUNS = 12
QUICK = {"STALL_SECONDS": "1", "STORAGE_TIMEOUT_SECONDS": "5"}
PASSWORD = "old"
# Redis 6.2 looks first whether a command writes, later ones whether the master is there.
ALSO_SAID = {"MASTERDOWN": ("READONLY",)}


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis that no other test uses, with a password."""
    with RedisServer(tmp_path / "redis", password=PASSWORD) as server:
        yield server


@pytest.mark.parametrize(
    "codes",
    [("READONLY", "MASTERDOWN", "BUSY"), ("MISCONF", "OOM"), ("WRONGPASS", "NOPERM", "MAXCLIENTS")],
    ids="-".join,
)
def test_all_wait_and_go_on(
    codes: tuple[str, ...],
    kafka: KafkaServer,
    own_redis: RedisServer,
    topic: str,
    group: str,
    programs: Programs,
    settings: dict[str, str],
    record_property: Callable[[str, object], None],
) -> None:
    settings["REDIS_URL"] = own_redis.url
    bridge, worker, beat = programs.bridge(**QUICK), programs.worker(concurrency=2, **QUICK), programs.beat(**QUICK)
    flower = programs.flower()
    running = [bridge, worker, beat, flower]
    for program in running:
        program.launch()
    for program in running:
        program.start()
    count = 20
    produce(kafka.bootstrap_servers, topic, log_records(RUNS, range(count)))
    wait_applied(kafka.bootstrap_servers, group, topic, seconds=60)
    for code in codes:
        produce(kafka.bootstrap_servers, topic, log_records(RUNS, range(count, count + 100)))
        waiting = programs.command("wait", "--for", "redis", "--timeout", "100")
        said = (code, *ALSO_SAID.get(code, ()))
        before = {program: len(program.output()) for program in (bridge, worker)}
        with TROUBLES[code](own_redis):
            for program, start in before.items():
                wait_until(partial(says, program, start, said), f"{program.name} says {code}", seconds=60)
            produce(kafka.bootstrap_servers, topic, log_records(RUNS, range(count + 100, count + 120)))
            status, doctor = programs.command("status", "--json"), programs.command("doctor")
            for command in (waiting, status, doctor):
                command.launch()
            waiting.wait_output("waiting: Redis", 60)
            for command in (status, doctor):
                assert command.wait(60) == 1, command.output()
            for command in (waiting, status, doctor):
                assert means(command.output(), said), command.output()
                assert "Traceback" not in command.output()
            assert any(means(sentence, said) for sentence in json.loads(status.output())["wrong"])
            ended = monotonic()
        assert waiting.wait(60) == 0, waiting.output()
        wait_applied(kafka.bootstrap_servers, group, topic, seconds=120)
        record_property(f"seconds after {code}", monotonic() - ended)
        heard = count_heartbeats(flower)
        wait_until(partial(hears, flower, heard), "Flower listens again", seconds=60)
        count += 120
        assert read_numbers(settings["STORAGE_URL"]) == all_numbers(RUNS, count)
        assert all(program.is_alive() for program in running)
    assert not any("Traceback" in program.output() for program in (bridge, worker, beat))


def test_all_end_in_the_midst_of_it(
    kafka: KafkaServer,
    own_redis: RedisServer,
    topic: str,
    group: str,
    programs: Programs,
    settings: dict[str, str],
    tmp_path: Path,
) -> None:
    """A pod that is moved while Redis is a replica is not killed after its time of grace."""
    settings["REDIS_URL"] = own_redis.url
    bridge, worker, beat = programs.bridge(**QUICK), programs.worker(concurrency=2, **QUICK), programs.beat(**QUICK)
    running = [bridge, worker, beat]
    worker.launch()
    bridge.start()
    worker.start()
    produce(kafka.bootstrap_servers, topic, log_records(RUNS, range(20)))
    wait_applied(kafka.bootstrap_servers, group, topic, seconds=60)
    with TROUBLES["READONLY"](own_redis):
        produce(kafka.bootstrap_servers, topic, log_records(RUNS, range(20, 40)))
        long_due = {"version": 1, "sent": {"outbox": {"at": time() - 3600, "times": 1}}}
        (tmp_path / "beat-schedule").write_text(json.dumps(long_due))
        beat.start()
        for program in running:
            program.wait_output('"code": "READONLY"', 60)
        for program in running:
            program.signal(signal.SIGTERM)
        assert [program.wait(60) for program in running] == [0, 0, 0]
    worker.launch()
    bridge.start()
    wait_applied(kafka.bootstrap_servers, group, topic, seconds=60)
    assert read_numbers(settings["STORAGE_URL"]) == all_numbers(RUNS, 40)


def says(program: Process, start: int, codes: Iterable[str]) -> bool:
    return any(f'"code": "{code}"' in program.output()[start:] for code in codes)


def means(text: str, codes: Iterable[str]) -> bool:
    return any(ANSWERS[code].meaning in text for code in codes)


def hears(flower: FlowerProcess, heard: int) -> bool:
    return count_heartbeats(flower) > heard


def count_heartbeats(flower: FlowerProcess) -> int:
    """How many of the workers' heartbeats it has heard: they come whether there is work or not."""
    login = f"Basic {b64encode(flower.login.encode()).decode()}"
    request = urllib.request.Request(f"{flower.url}/workers?json=1", headers={"Authorization": login})
    with urllib.request.urlopen(request, timeout=60) as answer:
        workers = json.load(answer)["data"]
    return sum(int(worker.get("worker-heartbeat", 0)) for worker in workers)


def is_said(health: Health, code: str) -> bool:
    return any(code in why for why in health.find_unready())


def test_beat_sends_what_is_due_when_redis_takes_it(
    own_redis: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And not when it is due the next time, which may be tomorrow."""
    monkeypatch.setenv("REDIS_URL", own_redis.url)
    health = Health(Role.BEAT, tmp_path, stale=60.0, needs={REDIS: 60.0})
    with make_app(Settings()) as app:
        scheduler = WatchedScheduler(app, schedule_filename=str(tmp_path / "schedule"))
        scheduler.redis = RedisState(Meter(), health)
        entry = scheduler.Entry("a job", "matyan.jobs.outbox", schedule=60.0, options={"queue": JOBS_QUEUE}, app=app)
        for code in ("OOM", "READONLY", "MISCONF"):
            with TROUBLES[code](own_redis):
                sending = Thread(target=scheduler.apply_entry, args=(entry, scheduler.producer))
                sending.start()
                wait_until(partial(is_said, health, code), f"{code} is said", seconds=60)
            sending.join(60)
            assert not sending.is_alive()
            assert health.find_unready() == []
        scheduler.close()
        with own_redis.client() as client:
            assert client.llen(JOBS_QUEUE) == 3


def test_a_channel_that_is_closed_already_is_a_lost_connection(
    own_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And no mistake of the worker's, of which it would end: seen when Redis was killed."""
    monkeypatch.setenv("REDIS_URL", own_redis.url)
    with make_app(Settings()) as app, app.connection() as connection:
        channel = connection.channel()
        channel._disconnect_pools()
        monkeypatch.setattr(channel, "connection", None)
        with pytest.raises(channel.connection_errors, match="is closed"), channel.conn_or_acquire():
            pass
        monkeypatch.undo()
