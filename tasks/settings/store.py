"""Settings of the store."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import Field

from tasks.settings.kinds import AlsoNamed, Section, StoreURL

PRODUCTION: Final = "production"
CLUSTER_FILE: Final = "fdb.cluster"
_EMBEDDED: Final = "sqlite:///matyan.db"


def is_production(environment: str) -> bool:
    """Whether development defaults are refused."""
    return environment.strip().lower() == PRODUCTION


def choose_store(given: dict[str, Any]) -> str:
    """The store where STORAGE_URL is not given: the cluster that FDB_CLUSTER_FILE names, else the embedded one.

    A cluster file that was named on purpose, or production, must not end in an embedded store because the file is not
    there: then opening the store says what is wrong.
    """
    name = str(given.get("fdb_cluster_file", CLUSTER_FILE)).strip()
    if not name:
        return _EMBEDDED
    path = Path(name).absolute()
    wanted = name != CLUSTER_FILE or is_production(str(given.get("matyan_environment", "")))
    return f"fdb://{path}" if wanted or path.is_file() else _EMBEDDED


class StoreSettings(Section):
    """Where runs are kept."""

    matyan_environment: Annotated[str, AlsoNamed("ENVIRONMENT", yields=True)] = "development"
    """``production`` refuses development defaults: BLOB_URI_SECRET, S3_ACCESS_KEY and S3_SECRET_KEY (whatever the back
    end), S3_ENDPOINT with s3, and an empty FDB_CLUSTER_FILE, GCS_BUCKET (gcs), AZURE_CONTAINER or AZURE_CONN_STR and
    AZURE_ACCOUNT_URL both (azure)."""
    fdb_cluster_file: str = CLUSTER_FILE
    """FoundationDB's cluster file. It makes the default of STORAGE_URL, and means nothing where that is given."""
    storage_url: StoreURL = Field(default_factory=choose_store)
    """``sqlite:///path.db`` (embedded) or ``fdb:///path/to/fdb.cluster``. By default the cluster of FDB_CLUSTER_FILE,
    if that file exists, was named, or in production; else ``sqlite:///matyan.db``."""
    storage_timeout_seconds: Annotated[float, Field(gt=0)] = 10.0
    """After this one transaction gives up; the task then tries again."""
    fdb_api_version: Annotated[int, Field(ge=700, le=730)] = 730
    """API version that FoundationDB's client is asked for; at most that of the installed client (7.3: 730)."""
    fdb_retry_max_attempts: Annotated[int, Field(ge=1)] | None = None
    """Tries of one transaction before the task gives its slot back and comes again later. Unset: as many as
    STORAGE_TIMEOUT_SECONDS allows. Nothing is ever lost by it, unlike in the stock workers."""
    fdb_retry_initial_delay_sec: Annotated[float, Field(gt=0, le=60)] | None = None
    """Seconds before a task comes again the first time; doubles with each. Unset: 0.2."""
    fdb_retry_max_delay_sec: Annotated[float, Field(gt=0, le=60)] | None = None
    """Longest pause between two tries, of a transaction and of a task. Unset: FoundationDB's own (1 second), and 15
    seconds for a task."""
