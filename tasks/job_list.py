"""The jobs there are: their names, locks and settings. What each does is in `storage.jobs` and `tasks.job_runner`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from tasks.settings import Settings


@dataclass(frozen=True, slots=True)
class Job:
    """One job.

    Attributes:
        name: for people.
        about: what it does, for people.
        lock: the name of its lock; that of the stock job where there is one.
        ttl: seconds until the lock of a killed worker is free.
        time_limit: seconds after which a worker that still does it is killed.
        ages: whether it can be asked how old what it looks for has to be.
        limits: whether it can be asked to do so many at most.
    """

    name: str
    about: str
    lock: str
    ttl: float
    time_limit: float
    ages: bool
    limits: bool = True

    @property
    def task(self) -> str:
        """The Celery task's name."""
        return f"matyan.jobs.{self.name.replace('-', '_')}"

    @property
    def setting(self) -> str:
        """The setting with its cron line, as in the environment."""
        return f"CRON_{self.name.replace('-', '_').upper()}"

    def cron(self, settings: Settings) -> str:
        """Its cron line; empty: beat never sends it."""
        line: str = getattr(settings, self.setting.lower())
        return line

    def lock_ttl(self, settings: Settings) -> float:
        """How long its lock lives; the stock jobs' setting is for those that have their locks."""
        given = settings.cleanup_job_lock_ttl_seconds
        return given if given > 0 and self.lock.startswith("cleanup_") else self.ttl


_HOURS: Final = 3_600.0

JOBS: Final = {
    job.name: job
    for job in (
        Job(
            "orphan-blobs",
            "asks for the cleanup of deleted runs that still have blobs (and, if wanted, of runs never known)",
            "cleanup_orphan_blobs",
            ttl=3_600.0,
            time_limit=12 * _HOURS,
            ages=True,
        ),
        Job(
            "tombstones",
            "deletes old tombstones of runs whose blobs are gone",
            "cleanup_tombstones",
            ttl=600.0,
            time_limit=12 * _HOURS,
            ages=True,
        ),
        Job(
            "stalled-cleanups",
            "sends cleanups and cascades again whose task was lost",
            "bridge_stalled_cleanups",
            ttl=30.0,
            time_limit=300.0,
            ages=False,
        ),
        Job(
            "outbox",
            "publishes events that were not published right after their commit",
            "bridge_outbox",
            ttl=30.0,
            time_limit=300.0,
            ages=False,
            limits=False,
        ),
        Job(
            "old-ledger",
            "deletes cleanups and cascades from the ledger that were done long ago",
            "bridge_old_ledger",
            ttl=600.0,
            time_limit=12 * _HOURS,
            ages=True,
        ),
        Job(
            "finish-stale",
            "marks runs as finished that are active for too long",
            "bridge_finish_stale",
            ttl=600.0,
            time_limit=12 * _HOURS,
            ages=True,
        ),
    )
}
