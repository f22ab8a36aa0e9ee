"""When beat sends which job: made from the ``CRON_*`` settings. Times are UTC."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from celery.schedules import crontab

from tasks.cron import Cron, parse_cron
from tasks.job_list import JOBS

if TYPE_CHECKING:
    from tasks.settings import Settings


def make_schedule(settings: Settings) -> dict[str, dict[str, Any]]:
    """Celery's ``beat_schedule``: an entry for each job whose cron line is not empty.

    A job is told how far apart its turns are, so that what a second beat sends at the same time is passed over, and
    what has waited for a worker past its next turn.
    """
    schedule = {}
    for job in JOBS.values():
        cron = parse_cron(job.cron(settings))
        if cron is not None:
            schedule[job.name] = {
                "task": job.task,
                "schedule": _as_celery(cron),
                "kwargs": {"gap": cron.gap},
            }
    return schedule


def schedule_file(settings: Settings) -> str:
    """Where beat remembers what it sent last, unless its option ``--schedule`` says otherwise."""
    return settings.beat_schedule_file or str(Path(settings.heartbeat_folder) / "beat-schedule")


def _as_celery(cron: Cron) -> crontab:
    return crontab(
        minute=sorted(cron.minutes),
        hour=sorted(cron.hours),
        day_of_month=sorted(cron.days),
        month_of_year=sorted(cron.months),
        day_of_week=sorted(cron.weekdays),
    )
