"""The FoundationDB engine: the client's transactions with a timeout, retried by the client's own rule.

The client is loaded when an engine is made, its network is started at the first transaction: in the process that works,
after the fork that made it.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from storage.engine import Tries
from storage.errors import Refused, StorageError, StorageUnavailable, TransactionTooOld
from storage.foundationdb_client import (
    CLUSTER_VERSION,
    CONFLICT,
    TIMED_OUT,
    check_cluster_file,
    describe,
    explain,
    give_up,
    load_client,
    mend_waits,
)
from storage.foundationdb_silence import explain_silence
from storage.foundationdb_transaction import Reading, Writing

if TYPE_CHECKING:
    from collections.abc import Callable

    from storage.engine import Transaction

T = TypeVar("T")

PROBE_TIMEOUT: Final = 1.0  # seconds for one trivial read; it takes a few milliseconds
_PROBE_KEY: Final = b"\x00"
_STATUS: Final = b"\xff\xff/status/json"

_network_process: int | None = None


class FoundationEngine:
    """A store in a FoundationDB cluster. See `storage.engine.Engine` for what each method does.

    Args:
        url: for messages.
        path: of the cluster file.
        timeout: seconds for one call of `transact` or `read`, retries included.
        client: what to use in place of the package ``fdb``.
        tries: how it tries again within the timeout.

    Raises:
        BadStoreURL: there is no cluster file at ``path``.
        EngineMissing: the client is not installed.
        Refused: the process uses another API version of it.
    """

    def __init__(
        self, url: str, path: str, *, timeout: float = 10.0, client: Any = None, tries: Tries | None = None
    ) -> None:
        if timeout <= 0:
            msg = f"the timeout is {timeout} seconds: it must be above 0"
            raise ValueError(msg)
        self._url = url
        self._path = Path.cwd() / path
        self._timeout = timeout
        check_cluster_file(url, self._path)
        self._tries = Tries() if tries is None else tries
        self._client = load_client(self._tries.api_version) if client is None else client
        mend_waits(self._client)
        self._want_all: int = self._client.StreamingMode.want_all
        self._database: Any = None
        self._closed = False

    @property
    def url(self) -> str:
        """The URL it was opened with."""
        return self._url

    def directory(self, *path: str) -> bytes:
        """The key prefix of the directory at ``path``, made if it is absent, by the client's own directory layer."""
        if not path or not all(isinstance(name, str) for name in path):
            msg = f"{path!r} is no directory path: name at least one directory"
            raise ValueError(msg)
        try:
            found = self._run(lambda transaction: self._client.directory.create_or_open(transaction, path))
        except Exception as error:
            if type(error) is Exception:  # the directory layer's own refusals: a newer version, a prefix in use
                msg = f"{self._url}: cannot open the directory {path!r}: {error}"
                raise Refused(msg) from error
            raise
        if found.get_layer() == b"partition":
            msg = f"the directory {path!r} is a partition: name a directory in it"
            raise Refused(msg)
        prefix: bytes = found.key()
        return prefix

    def transact(self, work: Callable[[Transaction], T], *, impatient: bool = False) -> T:
        """Run ``work`` in a transaction and commit it; it runs again after a conflict or an unknown result.

        StorageUnavailable and TransactionTooOld leave open whether the last try was committed.
        """

        def write(transaction: Any) -> T:
            writing = Writing(transaction, self._want_all)
            try:
                return work(writing)
            finally:
                writing.end()

        return self._run(write, impatient=impatient)

    def read(self, work: Callable[[Transaction], T]) -> T:
        """Run ``work``, which only reads, at one version of the store."""

        def look(transaction: Any) -> T:
            reading = Reading(transaction, self._want_all)
            try:
                return work(reading)
            finally:
                reading.end()

        return self._run(look, commit=False)

    def status(self) -> bytes:
        """What the cluster says of itself, as JSON; empty where it says nothing.

        Raises:
            StorageUnavailable: it did not answer.
        """

        def look(transaction: Any) -> bytes:
            found = transaction[_STATUS]  # not among the store's keys, which `Reading` keeps to
            return bytes(found) if found.present() else b""

        return self._run(look, commit=False)

    def close(self) -> None:
        """Let go of the cluster. Closing twice is fine. The client's network stays for the life of the process."""
        self._closed = True
        self._database = None

    def _run(self, work: Callable[[Any], T], *, impatient: bool = False, commit: bool = True) -> T:
        """The retry loop: `on_error` decides what is tried again, waits, and makes the transaction new."""
        deadline = time.monotonic() + self._timeout
        failure: type[Exception] = self._client.FDBError
        conflicts = 0
        try:
            transaction = self._open().create_transaction()
            # From API version 610 on the option holds for all tries together, counted from here.
            transaction.options.set_timeout(_milliseconds(self._timeout))
            if self._tries.most is not None:
                transaction.options.set_retry_limit(self._tries.most - 1)
            if self._tries.longest_pause is not None:
                transaction.options.set_max_retry_delay(_milliseconds(self._tries.longest_pause))
        except failure as error:
            raise self._explain(error) from error
        last = ""
        while True:
            try:
                result = work(transaction)
                if commit:
                    transaction.commit().wait()
            except failure as error:
                trouble: Any = error
            else:
                return result
            conflicts += trouble.code == CONFLICT
            final = give_up(self._url, trouble.code, describe(trouble), conflicts=conflicts, impatient=impatient)
            if final is not None:
                raise final from trouble
            if trouble.code == TIMED_OUT:
                raise self._explain_timeout(last, impatient=impatient) from trouble
            last = f"{describe(trouble)} ({trouble.code})"
            if time.monotonic() >= deadline:
                raise self._explain_timeout(last, impatient=impatient) from trouble
            try:
                transaction.on_error(trouble).wait()
            except failure as error:
                if getattr(error, "code", None) == TIMED_OUT:
                    raise self._explain_timeout(last, impatient=impatient) from error
                raise self._explain(error) from error
            if trouble.code != CLUSTER_VERSION:
                self._tries.counted()

    def _open(self) -> Any:
        """The client's database, opened in this process."""
        global _network_process  # noqa: PLW0603 - the network is one for the process
        if self._closed:
            msg = f"{self._url} is closed"
            raise RuntimeError(msg)
        if _network_process is not None and _network_process != os.getpid():
            msg = (
                f"{self._url}: FoundationDB was opened before this process was forked, and its network is not here: "
                "open the store in the process that uses it only"
            )
            raise Refused(msg)
        if self._database is None:
            _network_process = os.getpid()
            self._database = self._client.open(str(self._path))
        return self._database

    def _explain(self, error: Any) -> StorageError:
        return explain(self._url, error.code, describe(error))

    def _explain_timeout(self, last: str, *, impatient: bool) -> StorageError:
        """Tell a transaction that was too long from a store that is away: by asking it something small.

        Args:
            last: what ended the try before, if there was one.
            impatient: the caller can do less in one transaction.
        """
        patience = min(PROBE_TIMEOUT, self._timeout)
        tried = f", the last try: {last}" if last else ""
        probe = self._open().create_transaction()
        try:
            probe.options.set_timeout(_milliseconds(patience))
            probe.get(_PROBE_KEY).wait()
        except self._client.FDBError as error:
            reason = explain_silence(self._client, self._open(), error.code, seconds=patience)
            return StorageUnavailable(
                f"{self._url}: no answer in {self._timeout:g} s{tried}, nor to a trivial read in {patience:g} s "
                f"({describe(error)}): {reason}"
            )
        what = f"{self._url}: not through in {self._timeout:g} s, while the store answers{tried}"
        return TransactionTooOld(what) if impatient else StorageUnavailable(what)


def _milliseconds(seconds: float) -> int:
    return max(1, round(seconds * 1_000))
