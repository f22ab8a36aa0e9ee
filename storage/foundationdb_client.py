"""FoundationDB's client library: how it is loaded, and what its error codes mean to a caller.

Codes: https://apple.github.io/foundationdb/api-error-codes.html. The library can start its network once a process, and
not in a child of the process that started it.
"""

from __future__ import annotations

import importlib
import multiprocessing
import re
from typing import TYPE_CHECKING, Any, Final

from storage.engine import API_VERSION
from storage.errors import (
    BadStoreURL,
    Contended,
    EngineMissing,
    KeyTooLarge,
    Refused,
    StorageError,
    StorageUnavailable,
    TransactionTooLarge,
    TransactionTooOld,
    ValueTooLarge,
)

if TYPE_CHECKING:
    from pathlib import Path

CONFLICTS: Final = 3  # an impatient caller gives up at this one
_LOOK_AGAIN: Final = 1.0  # seconds until a wait looks by itself whether its future is ready

TOO_OLD: Final = 1007
CONFLICT: Final = 1020
TIMED_OUT: Final = 1031
CLUSTER_VERSION: Final = (
    1039  # the client has learned which version the cluster has; in each process' first transaction
)
TOO_LARGE: Final = 2101
_KEY_TOO_LARGE: Final = 2102
_VALUE_TOO_LARGE: Final = 2103
_BAD_CLUSTER_FILE: Final = {1515, 1516, 2104, 2105}  # not found, unusable, connection string invalid
_FORBIDDEN: Final = range(6000, 7000)  # authorization
_OUR_MISTAKE: Final = range(2000, 3000)  # the client says that it was used wrongly

_CONNECTION_STRING: Final = re.compile(r"^\s*\w+:\w+@\S+", re.MULTILINE)


def load_client(version: int = API_VERSION) -> Any:
    """Import ``fdb`` and select an API version.

    Raises:
        EngineMissing: the Python package or the C library is not installed, or the two do not fit.
        Refused: this process uses another API version already.
    """
    try:
        fdb: Any = importlib.import_module("fdb")
    except ImportError as error:
        msg = f"FoundationDB's Python package is missing ({error}): pip install 'foundationdb>=7.3,<7.4'"
        raise EngineMissing(msg) from error
    if fdb.is_api_version_selected():
        selected = fdb.get_api_version()
        if selected != version:
            msg = (
                f"this process uses FoundationDB's API version {selected} already, we need {version}: "
                "open the store in a process of its own"
            )
            raise Refused(msg)
        return fdb
    try:
        fdb.api_version(version)
    except Exception as error:  # the package raises plain Exception where the library is missing
        raise EngineMissing(_explain_library(fdb, error)) from error
    return fdb


def _explain_library(fdb: Any, error: Exception) -> str:
    """Why package and C library do not work together, and what to install."""
    package = int(getattr(fdb, "LATEST_API_VERSION", 0))
    library = _newest_api(fdb)
    if library is not None and package > library:
        line = _line_of(library)
        return (
            f"the Python package foundationdb is of release line {_line_of(package)}, FoundationDB's C library of "
            f"{line}: the package must not be newer. Both follow the cluster: if that is {line}, pip install "
            f"'matyan-celery[fdb{line.replace('.', '')}]', else install 'foundationdb-clients' {_line_of(package)}"
        )
    return (
        f"FoundationDB's C library cannot be used ({error}): install the package 'foundationdb-clients' of your system "
        "(it holds libfdb_c), of the same release line as the cluster"
    )


def _newest_api(fdb: Any) -> int | None:
    """The newest API version that the C library has; None where it is not loaded."""
    library = getattr(getattr(fdb, "impl", None), "_capi", None)
    ask = getattr(library, "fdb_get_max_api_version", None)
    return None if ask is None else int(ask())


def _line_of(api_version: int) -> str:
    return f"{api_version // 100}.{api_version // 10 % 10}"


def mend_waits(client: Any) -> None:
    """Let the package's waits look again, so that an exception that a signal raises beside one misleads none.

    The package waits for a future on a semaphore that it keeps for each thread and that the future's callback releases
    (fdb 7.3, impl.py, ``Future.block_until_ready``). After a wait that was interrupted, the old future's callback ends
    the thread's next wait too early, whose answer is not there yet (error 2015), and so on for ever. And a future that
    becomes ready just when its callback is set is called back in the waiting thread; an exception that strikes there is
    swallowed, the semaphore is not released, and the wait has no end. Here a release is a hint to look.
    """
    impl = getattr(client, "impl", None)
    waits = getattr(impl, "_thread_local_storage", None)
    if impl is None or waits is None:
        return

    def block_until_ready(self: Any) -> None:
        if self.is_ready():
            return
        semaphore = getattr(waits, "future_block_semaphore", None)
        if semaphore is None:
            semaphore = waits.future_block_semaphore = multiprocessing.Semaphore(0)
        self.on_ready(lambda _: semaphore.release())
        while not self.is_ready():
            semaphore.acquire(timeout=_LOOK_AGAIN)

    impl.Future.block_until_ready = block_until_ready


def check_cluster_file(url: str, path: Path) -> None:
    """Whether ``path`` holds what the client needs: ``description:id@address:port``, else the client waits for ever.

    Raises:
        BadStoreURL: it does not.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not text"
        msg = f"{url}: cannot read the cluster file {path} ({reason}): name the file that the cluster's servers use"
        raise BadStoreURL(msg) from error
    lines = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    if not _CONNECTION_STRING.search(lines):
        msg = f"{url}: {path} is no cluster file: it lacks a line of the form description:id@address:port"
        raise BadStoreURL(msg)


def give_up(url: str, code: int, text: str, *, conflicts: int, impatient: bool) -> StorageError | None:
    """What to raise for an error before the client's own rule is asked; None: ask it.

    Args:
        url: for the message.
        code: of the error.
        text: its description.
        conflicts: conflicts of this transaction so far, this one included.
        impatient: the caller can do less in one transaction.
    """
    what = f"{url}: {text} ({code})"
    if code == TOO_LARGE:
        return TransactionTooLarge(what)
    if impatient and code == TOO_OLD:
        return TransactionTooOld(what)
    if impatient and code == CONFLICT and conflicts >= CONFLICTS:
        return Contended(f"{what}, {conflicts} times on end")
    return None


def explain(url: str, code: int, text: str) -> StorageError:
    """What an error means that the client's own rule does not retry."""
    what = f"{url}: {text} ({code})"
    if code == TOO_LARGE:
        return TransactionTooLarge(what)
    if code == _KEY_TOO_LARGE:
        return KeyTooLarge(what)
    if code == _VALUE_TOO_LARGE:
        return ValueTooLarge(what)
    if code in _BAD_CLUSTER_FILE:
        return BadStoreURL(f"{what}: check the cluster file")
    if code in _FORBIDDEN:
        return Refused(f"{what}: the cluster does not let us in")
    if code in _OUR_MISTAKE:
        return Refused(f"{what}: the client library does not accept this call")
    return StorageUnavailable(what)


def describe(error: Any) -> str:
    """An error's description as text; the package gives it as bytes."""
    description = error.description
    return description.decode() if isinstance(description, bytes) else str(description)
