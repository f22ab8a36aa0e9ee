"""``matyan-celery wait``: until the dependencies are there; for init containers and scripts."""

from __future__ import annotations

import sys
import threading
import time
from typing import TYPE_CHECKING, Final

import click

from matyan_celery.checks.blobs import check_blobs
from matyan_celery.checks.finding import SECONDS, Finding
from matyan_celery.checks.kafka import check_kafka, check_topics
from matyan_celery.checks.redis import check_redis
from matyan_celery.checks.store import check_store
from matyan_celery.commands.printing import printable
from tasks.settings import load_settings

if TYPE_CHECKING:
    from collections.abc import Callable

    from tasks.settings import Settings

_SUBJECTS: Final[dict[str, Callable[[Settings], Finding]]] = {
    "store": check_store,
    "kafka": check_kafka,
    "topics": check_topics,
    "redis": check_redis,
    "blobs": check_blobs,
    "s3": check_blobs,  # what it was called when there was no other
}
_PAUSE: Final = 1.0  # seconds between two looks
_FIRST: Final = SECONDS + 1.0  # seconds that the first look has at least
_SAY_EVERY: Final = 10.0  # seconds between two lines about what is waited for


def _look(subjects: list[str], settings: Settings, deadline: float, before: dict[str, Finding]) -> list[Finding]:
    """What is found of each by the deadline; else what was found ``before``.

    Each is looked at in a thread that nobody waits for at the end: a server that takes connections and says nothing may
    hold one for longer than there is.
    """
    found: dict[str, Finding] = {}
    errors: list[Exception] = []

    def look(subject: str) -> None:
        try:
            found[subject] = _SUBJECTS[subject](settings)
        except Exception as error:  # noqa: BLE001 - raised again by who waits
            errors.append(error)

    threads = [threading.Thread(target=look, args=(subject,), daemon=True) for subject in subjects]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    if errors:
        raise errors[0]
    return [found.get(subject) or before.get(subject) or _silence(subject) for subject in subjects]


def _silence(subject: str) -> Finding:
    sentence = f"{subject} has not answered in the time that was left"
    return Finding(subject, well=False, sentence=sentence, remedy="look at it, or raise --timeout")


def _split(ctx: click.Context, parameter: click.Parameter, value: str) -> list[str]:
    del ctx, parameter
    subjects = [part.strip().lower() for part in value.split(",") if part.strip()]
    unknown = sorted(set(subjects) - _SUBJECTS.keys())
    if unknown or not subjects:
        msg = f"{', '.join(unknown) or 'nothing'} cannot be waited for: choose from {', '.join(_SUBJECTS)}"
        raise click.BadParameter(msg)
    return list(dict.fromkeys(subjects))


@click.command(
    epilog="""\b
Examples:
  matyan-celery wait --for store,kafka,redis,blobs --timeout 60
  matyan-celery wait --for topics && matyan-celery bridge"""
)
@click.option(
    "--for",
    "subjects",
    callback=_split,
    default="store,kafka,redis",
    show_default=True,
    metavar="LIST",
    help="Any of store, kafka, topics, redis, blobs (the blob store of the settings; also s3), separated by commas.",
)
@click.option("--timeout", type=click.FloatRange(min=0), default=60.0, show_default=True, help="Seconds.")
def wait(subjects: list[str], timeout: float) -> None:
    """Wait until dependencies are there.

    Exit code 0 when all of them answer; 1 when the time is over, with a sentence for each that does not.
    """
    settings = load_settings()
    deadline = time.monotonic() + timeout
    said = -_SAY_EVERY
    before: dict[str, Finding] = {}
    while True:
        # The first look has the time that servers have for their answers: without it there is nothing to say.
        end = deadline if before else max(deadline, time.monotonic() + _FIRST)
        findings = _look(subjects, settings, end, before)
        before = dict(zip(subjects, findings, strict=True))
        for finding in findings:
            if finding.well:
                click.echo(printable(str(finding)))
        subjects = [subject for subject, finding in zip(subjects, findings, strict=True) if not finding.well]
        missing = [finding for finding in findings if not finding.well]
        now = time.monotonic()
        if not missing or now >= deadline:
            break
        if now - said >= _SAY_EVERY:
            said = now
            for finding in missing:
                click.echo(printable(f"waiting: {finding.sentence}"), err=True)
        time.sleep(min(_PAUSE, deadline - now))
    for finding in missing:
        click.echo(printable(f"not there after {timeout:g} s: {finding}"), err=True)
    sys.exit(1 if missing else 0)
