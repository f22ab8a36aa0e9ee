"""The settings: one frozen object, read from the environment and ``.env``, built where a program starts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import AfterValidator, Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

_SCHEMES = ("sqlite:///", "fdb:///")
_REDIS_SCHEMES = ("redis://", "rediss://", "unix://", "sentinel://", "redis+socket://")


class WrongSettingError(Exception):
    """A setting is wrong or contradicts another; the message names it and says what to do."""


def _check_store(url: str) -> str:
    if not url.startswith(_SCHEMES):
        msg = "use sqlite:///path.db or fdb:///path/to/fdb.cluster"
        raise ValueError(msg)
    return url


def _check_redis(url: str) -> str:
    if not url.startswith(_REDIS_SCHEMES):
        msg = f"use a URL that starts with one of {', '.join(_REDIS_SCHEMES)}"
        raise ValueError(msg)
    return url


class Settings(BaseSettings):
    """All settings. The name in the environment is the field's in capitals, for example ``STORAGE_URL``.

    Names that the stock workers have keep their meaning (CONTRACT 8.3); the others are ours.
    """

    model_config = SettingsConfigDict(env_file=".env", frozen=True, extra="ignore")

    log_level: Annotated[str, Field(pattern="(?i)^(debug|info|warning|error|critical)$")] = "INFO"

    # -- store -------------------------------------------------------------------------------------------------------
    storage_url: Annotated[str, AfterValidator(_check_store)] = "sqlite:///matyan.db"
    """``sqlite:///path.db`` (the embedded default) or ``fdb:///path/to/fdb.cluster``."""
    storage_timeout_seconds: Annotated[float, Field(gt=0)] = 10.0
    """After this one transaction gives up; the task then tries again."""

    # -- Redis ---------------------------------------------------------------------------------------------------------
    redis_url: Annotated[str, AfterValidator(_check_redis)] = "redis://localhost:6379/0"
    """Celery's broker."""

    # -- Kafka: names of the stock workers ---------------------------------------------------------------------------
    kafka_bootstrap_servers: Annotated[str, Field(min_length=1)] = "localhost:9092"
    kafka_data_ingestion_topic: Annotated[str, Field(min_length=1)] = "data-ingestion"
    kafka_control_events_topic: Annotated[str, Field(min_length=1)] = "control-events"
    kafka_security_protocol: str = ""
    kafka_sasl_mechanism: str = ""
    kafka_sasl_username: str = ""
    kafka_sasl_password: str = ""

    # -- bridge --------------------------------------------------------------------------------------------------------
    ingest_group: Annotated[str, Field(min_length=1)] = "ingestion-workers"
    """The consumer group; the stock workers' by default, so that it goes on at their offset."""
    ingest_lanes: Annotated[int, Field(ge=1, le=256)] = 8
    """Run-hashed lanes a partition. A changed number is adopted when the partition is drained next."""
    ingest_queues: Annotated[int, Field(ge=1, le=256)] = 8
    """Celery queues: lane modulo this. Bridge and workers must have the same number."""
    control_group: Annotated[str, Field(min_length=1)] = "control-workers"
    """The consumer group of the control topic; the stock workers' by default."""
    control_lanes: Annotated[int, Field(ge=1, le=256)] = 4
    """Lanes a partition of the control topic."""
    control_queues: Annotated[int, Field(ge=1, le=256)] = 4
    """Celery queues of the control topic. Bridge and workers must have the same number."""
    batch_records: Annotated[int, Field(ge=1, le=10_000)] = 1_000
    batch_bytes: Annotated[int, Field(ge=1_000, le=8_000_000)] = 1_000_000
    linger_ms: Annotated[int, Field(ge=0, le=10_000)] = 20
    """How long a record waits for company in an idle lane."""
    poll_ms: Annotated[int, Field(ge=1, le=1_000)] = 15
    """How often owner and cursors are read while something is in flight."""
    held_bytes: Annotated[int, Field(ge=1_000)] = 64_000_000
    """Bytes held in memory a partition, beyond which its reading pauses."""
    ahead_records: Annotated[int, Field(ge=1)] = 1_000_000
    """Records between the committable offset and the position, beyond which reading pauses."""
    commit_seconds: Annotated[float, Field(gt=0)] = 1.0
    stall_seconds: Annotated[float, Field(gt=0)] = 5.0
    """Without progress for so long, the store answering, a batch is sent again."""
    drain_seconds: Annotated[float, Field(ge=0)] = 20.0
    """How long SIGTERM and a revoke wait for what is in flight."""
    check_seconds: Annotated[float, Field(gt=0)] = 30.0
    """How often topic id and group are looked at again."""

    # -- tasks ---------------------------------------------------------------------------------------------------------
    task_time_limit_seconds: Annotated[float, Field(ge=5)] = 30.0
    """A worker child that works on one batch for longer is killed; the batch is sent again."""

    # -- blobs: names of the stock workers -----------------------------------------------------------------------------
    s3_endpoint: str = "http://localhost:9000"
    """Empty: Amazon's own."""
    s3_access_key: str = "rustfsadmin"
    s3_secret_key: str = "rustfsadmin"  # noqa: S105 - the stock development default
    s3_bucket: Annotated[str, Field(min_length=1)] = "matyan-artifacts"
    s3_region: str = "us-east-1"
    s3_delete_versions: bool = False
    """Delete every version and delete marker too, in a bucket with versioning."""

    # -- cleanups ------------------------------------------------------------------------------------------------------
    cleanup_tries: Annotated[int, Field(ge=1)] = 20
    """Tries of a cleanup before it is failed and waits for a person; twenty last some ten minutes."""
    cleanup_backoff_seconds: Annotated[float, Field(gt=0)] = 1.0
    """Wait before the second try of a cleanup; doubles with each, with jitter, up to a minute."""
    cleanup_requests: Annotated[int, Field(ge=1, le=64)] = 4
    """Delete requests of one cleanup that are in flight together."""
    cleanup_slice_seconds: Annotated[float, Field(gt=0)] = 20.0
    """A cleanup that takes longer gives its worker up, and goes on as another task."""
    cleanup_foreign_keys: bool = False
    """Delete blob_keys of an event that are outside its run's prefix; otherwise such a cleanup is held."""
    cleanup_stall_seconds: Annotated[float, Field(gt=0)] = 120.0
    """A cleanup that was due, or has not moved, for so long is sent again by beat."""

    # -- periodic jobs (celery beat); an empty cron line switches a job off ------------------------------------------
    cron_orphan_blobs: str = "0 3 * * *"
    cron_tombstones: str = "0 4 * * 0"
    cron_stalled_cleanups: str = "* * * * *"
    cron_outbox: str = "* * * * *"
    cron_old_ledger: str = "30 4 * * *"
    cron_finish_stale: str = ""
    orphan_unknown: bool = False
    """The orphan job also deletes blobs of runs that were never known."""
    orphan_grace_hours: Annotated[float, Field(ge=0)] = 24.0
    """Only where the newest blob of such a run is older than this."""
    ledger_keep_hours: Annotated[float, Field(gt=0)] = 720.0
    """Done cleanups are kept for so long."""
    finish_stale_hours: Annotated[float, Field(gt=0)] = 24.0
    tombstone_cleanup_older_than_hours: Annotated[float, Field(gt=0)] = 168.0
    cleanup_job_lock_ttl_seconds: Annotated[float, Field(ge=0)] = 0.0
    """Lifetime of a job's lock; 0: each job's own (an hour for orphans, ten minutes for tombstones)."""

    # -- Flower's recovery page ----------------------------------------------------------------------------------------
    recovery_allow_unauthenticated: bool = False
    """Let the recovery page write even where Flower runs without authentication."""

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        if bool(self.kafka_sasl_username) != bool(self.kafka_sasl_password):
            msg = "KAFKA_SASL_USERNAME and KAFKA_SASL_PASSWORD belong together: set both or none"
            raise ValueError(msg)
        if self.storage_timeout_seconds >= self.task_time_limit_seconds:
            msg = "STORAGE_TIMEOUT_SECONDS must be below TASK_TIME_LIMIT_SECONDS"
            raise ValueError(msg)
        return self

    def kafka_client(self) -> dict[str, Any]:
        """What every Kafka client of ours is configured with: servers and security, as librdkafka names them."""
        config = {"bootstrap.servers": self.kafka_bootstrap_servers}
        if self.kafka_security_protocol:
            config["security.protocol"] = self.kafka_security_protocol
        if self.kafka_sasl_mechanism:
            config["sasl.mechanism"] = self.kafka_sasl_mechanism
        if self.kafka_sasl_username and self.kafka_sasl_password:
            config["sasl.username"] = self.kafka_sasl_username
            config["sasl.password"] = self.kafka_sasl_password
        return config


def load_settings(env_file: Path | None = Path(".env"), **given: Any) -> Settings:
    """The settings of this process.

    Args:
        env_file: a file of ``NAME=value`` lines, read where it exists; the environment wins over it.
        given: fields that win over both, such as those of the command line.

    Raises:
        WrongSettingError: names every wrong setting and its value.
    """
    try:
        return Settings(**{"_env_file": env_file, **given})
    except ValidationError as error:
        raise WrongSettingError(_explain(error)) from error


def _explain(error: ValidationError) -> str:
    lines = []
    for problem in error.errors():
        name = "_".join(str(part) for part in problem["loc"]).upper()
        message = problem["msg"].removeprefix("Value error, ")
        secret = "PASSWORD" in name or "SECRET" in name or "ACCESS_KEY" in name
        lines.append(f"{name}={'***' if secret else problem['input']!r}: {message}" if name else message)
    return "wrong settings: " + "; ".join(lines)
