"""Settings of the blob store and of the cleanups in it."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import Field

from tasks.settings.kinds import Secret, Section

DEVELOPMENT_BLOB_URI_SECRET: Final = "Juw5-cLlemQI2jAWvceOUB3_CrVfBmI99YIzkpGUXR4="  # noqa: S105 - the stock default
DEVELOPMENT_S3_KEY: Final = "rustfsadmin"
DEVELOPMENT_S3_ENDPOINT: Final = "http://localhost:9000"


class BlobSettings(Section):
    """Names of the stock workers, and how cleanups go about it."""

    blob_backend_type: Literal["s3", "gcs", "azure"] = "s3"
    """Where blobs are: S3 (any compatible server), Google's store (needs the extra gcs) or Microsoft's (azure)."""
    s3_endpoint: str = DEVELOPMENT_S3_ENDPOINT
    """Empty: Amazon's own."""
    s3_access_key: Annotated[str, Secret.HIDDEN] = DEVELOPMENT_S3_KEY
    """Who we are in S3. Empty, with an empty S3_SECRET_KEY: the cloud's own identity (an IAM role of the pod or the
    machine), or whatever else boto3 finds; so in production too."""
    s3_secret_key: Annotated[str, Secret.HIDDEN] = DEVELOPMENT_S3_KEY
    """Proves it. Empty: see S3_ACCESS_KEY."""
    s3_bucket: Annotated[str, Field(min_length=1)] = "matyan-artifacts"
    """The bucket of all blobs."""
    s3_region: str = "us-east-1"
    """The bucket's region."""
    s3_ca_file: str = ""
    """A file of certificates in PEM form: the authorities that vouch for S3_ENDPOINT. Empty: the system's, or those of
    ``AWS_CA_BUNDLE``."""
    s3_addressing_style: Literal["auto", "path", "virtual"] = "auto"
    """Where a request names the bucket: in the path, or (virtual) before the host's name, which then needs DNS and a
    certificate for ``bucket.host``. auto: in the path, but at Amazon before the host's name."""
    s3_proxy: Annotated[str, Field(pattern="^(|https?://.+)$"), Secret.URL] = ""
    """Address of a proxy, ``http://[user:password@]host:port``, for S3 alone. Empty: what ``HTTPS_PROXY``,
    ``HTTP_PROXY`` and ``NO_PROXY`` say."""
    s3_imds: bool = True
    """Ask the machine's metadata service (Amazon's IMDS) for the cloud's own identity, where S3_ACCESS_KEY is empty and
    nothing else gives one. Off: where there is none, that is said at once."""
    s3_delete_versions: bool = False
    """Delete every version and delete marker too, in a bucket with versioning (s3)."""
    gcs_bucket: str = "matyan-artifacts"
    """The bucket of all blobs (gcs), with application default credentials."""
    gcs_delete_versions: bool = False
    """Delete every generation too, in a bucket with versioning (gcs)."""
    azure_conn_str: Annotated[str, Secret.HIDDEN] = ""
    """Connection string (azure)."""
    azure_account_url: str = ""
    """Account URL (azure), used with the default credential where there is no connection string."""
    azure_container: str = "matyan-artifacts"
    """The container of all blobs (azure)."""
    blob_uri_secret: Annotated[str, Secret.HIDDEN] = DEVELOPMENT_BLOB_URI_SECRET
    """The backend's key for blob URIs. Not used here; production refuses the development default, as the stock
    workers do."""

    cleanup_tries: Annotated[int, Field(ge=1)] = 20
    """Tries of a cleanup before it is failed and waits for a person; twenty last some ten minutes."""
    cleanup_backoff_seconds: Annotated[float, Field(gt=0)] = 1.0
    """Wait before the second try of a cleanup; doubles with each, with jitter, up to a minute."""
    cleanup_requests: Annotated[int, Field(ge=1, le=64)] = 4
    """Delete requests of one cleanup that are in flight together (gcs: times eight, at most 128, of one object)."""
    cleanup_slice_seconds: Annotated[float, Field(gt=0)] = 20.0
    """A cleanup that takes longer gives its worker up, and goes on as another task."""
    cleanup_foreign_keys: bool = False
    """Delete blob_keys of an event that are outside its run's prefix; otherwise such a cleanup is held."""
    cleanup_stall_seconds: Annotated[float, Field(gt=0)] = 120.0
    """A cleanup that was due, or has not moved, for so long is sent again by beat."""


def find_wrong_versions(settings: BlobSettings) -> list[str]:
    """One sentence for each setting that asks another blob store than the chosen one to delete versions."""
    kind = settings.blob_backend_type
    instead = {
        "s3": "set S3_DELETE_VERSIONS",
        "gcs": "set GCS_DELETE_VERSIONS",
        "azure": "versions in Azure are left to the account's lifecycle rules",
    }[kind]
    return [
        f"{name}_DELETE_VERSIONS does nothing with BLOB_BACKEND_TYPE={kind}: take it away; {instead}"
        for name, versions in (("S3", settings.s3_delete_versions), ("GCS", settings.gcs_delete_versions))
        if versions and name.lower() != kind
    ]
