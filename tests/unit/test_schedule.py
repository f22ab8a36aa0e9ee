"""Cron lines become beat's schedule, or a wrong setting that says what is wrong."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from structlog.testing import capture_logs

from tasks.app import make_app
from tasks.beat import WatchedScheduler
from tasks.celeryconfig import configure, find_queues
from tasks.cron import Cron, parse_cron
from tasks.job_list import JOBS
from tasks.queues import CASCADE_TASK, CLEANUP_QUEUE, CLEANUP_TASK, JOBS_QUEUE, OUTBOX_TASK, REQUEUE_TASKS
from tasks.schedule import make_schedule, schedule_file
from tasks.schedule_file import ScheduleFile
from tasks.settings import Settings, WrongSettingError, load_settings

HOUR, DAY = 3600.0, 86400.0


def parsed(line: str) -> Cron:
    cron = parse_cron(line)
    assert cron is not None
    return cron


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.mark.parametrize(
    ("line", "minutes", "hours", "gap"),
    [
        ("* * * * *", set(range(60)), set(range(24)), 60.0),
        ("0 3 * * *", {0}, {3}, DAY),
        ("*/20 * * * *", {0, 20, 40}, set(range(24)), 1200.0),
        ("5,10-12 0 * * *", {5, 10, 11, 12}, {0}, 60.0),
        ("50 23,1 * * *", {50}, {1, 23}, 2 * HOUR),
        ("10/25 8-18/5 * * *", {10, 35}, {8, 13, 18}, 1500.0),
        ("  0\t4 * * 0 ", {0}, {4}, DAY),
    ],
)
def test_reads_minutes_and_hours(line: str, minutes: set[int], hours: set[int], gap: float) -> None:
    cron = parsed(line)
    assert (set(cron.minutes), set(cron.hours), cron.gap) == (minutes, hours, gap)


def test_reads_days() -> None:
    cron = parsed("0 0 1,15 jan-mar,DEC 7,Mon-wed")
    assert sorted(cron.days) == [1, 15]
    assert sorted(cron.months) == [1, 2, 3, 12]
    assert sorted(cron.weekdays) == [0, 1, 2, 3]
    assert parsed("0 0 * * *").weekdays == set(range(7))
    assert parsed("0 0 29 2 *").days == {29}


@pytest.mark.parametrize("line", ["", "  "])
def test_nothing_is_never(line: str) -> None:
    assert parse_cron(line) is None


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("0 3 * *", "use five fields"),
        ("0 3 * * * *", "use five fields"),
        ("@daily", "use five fields"),
        ("60 3 * * *", "minute: '60' is not a number from 0 to 59"),
        ("0 24 * * *", "hour: '24' is not a number from 0 to 23"),
        ("0 3 0 * *", "day of month: '0' is not"),
        ("0 3 * 13 *", "month: '13' is not a number from 1 to 12 or a name"),
        ("0 3 * * 8", "day of week: '8' is not"),
        ("0 3 * * mo", "day of week: 'mo' is not"),
        ("30-10 3 * * *", "minute: '30-10' ends before it begins"),
        ("*/0 3 * * *", "minute: '0' is not a number from 1"),
        ("1,,2 3 * * *", "minute: '' is not"),
        ("-5 3 * * *", "minute: '' is not"),
        ("1² 3 * * *", "minute: '1²' is not"),
        ("0 3 31 4,6 *", "day of month: none of these months has such a day"),
        ("0 3 30 2 *", "day of month: none of these months has such a day"),
    ],
)
def test_what_is_no_cron_line_is_a_wrong_setting(line: str, says: str) -> None:
    with pytest.raises(ValueError, match=says.replace("(", r"\(")):
        parse_cron(line)
    with pytest.raises(WrongSettingError) as caught:
        load_settings(None, cron_tombstones=line)
    assert f"CRON_TOMBSTONES={line!r}: {says}" in str(caught.value)


def test_a_line_from_the_environment_switches_a_job_on_or_off(monkeypatch: pytest.MonkeyPatch) -> None:
    assert set(make_schedule(load_settings(None))) == set(JOBS) - {"finish-stale"}
    monkeypatch.setenv("CRON_FINISH_STALE", "0 * * * *")
    monkeypatch.setenv("CRON_OUTBOX", "")
    assert set(make_schedule(load_settings(None))) == set(JOBS) - {"outbox"}


def test_beat_is_told_task_and_queue_and_no_time_that_a_workers_clock_would_have_to_agree_with() -> None:
    schedule = make_schedule(load_settings(None))
    sweep, outbox = schedule["orphan-blobs"], schedule["outbox"]
    assert sweep["task"] == "matyan.jobs.orphan_blobs"
    assert ("options" in sweep, sweep["kwargs"]) == (False, {"gap": DAY})
    assert ("options" in outbox, outbox["kwargs"]) == (False, {"gap": 60.0})


@pytest.mark.parametrize(
    ("line", "now", "following"),
    [
        ("0 3 * * *", "2026-03-01T02:59:30", "2026-03-01T03:00:00"),
        ("0 3 * * *", "2026-03-01T03:00:10", "2026-03-02T03:00:00"),
        ("0 4 * * 7", "2026-03-02T00:00:00", "2026-03-08T04:00:00"),
        ("*/5 * 31 * *", "2026-03-31T23:58:00", "2026-05-31T00:00:00"),
    ],
)
def test_celery_runs_it_when_the_line_says(line: str, now: str, following: str) -> None:
    settings = load_settings(None, cron_outbox=line)
    schedule = make_schedule(settings)["outbox"]["schedule"]
    schedule.app = Celery()
    schedule.app.conf.update(configure(settings))
    moment = datetime.fromisoformat(now).replace(tzinfo=UTC)
    schedule.nowfun = lambda: moment
    left: timedelta = schedule.remaining_estimate(moment)
    assert moment + left == datetime.fromisoformat(following).replace(tzinfo=UTC)


@pytest.mark.parametrize("prefix", ["", "a."])
def test_what_is_sent_by_name_alone_is_read_by_somebody(prefix: str) -> None:
    settings = load_settings(None, queue_prefix=prefix)
    with make_app(settings) as app:
        names = [*(job.task for job in JOBS.values()), OUTBOX_TASK, *REQUEUE_TASKS, "celery.backend_cleanup"]
        routes = {name: app.amqp.router.route({}, name)["queue"].name for name in (*names, CLEANUP_TASK, CASCADE_TASK)}
    cleanups = dict.fromkeys((CLEANUP_TASK, CASCADE_TASK), prefix + CLEANUP_QUEUE)
    assert routes == dict.fromkeys(names, prefix + JOBS_QUEUE) | cleanups
    assert set(routes.values()) <= set(find_queues(settings))


def test_beat_adds_nothing_to_our_schedule(tmp_path: Path) -> None:
    with make_app(load_settings(None)) as app:
        scheduler = WatchedScheduler(app=app, schedule_filename=str(tmp_path / "schedule"))
        assert set(scheduler.schedule) == set()
        scheduler.close()


@pytest.fixture
def make_scheduler(tmp_path: Path) -> Iterator[Callable[[], WatchedScheduler]]:
    """Makes a scheduler of all jobs on one file, as a beat that begins does."""
    settings = load_settings(None)
    with make_app(settings) as app:
        app.conf.beat_schedule = make_schedule(settings)
        yield lambda: WatchedScheduler(app=app, schedule_filename=str(tmp_path / "deep" / "schedule"), Producer=object)


def test_beat_remembers_what_it_sent(make_scheduler: Callable[[], WatchedScheduler]) -> None:
    first = make_scheduler()
    sent = first.reserve(first.schedule["outbox"])
    first.schedule["outbox"].last_run_at -= timedelta(seconds=3)
    first.close()
    entry = make_scheduler().schedule["outbox"]
    assert entry.last_run_at == sent.last_run_at
    assert entry.total_run_count == 1


@pytest.mark.parametrize("ahead", [timedelta(hours=1), timedelta(days=3_650), timedelta(days=365 * 7_000)])
def test_what_was_sent_in_the_future_counts_as_sent_now(
    make_scheduler: Callable[[], WatchedScheduler], ahead: timedelta
) -> None:
    first = make_scheduler()
    first.schedule["outbox"].last_run_at += ahead
    first.close()
    again = make_scheduler()
    with capture_logs() as logs:
        seconds = again.tick()
        again.tick()
    assert 0 < seconds <= 60, "the next turn of a job that runs each minute"
    assert abs(again.schedule["outbox"].last_run_at - datetime.now(UTC)) < timedelta(minutes=5)
    (said,) = logs
    assert said["event"].startswith("the clock was wrong")
    assert said["jobs"] == ["outbox"]
    assert said["ahead_seconds"] == pytest.approx(ahead.total_seconds(), abs=300)


def test_a_clock_set_back_while_beat_runs_starves_no_job(make_scheduler: Callable[[], WatchedScheduler]) -> None:
    scheduler = make_scheduler()
    scheduler.tick()
    for entry in scheduler.schedule.values():
        entry.last_run_at += timedelta(days=365)
    heap: Any = scheduler
    heap._heap = [event._replace(time=event.time + 365 * DAY) for event in heap._heap]
    assert scheduler.tick() <= 60
    assert max(event.time for event in heap._heap) < datetime.now(UTC).timestamp() + 8 * DAY


def test_the_past_is_no_harm(make_scheduler: Callable[[], WatchedScheduler], tmp_path: Path) -> None:
    make_scheduler().close()
    file = tmp_path / "deep" / "schedule"
    sent = {"outbox": {"at": -1e30, "times": 3}, "gone": {"at": 0, "times": 1}}
    file.write_text(json.dumps({"version": 1, "sent": sent}))
    entry = make_scheduler().schedule["outbox"]
    assert entry.last_run_at == datetime(1970, 1, 1, tzinfo=UTC)
    assert entry.is_due().is_due


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "it is empty"),
        (b'{"version": 1, "sent": {"outbo', "no JSON: cut short"),
        (b"\xce\x9aW\x13\x00", "no JSON"),
        (b"[]", "no schedule of version 1"),
        (b'{"version": 2, "sent": {}}', "no schedule of version 1"),
        (b'{"version": 1, "sent": 3}', "an entry of it is wrong"),
        (b'{"version": 1, "sent": {"outbox": {"at": "x", "times": 1}}}', "an entry of it is wrong"),
        (b'{"version": 1, "sent": {"outbox": {"at": NaN, "times": 1}}}', "an entry of it is wrong"),
        (b'{"version": 1, "sent": {"outbox": {"at": 1}}}', "an entry of it is wrong"),
    ],
)
def test_a_file_that_is_no_schedule_is_said_and_made_anew(
    make_scheduler: Callable[[], WatchedScheduler], tmp_path: Path, content: bytes, why: str
) -> None:
    file = tmp_path / "deep" / "schedule"
    file.parent.mkdir()
    file.write_bytes(content)
    with capture_logs() as logs:
        make_scheduler().close()
    (said,) = logs
    assert said["event"].startswith("the schedule file cannot be read and is made anew")
    assert (said["file"], said["log_level"]) == (str(file), "warning")
    assert why in said["error"]
    assert set(ScheduleFile(file).read()) == set(make_scheduler().schedule)


def test_a_file_that_cannot_be_written_is_said_once_and_beat_goes_on(
    make_scheduler: Callable[[], WatchedScheduler], tmp_path: Path
) -> None:
    (tmp_path / "deep").write_text("a file, where a folder should be")
    with capture_logs() as logs:
        scheduler = make_scheduler()
        assert scheduler.tick() <= 60
        scheduler.sync()
        scheduler.close()
    assert [said["event"].partition(":")[0] for said in logs if "written" in said["event"]] == [
        "the schedule file cannot be written"
    ]


def test_beat_keeps_its_file_where_it_may_write() -> None:
    settings = load_settings(None, heartbeat_folder="/run/matyan")
    assert schedule_file(settings) == "/run/matyan/beat-schedule"
    assert schedule_file(load_settings(None, beat_schedule_file="/data/beat")) == "/data/beat"
