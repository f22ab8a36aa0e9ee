"""Cron lines become beat's schedule, or a wrong setting that says what is wrong."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from celery import Celery
from celery.beat import PersistentScheduler

from tasks.app import make_app
from tasks.celeryconfig import configure, find_queues
from tasks.cron import Cron, parse_cron
from tasks.job_list import JOBS
from tasks.queues import CASCADE_TASK, CLEANUP_QUEUE, CLEANUP_TASK, JOBS_QUEUE, OUTBOX_TASK, REQUEUE_TASKS
from tasks.schedule import make_schedule, schedule_file
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


def test_beat_is_told_task_queue_and_expiry() -> None:
    schedule = make_schedule(load_settings(None))
    sweep, outbox = schedule["orphan-blobs"], schedule["outbox"]
    assert sweep["task"] == "matyan.jobs.orphan_blobs"
    assert (sweep["options"], sweep["kwargs"]) == ({"expires": HOUR}, {"gap": DAY})
    assert (outbox["options"]["expires"], outbox["kwargs"]) == (54.0, {"gap": 60.0})


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
        scheduler = PersistentScheduler(app=app, schedule_filename=str(tmp_path / "schedule"))
        assert set(scheduler.schedule) == set()
        scheduler.close()


def test_beat_keeps_its_file_where_it_may_write() -> None:
    settings = load_settings(None, heartbeat_folder="/run/matyan")
    assert schedule_file(settings) == "/run/matyan/beat-schedule"
    assert schedule_file(load_settings(None, beat_schedule_file="/data/beat")) == "/data/beat"
