"""The blob store that the settings name, as a worker's child process has it: made there on first use."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

from storage.s3 import S3Blobs

if TYPE_CHECKING:
    from storage.blobs import BlobStore
    from tasks.settings import Settings


def make_blobs(settings: Settings) -> BlobStore:
    """The blob store of the settings. Connects to nothing yet."""
    return S3Blobs(
        settings.s3_bucket,
        endpoint=settings.s3_endpoint,
        key=settings.s3_access_key,
        secret=settings.s3_secret_key,
        region=settings.s3_region,
        versions=settings.s3_delete_versions,
        requests=settings.cleanup_requests + 1,
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
