"""Does the store answer, does it take what is written, is there room, and what time has it?"""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

from matyan_celery.checks.clocks import compare_clocks
from matyan_celery.checks.finding import SECONDS, Finding
from storage.engine import Tries, open_engine
from storage.errors import StorageError
from storage.foundationdb import FoundationEngine

if TYPE_CHECKING:
    from collections.abc import Iterator

    from storage.engine import Engine
    from tasks.settings import Settings

_KEY: Final = b"\x00"  # nobody's
_PROBES: Final = b"matyan-celery/probe/"  # outside of all directories, whose prefixes begin otherwise
_PROBE: Final = bytes(65_536)  # more than the pages at hand would take
_LITTLE: Final = 1_000_000_000  # bytes left on a disk
_SQLITE: Final = "sqlite:///"


def check_store(settings: Settings) -> Finding:
    """Read something trivial. Makes no file, and no directory in a cluster."""
    return _open(settings, lambda engine: engine.read(lambda transaction: transaction.get(_KEY).wait()), "answers")


def look_at_store(settings: Settings) -> Iterator[Finding]:
    """Write a probe and delete it; then, if it is there, look at the disk, or at the cluster's clock.

    The probe lies outside of all directories; where there is no store yet, it is a file in the folder.
    """
    finding = _open(settings, _write_probe, "answers, and took and gave back a probe")
    yield finding
    if settings.storage_url.startswith(_SQLITE):
        yield from _look_at_disk(_path_of(settings))
    elif finding.well:
        yield from _look_at_clock(settings)


def _path_of(settings: Settings) -> Path:
    return Path(settings.storage_url.removeprefix(_SQLITE)).absolute()


def _open(settings: Settings, ask: Any, did: str) -> Finding:
    url = settings.storage_url
    if url.startswith(_SQLITE) and not _path_of(settings).exists():
        return _look_at_folder(url, _path_of(settings).parent)
    began = time.monotonic()
    try:
        tries = Tries(api_version=settings.fdb_api_version)
        engine = open_engine(url, timeout=min(SECONDS, settings.storage_timeout_seconds), tries=tries)
        try:
            ask(engine)
        finally:
            engine.close()
    except StorageError as error:
        return Finding("store", False, str(error), "look at the store, STORAGE_URL and FDB_CLUSTER_FILE")
    return Finding("store", True, f"{url} {did} ({1_000 * (time.monotonic() - began):.0f} ms)")


def _look_at_folder(url: str, folder: Path) -> Finding:
    """Where the store's file will be made."""
    if not folder.is_dir():
        return Finding("store", False, f"{url}: there is no folder {folder}", "make it, or look at STORAGE_URL")
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(_PROBE)
            file.flush()
    except OSError as error:
        sentence = f"{url} is not there yet, and its folder takes no file ({error.strerror or error})"
        return Finding("store", False, sentence, "make room, or let us write there")
    return Finding("store", True, f"{url} is not there yet; the bridge makes it, and its folder took a probe")


def _write_probe(engine: Engine) -> None:
    key = _PROBES + uuid4().hex.encode()
    try:
        engine.transact(lambda transaction: transaction.set(key, _PROBE))
    finally:
        engine.transact(lambda transaction: transaction.clear(key))


def _look_at_disk(path: Path) -> Iterator[Finding]:
    folder = path.parent
    if folder.is_dir():
        free = shutil.disk_usage(folder).free
        sentence = f"the disk of {folder} has {free / 1e6:,.0f} MB left"
        remedy = "make room: a full disk stops all that is applied, and nothing is lost" if free < _LITTLE else ""
        yield Finding("disk", True, sentence, remedy)


def _look_at_clock(settings: Settings) -> Iterator[Finding]:
    """A cluster says which time it has; the other engine has this machine's."""
    try:
        engine = open_engine(settings.storage_url, timeout=SECONDS, tries=Tries(api_version=settings.fdb_api_version))
        try:
            status = engine.status() if isinstance(engine, FoundationEngine) else b""
            now = time.time()  # the cluster looks at its clock last; its answer comes at once then
        finally:
            engine.close()
        stamp = json.loads(status)["cluster"]["cluster_controller_timestamp"]
    except (StorageError, ValueError, KeyError, TypeError) as error:
        yield Finding(
            "clock", True, f"the cluster does not say what time it has ({error})", "look with fdbcli's status"
        )
        return
    yield compare_clocks("FoundationDB's", stamp - now)
