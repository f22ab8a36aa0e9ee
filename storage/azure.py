"""Blobs in Azure (azure-storage-blob and azure-identity, the extra ``azure``).

Every request has timeouts and is made once, as in `storage.s3`. Versions are not deleted here: what an account keeps of
deleted blobs is for its lifecycle rules.
"""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING, Any, Final

import requests as http
from azure.core.exceptions import AzureError, ClientAuthenticationError, DeserializationError, HttpResponseError
from azure.core.pipeline.transport import RequestsTransport
from azure.storage.blob import ContainerClient
from requests.adapters import HTTPAdapter

from storage.blobs import PAGE, Blob, BlobPage, NamePage, Refusal
from storage.errors import BlobsAway, BlobsRefused

if TYPE_CHECKING:
    from collections.abc import Sequence

CONNECT_SECONDS: Final = 5.0
READ_SECONDS: Final = 20.0

_BATCH: Final = 256  # the most that one request deletes
_PASSING_STATUS: Final = frozenset({408, 429, 500, 502, 503, 504})
_GONE: Final = frozenset({"BlobNotFound", "ResourceNotFound"})
_NO_CONTAINER: Final = frozenset({"ContainerNotFound", "ContainerBeingDeleted"})
_MESSAGE: Final = re.compile(r"<Message>([^<\n]*)")
_SEGMENTS: Final = re.compile(r"(^|/)\.\.?(/|$)")

# The library writes several lines a request at INFO.
logging.getLogger("azure.core.pipeline.policies.http_logging_policy").setLevel(logging.WARNING)


