"""A real beat on schedule files that it should not believe: it says so, and sends its jobs."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
import redis as redis_client

from demo.servers.process import wait_until
from demo.servers.product import BeatProcess
from demo.servers.redis import RedisServer
from tasks.app import make_app
from tasks.beat import WatchedScheduler
from tasks.schedule import make_schedule
from tasks.settings import load_settings

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

STATES = ("future", "cut", "nowhere")


def write_from_the_future(file: Path) -> None:
    """What a beat leaves that was stopped while its clock was ten years ahead."""
    settings = load_settings(None)
    with make_app(settings) as app:
        app.conf.beat_schedule = make_schedule(settings)
        scheduler = WatchedScheduler(app=app, schedule_filename=str(file), Producer=object)
        for entry in scheduler.schedule.values():
            entry.last_run_at += timedelta(days=3_650)
        scheduler.close()


@pytest.fixture
def beats(tmp_path: Path, redis: RedisServer) -> Iterator[dict[str, BeatProcess]]:
    """A beat for each state, not started, each with its own database of Redis."""
    made = {}
    for number, state in enumerate(STATES):
        folder = tmp_path / state
        folder.mkdir()
        settings = {
            "STORAGE_URL": f"sqlite:///{folder / 'store.db'}",
            "REDIS_URL": f"redis://127.0.0.1:{redis.port}/{number}",
            "LOG_LEVEL": "INFO",
        }
        made[state] = BeatProcess(folder, settings)
    yield made
    for beat in made.values():
        beat.kill()


def test_beat_sends_whatever_its_schedule_file_says(
    beats: dict[str, BeatProcess], tmp_path: Path, redis: RedisServer
) -> None:
    write_from_the_future(tmp_path / "future" / "beat-schedule")
    (tmp_path / "cut" / "beat-schedule").write_bytes(b'{"version": 1, "sent": {"outb')
    (tmp_path / "nowhere" / "beat-schedule").mkdir()
    for beat in beats.values():
        beat.launch()
    for number, beat in enumerate(beats.values()):
        with redis_client.Redis(port=redis.port, db=number) as client:
            wait_until(lambda client=client: client.llen("jobs") > 0, f"{beat.log} sends", seconds=120)  # type: ignore[misc]
    said = {state: beat.output() for state, beat in beats.items()}
    assert "the clock was wrong: jobs are noted as sent in the future" in said["future"]
    assert "cannot be read and is made anew" in said["cut"]
    assert "cannot be written: beat goes on" in said["nowhere"]
    for state, beat in beats.items():
        assert beat.stop() == 0
        assert "Traceback" not in beat.output(), state
        assert beat.output().count("the clock was wrong") == (state == "future")
