"""What production refuses: the development defaults, as the stock workers do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tasks.settings.blobs import DEVELOPMENT_BLOB_URI_SECRET, DEVELOPMENT_S3_ENDPOINT, DEVELOPMENT_S3_KEY
from tasks.settings.store import is_production

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tasks.settings.loading import Settings


def find_development_defaults(settings: Settings) -> list[str]:
    """One sentence for each setting that production must not run with; none outside production."""
    return list(_find(settings)) if is_production(settings.matyan_environment) else []


def _find(settings: Settings) -> Iterator[str]:
    if settings.blob_uri_secret == DEVELOPMENT_BLOB_URI_SECRET:
        yield "BLOB_URI_SECRET is the development default: set the one of the backend"
    elif not settings.blob_uri_secret.strip():
        yield "BLOB_URI_SECRET is empty: set the one of the backend"
    for name, key in (("S3_ACCESS_KEY", settings.s3_access_key), ("S3_SECRET_KEY", settings.s3_secret_key)):
        if key == DEVELOPMENT_S3_KEY:  # whatever the back end, like the stock workers
            yield f"{name} is the development default: set the bucket's"
    if not settings.fdb_cluster_file.strip():
        yield "FDB_CLUSTER_FILE is empty: name the cluster's file"
    match settings.blob_backend_type:
        case "s3":
            if settings.s3_endpoint == DEVELOPMENT_S3_ENDPOINT:
                yield "S3_ENDPOINT is the development default: set the server's, or empty for Amazon's own"
        case "gcs":
            if not settings.gcs_bucket.strip():
                yield "GCS_BUCKET is empty: name the bucket"
        case "azure":
            if not settings.azure_container.strip():
                yield "AZURE_CONTAINER is empty: name the container"
            if not settings.azure_conn_str.strip() and not settings.azure_account_url.strip():
                yield "AZURE_CONN_STR and AZURE_ACCOUNT_URL are both empty: set one of them"
