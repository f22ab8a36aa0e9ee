"""Settings of the periodic jobs."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from tasks.settings.kinds import Section


class JobSettings(Section):
    """When celery beat has which job done; an empty cron line switches a job off."""

    cron_orphan_blobs: str = "0 3 * * *"
    """Blobs of deleted runs that are still there."""
    cron_tombstones: str = "0 4 * * 0"
    """Old tombstones."""
    cron_stalled_cleanups: str = "* * * * *"
    """Cleanups that nobody works on."""
    cron_outbox: str = "* * * * *"
    """Events that were not published to Kafka yet."""
    cron_old_ledger: str = "30 4 * * *"
    """Old entries of done cleanups."""
    cron_finish_stale: str = ""
    """Runs that nobody has finished."""
    orphan_unknown: bool = False
    """The orphan job also deletes blobs of runs that were never known."""
    orphan_grace_hours: Annotated[float, Field(ge=0)] = 24.0
    """Only where the newest blob of such a run is older than this."""
    ledger_keep_hours: Annotated[float, Field(gt=0)] = 720.0
    """Done cleanups are kept for so long."""
    finish_stale_hours: Annotated[float, Field(gt=0)] = 24.0
    """A run that was made so long ago and is still active is finished, where that job is switched on."""
    tombstone_cleanup_older_than_hours: Annotated[float, Field(gt=0)] = 168.0
    """Tombstones are kept for so long."""
    cleanup_job_lock_ttl_seconds: Annotated[float, Field(ge=0)] = 0.0
    """Lifetime of a job's lock; 0: each job's own (an hour for orphans, ten minutes for tombstones)."""
