"""Does the blob store answer, and may we list it?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from matyan_celery.checks.finding import Finding
from storage.errors import BlobsAway, BlobsRefused, EngineMissing
from tasks.blob_stores import make_blobs
from tasks.settings.kinds import mask_url

if TYPE_CHECKING:
    from tasks.settings import Settings


def check_blobs(settings: Settings) -> Finding:
    """List one name."""
    kind = settings.blob_backend_type
    where = _describe(settings)
    try:
        blobs = make_blobs(settings)
    except EngineMissing as error:
        return Finding(kind, False, f"{where} cannot be used (its library is not installed)", str(error))
    except (BlobsAway, BlobsRefused, ValueError) as error:  # boto3's for an endpoint that is no URL
        return Finding(kind, False, f"{where} cannot be used ({error})", f"look at the settings of {kind}")
    try:
        blobs.names(limit=1)
    except BlobsAway as error:
        return Finding(kind, False, f"{where} does not answer ({error})", "is it up, and is its address right")
    except BlobsRefused as error:
        remedy = "look at bucket and credentials; they must allow to list, read and delete"
        return Finding(kind, False, f"{where} refuses us ({error})", remedy)
    finally:
        blobs.close()
    return Finding(kind, True, f"{where} answers, and lets us list")


def _describe(settings: Settings) -> str:
    match settings.blob_backend_type:
        case "gcs":
            return f"Google's bucket {settings.gcs_bucket!r}"
        case "azure":
            return f"Azure's container {settings.azure_container!r}"
    return f"S3 at {mask_url(settings.s3_endpoint) or 'Amazon'}"
