"""Settings of the periodic jobs."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from tasks.settings.kinds import CronLine, Section


class JobSettings(Section):
    """When celery beat has which job done: five fields of cron, in UTC; an empty line switches a job off."""

    cron_orphan_blobs: CronLine = "0 3 * * *"
    """Blobs of deleted runs that are still there."""
    cron_tombstones: CronLine = "0 4 * * 0"
    """Old tombstones."""
    cron_stalled_cleanups: CronLine = "* * * * *"
    """Cleanups and cascades that nobody works on."""
    cron_outbox: CronLine = "* * * * *"
    """Events that were not published to Kafka yet."""
    cron_old_ledger: CronLine = "30 4 * * *"
    """Cleanups and cascades that were done long ago."""
    cron_finish_stale: CronLine = ""
    """Runs that nobody has finished."""
    beat_schedule_file: str = ""
    """Where beat remembers what it sent; empty: ``beat-schedule`` in HEARTBEAT_FOLDER. Its option --schedule wins."""
    orphan_unknown: bool = False
    """The orphan job also deletes blobs of runs that were never known."""
    orphan_grace_hours: Annotated[float, Field(ge=0)] = 24.0
    """Only where the newest blob of such a run is older than this."""
    ledger_keep_hours: Annotated[float, Field(gt=0)] = 720.0
    """Done cleanups and cascades are kept in the ledger for so long."""
    finish_stale_hours: Annotated[float, Field(gt=0)] = 24.0
    """A run that was made so long ago and is still active is finished, where that job is switched on."""
    tombstone_cleanup_older_than_hours: Annotated[float, Field(gt=0)] = 168.0
    """Tombstones are kept for so long."""
    cleanup_job_lock_ttl_seconds: Annotated[float, Field(ge=0)] = 0.0
    """Seconds until the lock of a killed orphan or tombstone job is free; 0: an hour, and ten minutes."""
