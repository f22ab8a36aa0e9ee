"""Does the store answer?"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from matyan_celery.checks.finding import SECONDS, Finding
from storage.engine import Tries, open_engine
from storage.errors import StorageError

if TYPE_CHECKING:
    from tasks.settings import Settings

_KEY: Final = b"\x00"  # nobody's


def check_store(settings: Settings) -> Finding:
    """Read something trivial. Makes no file, and no directory in a cluster."""
    url = settings.storage_url
    path = Path(url.removeprefix("sqlite:///"))
    if url.startswith("sqlite:///") and not path.exists():
        folder = path.absolute().parent
        if folder.is_dir():
            return Finding("store", True, f"{url} is not there yet; the bridge makes it")
        return Finding("store", False, f"{url}: there is no folder {folder}", "make it, or look at STORAGE_URL")
    began = time.monotonic()
    try:
        tries = Tries(api_version=settings.fdb_api_version)
        engine = open_engine(url, timeout=min(SECONDS, settings.storage_timeout_seconds), tries=tries)
        try:
            engine.read(lambda transaction: transaction.get(_KEY).wait())
        finally:
            engine.close()
    except StorageError as error:
        return Finding("store", False, str(error), "look at the store, STORAGE_URL and FDB_CLUSTER_FILE")
    return Finding("store", True, f"{url} answers ({1_000 * (time.monotonic() - began):.0f} ms)")
