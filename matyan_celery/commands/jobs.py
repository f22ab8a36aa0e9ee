"""``matyan-celery jobs``: what beat does from time to time, looked at and done by hand."""

from __future__ import annotations

import json
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import click
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from matyan_celery.commands.options import open_existing, settings_for, store_option
from matyan_celery.commands.printing import printable, show_time
from storage.jobs.order import show_tally
from storage.masking import mask_url
from tasks.job_list import JOBS
from tasks.redis_answers import explain

if TYPE_CHECKING:
    from storage.locks import JobDone, LockOwner
    from tasks.job_list import Job
    from tasks.settings import Settings


@click.group()
def jobs() -> None:
    """List the periodic jobs, or do one now.

    They are done by Celery workers when beat says so (celery -A tasks beat), each under a lock, so that any number of
    beats and hands do no harm.
    """


@jobs.command(name="list", epilog="Example: matyan-celery jobs list --json | jq -r 'select(.last == null).name'")
@store_option
@click.option("--json", "as_json", is_flag=True, help="One JSON line a job.")
def list_jobs(store_url: str | None, as_json: bool) -> None:
    """List the jobs: when, who does it now, and what the last one did."""
    settings = settings_for(store_url)
    with open_existing(settings) as store:
        locks = store.job_locks()
        for job in JOBS.values():
            holder, last = locks.holder(job.lock), locks.last_done(job.lock)
            shown = _as_fields(job, settings, holder, last) if as_json else _as_text(job, settings, holder, last)
            click.echo(json.dumps(shown) if as_json else printable(str(shown), lines=True))


def _as_fields(job: Job, settings: Settings, holder: LockOwner | None, last: JobDone | None) -> dict[str, Any]:
    return {
        "name": job.name,
        "about": job.about,
        "task": job.task,
        "setting": job.setting,
        "cron": job.cron(settings),
        "lock": job.lock,
        "lock_seconds": job.lock_ttl(settings),
        "holder": None if holder is None else {"who": holder.who, "since": holder.since, "until": holder.until},
        "last": None if last is None else last._asdict(),
    }


def _as_text(job: Job, settings: Settings, holder: LockOwner | None, last: JobDone | None) -> str:
    lines = [f"{job.name:<18}{job.setting}={job.cron(settings) or '(never)'}", f"    {job.about}"]
    if holder is not None:
        lines.append(f"    now by {holder.who}, its lock runs out at {show_time(holder.until)} if it is not renewed")
    if last is not None:
        lines.append(f"    last {show_time(last.ended)} ({last.ended - last.began:.1f} s, {last.who}): {last.result}")
    return "\n".join(lines)


@jobs.command(
    epilog="""\b
Examples:
  matyan-celery jobs run orphan-blobs --dry-run
  matyan-celery jobs run orphan-blobs --unknown --older-than-hours 72 --dry-run
  matyan-celery jobs run tombstones --older-than-hours 336"""
)
@click.argument("name", type=click.Choice(list(JOBS)))
@store_option
@click.option("--dry-run", is_flag=True, help="Change nothing; say what would be done.")
@click.option("--limit", type=click.IntRange(min=0), default=0, help="Do so many at most; 0: all.")
@click.option(
    "--unknown/--no-unknown", default=None, help="orphan-blobs: also of runs never known; else as ORPHAN_UNKNOWN says."
)
@click.option(
    "--older-than-hours",
    type=click.FloatRange(min=0),
    help="How old (orphan-blobs: how long since the newest blob of a run never known); else as the settings say.",
)
@click.option("--quiet", is_flag=True, help="Only the numbers, not a line for each thing done.")
def run(
    name: str,
    store_url: str | None,
    dry_run: bool,
    limit: int,
    unknown: bool | None,
    older_than_hours: float | None,
    quiet: bool,
) -> None:
    """Do a job now, here.

    The same code as beat's tasks, under the same lock. Exit code 1, and nothing is done, where somebody else has the
    lock. What it asks for (cleanups) is done by the Celery workers.
    """
    from tasks.app import make_app
    from tasks.blob_stores import OpenedBlobs
    from tasks.job_runner import JobAsk, JobRunner
    from tasks.outbox import OutboxPublisher

    if unknown is not None and name != "orphan-blobs":
        msg = "--unknown is for orphan-blobs"
        raise click.UsageError(msg)
    if older_than_hours is not None and not JOBS[name].ages:
        msg = f"--older-than-hours is not for {name}"
        raise click.UsageError(msg)
    if limit and not JOBS[name].limits:
        msg = f"--limit is not for {name}"
        raise click.UsageError(msg)
    settings = settings_for(store_url)
    with ExitStack() as stack:
        store = stack.enter_context(open_existing(settings))
        app = stack.enter_context(make_app(settings))
        blobs, publisher = OpenedBlobs(settings), OutboxPublisher(settings)
        stack.callback(blobs.close)
        stack.callback(publisher.close)
        runner = JobRunner(settings, app, store=lambda: store, blobs=blobs.blobs, publisher=publisher)
        ask = JobAsk(dry_run, limit, unknown, older_than_hours, tell=_ignore if quiet else _print)
        began = time.monotonic()
        try:
            tally = runner.run(JOBS[name], ask)
        except (OperationalError, RedisError) as error:
            msg = f"{mask_url(explain(error))}; what was asked for is sent by the job stalled-cleanups"
            raise click.ClickException(msg) from error
    done = "would be" if dry_run else "done"
    click.echo(f"{name} {done}: {show_tally(tally)} ({time.monotonic() - began:.1f} s)")


def _print(line: str) -> None:
    click.echo(f"  {printable(line)}")


def _ignore(_: str) -> None:
    pass
