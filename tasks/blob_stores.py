"""The blob store that the settings name, as a worker's child process has it: made there on first use."""

from __future__ import annotations

import importlib.util
import os
import threading
from typing import TYPE_CHECKING, Final

from storage.errors import EngineMissing
from storage.s3 import S3Blobs

if TYPE_CHECKING:
    from storage.blobs import BlobStore, ProbedBlobStore
    from tasks.settings import Settings

_LIBRARIES: Final = {
    "gcs": ("google.cloud.storage",),
    "azure": ("azure.storage.blob", "azure.identity"),
}


def check_library(settings: Settings) -> None:
    """See whether the libraries of the blob store are installed, without importing them.

    Raises:
        EngineMissing: they are not; says what to install.
    """
    kind = settings.blob_backend_type
    missing = [name for name in _LIBRARIES.get(kind, ()) if not _is_installed(name)]
    if missing:
        msg = f"BLOB_BACKEND_TYPE={kind} needs {' and '.join(missing)}: pip install 'matyan-celery[{kind}]'"
        raise EngineMissing(msg)


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ImportError:  # not even the package around it
        return False


def make_blobs(settings: Settings) -> ProbedBlobStore:
    """The blob store of the settings. Asks it nothing yet.

    Raises:
        EngineMissing: its library is not installed.
        BlobsRefused: the settings of it cannot be used, or there are no credentials.
        BlobsAway: credentials could not be looked up.
    """
    check_library(settings)
    requests = settings.cleanup_requests + 1
    match settings.blob_backend_type:
        case "gcs":
            from storage.gcs import GcsBlobs

            return GcsBlobs(settings.gcs_bucket, versions=settings.gcs_delete_versions, requests=requests)
        case "azure":
            from storage.azure import AzureBlobs

            return AzureBlobs(
                settings.azure_container,
                connection=settings.azure_conn_str,
                account=settings.azure_account_url,
                requests=requests,
            )
    return S3Blobs(
        settings.s3_bucket,
        endpoint=settings.s3_endpoint,
        key=settings.s3_access_key,
        secret=settings.s3_secret_key,
        region=settings.s3_region,
        ca_file=settings.s3_ca_file,
        addressing=settings.s3_addressing_style,
        proxy=settings.s3_proxy,
        metadata=settings.s3_imds,
        versions=settings.s3_delete_versions,
        requests=requests,
    )


class OpenedBlobs:
    """Makes the blob store lazily behind a pid check, never before the fork.

    Args:
        settings: which one.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._made: tuple[int, BlobStore] | None = None

    def blobs(self) -> BlobStore:
        """This process' blob store."""
        with self._lock:
            if self._made is None or self._made[0] != os.getpid():
                self._made = (os.getpid(), make_blobs(self._settings))
            return self._made[1]

    def close(self) -> None:
        """Close what this process made; what a parent made is left alone. Closing twice is fine."""
        made, self._made = self._made, None
        if made is not None and made[0] == os.getpid():
            made[1].close()
