"""The tasks that beat sends: each does one job, where no other does it.

They are acknowledged when they begin: a job that its worker died in is not handed out again, beat sends the next.
"""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING

import structlog
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from storage.clocks import SAID
from storage.errors import LockHeld, StorageError
from storage.jobs.order import show_tally
from tasks.job_list import JOBS, Job
from tasks.job_runner import JobAsk, JobRunner

if TYPE_CHECKING:
    from celery import Celery, Task

log = structlog.get_logger("tasks.jobs")


def register_jobs(app: Celery, runner: JobRunner) -> dict[str, Task]:
    """Make the tasks of all jobs; by the jobs' names."""
    return {job.name: _register(app, runner, job) for job in JOBS.values()}


def _register(app: Celery, runner: JobRunner, job: Job) -> Task:
    @app.task(shared=False, name=job.task, acks_late=False, ignore_result=True, time_limit=job.time_limit)
    def work(
        *,
        dry_run: bool = False,
        limit: int = 0,
        unknown: bool | None = None,
        older_than_hours: float | None = None,
        gap: float = 0.0,
    ) -> None:
        """Do one job; `tasks.job_list` says which there are."""
        began = time.monotonic()
        ask = JobAsk(dry_run, limit, unknown, older_than_hours, gap, tell=partial(log.debug, job=job.name))
        try:
            tally = runner.run(job, ask)
        except LockHeld as error:
            log.info("job passed over", job=job.name, why=str(error))
        except (StorageError, OperationalError, RedisError) as error:
            log.error("job broken off, beat begins it again", job=job.name, error=str(error))
        else:
            seconds = round(time.monotonic() - began, 3)
            if SAID in tally:
                log.warning(
                    "stored times cannot be and are not believed: a machine's clock is or was wrong",
                    job=job.name,
                    times=tally[SAID],
                )
            log.info("job", job=job.name, dry_run=dry_run, seconds=seconds, result=show_tally(tally))

    task: Task = work
    return task