class AzureBlobs:
    """A container; see `storage.blobs.BlobStore`. Pages end at markers of the service, which it takes for days.

    Args:
        container: its name.
        connection: a connection string; empty: the account's URL and the default credential.
        account: the account's URL.
        requests: connections kept, at most.

    Raises:
        BlobsRefused: connection string or URL cannot be used, or both are empty.
    """

    def __init__(self, container: str, *, connection: str = "", account: str = "", requests: int = 10) -> None:
        self._container = container
        session = http.Session()
        for scheme in ("https://", "http://"):
            session.mount(scheme, HTTPAdapter(pool_maxsize=max(10, requests)))
        options: dict[str, Any] = {
            "transport": RequestsTransport(
                session=session, connection_timeout=CONNECT_SECONDS, read_timeout=READ_SECONDS
            ),
            "retry_total": 0,
        }
        self._credential: Any = None
        if connection.strip():
            try:
                self._client = ContainerClient.from_connection_string(connection, container, **options)
            except ValueError as error:  # does not show it
                msg = f"AZURE_CONN_STR is no connection string of a storage account ({error})"
                raise BlobsRefused(msg) from error
        elif account.strip():
            from azure.identity import DefaultAzureCredential

            self._credential = DefaultAzureCredential()
            try:
                self._client = ContainerClient(account, container, credential=self._credential, **options)
            except ValueError as error:
                msg = f"AZURE_ACCOUNT_URL={account!r} is no account's URL ({error})"
                raise BlobsRefused(msg) from error
        else:
            msg = "AZURE_CONN_STR and AZURE_ACCOUNT_URL are both empty: set one of them"
            raise BlobsRefused(msg)

    def page(self, prefix: str, after: str = "", *, limit: int = PAGE) -> BlobPage:
        """See `BlobStore.page`."""
        if not prefix:
            msg = "an empty prefix is never listed: it would be every run's"
            raise ValueError(msg)
        answers: Any = self._client.list_blobs(name_starts_with=prefix, results_per_page=limit)
        items, end = self._turn(answers.by_page(after or None))
        blobs = [
            Blob(item.name, item.size or 0, None, item.last_modified.timestamp() if item.last_modified else 0.0)
            for item in items
            if item.name.startswith(prefix)
        ]
        return BlobPage(blobs, end or after, more=bool(end))

    def names(self, after: str = "", *, limit: int = PAGE) -> NamePage:
        """See `BlobStore.names`."""
        answers: Any = self._client.walk_blobs(delimiter="/", results_per_page=limit)
        items, end = self._turn(answers.by_page(after or None))
        return NamePage([item.name[:-1] for item in items if item.name.endswith("/")], end or after, more=bool(end))

    def find(self, keys: Sequence[str]) -> list[Blob]:
        """See `BlobStore.find`."""
        return [Blob(key) for key in keys]

    def delete(self, blobs: Sequence[Blob]) -> list[Refusal]:
        """See `BlobStore.delete`."""
        refusals = [
            Refusal(blob, "InvalidName", "Azure takes dot segments for folders, it might be another key", passing=False)
            for blob in blobs
            if _SEGMENTS.search(blob.key)
        ]
        plain = [blob for blob in blobs if not _SEGMENTS.search(blob.key)] if refusals else blobs
        for start in range(0, len(plain), _BATCH):
            refusals += self._delete_some(plain[start : start + _BATCH])
        return refusals

    def _delete_some(self, blobs: Sequence[Blob]) -> list[Refusal]:
        try:
            answers: list[Any] = list(
                self._client.delete_blobs(
                    *(blob.key for blob in blobs), delete_snapshots="include", raise_on_any_failure=False
                )
            )
        except AzureError as error:
            raise self._explain(error) from error
        if len(answers) != len(blobs):
            msg = f"{len(answers)} answers came to {len(blobs)} deletions (container {self._container!r})"
            raise BlobsAway(msg)
        refusals = []
        for blob, answer in zip(blobs, answers, strict=True):
            code = answer.headers.get("x-ms-error-code") or str(answer.status_code)
            if code in _NO_CONTAINER:
                raise self._missing(code)
            if answer.status_code >= 300 and code not in _GONE:
                words = _MESSAGE.search(answer.text())
                message = words[1] if words else str(answer.reason)
                refusals.append(Refusal(blob, code, message, answer.status_code in _PASSING_STATUS))
        return refusals

    def write_probe(self, key: str) -> Blob:
        """See `ProbedBlobStore.write_probe`."""
        try:
            self._client.upload_blob(key, b"")
        except AzureError as error:
            raise self._explain(error) from error
        return Blob(key)

    def close(self) -> None:
        """Close the connections. Closing twice is fine."""
        self._client.close()
        if self._credential is not None:
            self._credential.close()

    def _turn(self, answers: Any) -> tuple[list[Any], str]:
        """The next answer, which may be empty, and the marker behind it."""
        try:
            items = list(next(answers))
        except StopIteration:
            return [], ""
        except DeserializationError as error:
            msg = f"what answers for container {self._container!r} is no blob service of Azure, or stands before it"
            raise BlobsRefused(f"{msg}: {error}") from error
        except AzureError as error:
            raise self._explain(error) from error
        return items, answers.continuation_token or ""

    def _explain(self, error: AzureError) -> BlobsAway | BlobsRefused:
        if isinstance(error, HttpResponseError):
            code = getattr(error, "error_code", None) or error.status_code or type(error).__name__
            code = str(getattr(code, "value", code))
            if code in _NO_CONTAINER:
                return self._missing(code)
            lines = str(error.message).split("\n")  # of an answer: the service's words, then what it was asked
            message = " ".join(lines) if error.response is None else lines[0]
            words = f"{code}: {message} (container {self._container!r})"
            no = error.status_code not in _PASSING_STATUS or isinstance(error, ClientAuthenticationError)
            return BlobsRefused(words) if no else BlobsAway(words)
        return BlobsAway(f"{type(error).__name__}: {error.message}")

    def _missing(self, code: str) -> BlobsRefused:
        return BlobsRefused(f"{code}: there is no container {self._container!r}: make it, or look at AZURE_CONTAINER")
