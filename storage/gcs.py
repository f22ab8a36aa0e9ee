"""Blobs in Google Cloud Storage (google-cloud-storage, the extra ``gcs``), with application default credentials.

Every request has timeouts and is made once, as in `storage.s3`. There is no request that deletes many objects and says
what became of each in public, so each goes by itself, many at once.

`STORAGE_EMULATOR_HOST`, which the library reads, names another server.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from google.api_core.exceptions import GoogleAPICallError
from google.auth.exceptions import GoogleAuthError, TransportError
from google.cloud.storage import Client
from requests.adapters import HTTPAdapter
from requests.exceptions import RequestException

from storage.blobs import PAGE, Blob, BlobPage, NamePage, Refusal
from storage.errors import BlobsAway, BlobsRefused
from storage.listing import Headway

if TYPE_CHECKING:
    from collections.abc import Sequence

CONNECT_SECONDS: Final = 5.0
READ_SECONDS: Final = 20.0

_ABREAST: Final = 8  # objects that are deleted at once where another store gets one request
_THREADS: Final = 128
_PASSING_STATUS: Final = frozenset({408, 429, 500, 502, 503, 504})
_PASSING: Final = frozenset({"rateLimitExceeded", "userRateLimitExceeded", "backendError"})  # also as 403
_FIELDS: Final = "items(name,size,generation,timeCreated),prefixes,nextPageToken"
_AND: Final = "\0"  # between a position's key and the service's own mark; no key has it
_AFTER_SLASH: Final = "0"  # the character behind the slash: where the keys below a name end


class _Listed(NamedTuple):
    """One answer to a listing."""

    blobs: list[Blob]
    prefixes: list[str]
    token: str  # the service's own mark of the next page, empty at the last


class GcsBlobs:
    """A bucket; see `storage.blobs.BlobStore`.

    Args:
        bucket: its name.
        versions: list and delete every generation.
        requests: of those who ask, at most, at the same time.

    Raises:
        BlobsRefused: there are no credentials.
        BlobsAway: they could not be looked up.
    """

    def __init__(self, bucket: str, *, versions: bool = False, requests: int = 10) -> None:
        self._bucket = bucket
        self._versions = versions
        # Else the library asks in a thread of its own for what only its traces need.
        os.environ.setdefault("DISABLE_GCS_PYTHON_CLIENT_OTEL_BUCKET_METADATA", "true")
        try:
            self._client: Any = Client(project=None)
            self._handle: Any = self._client.bucket(bucket)
        except (GoogleAuthError, OSError) as error:
            raise _explain_away(error) from error
        except ValueError as error:
            msg = f"GCS_BUCKET={bucket!r} cannot be used: {error}"
            raise BlobsRefused(msg) from error
        threads = min(_ABREAST * requests, _THREADS)
        adapter = HTTPAdapter(pool_maxsize=threads + requests)
        for scheme in ("https://", "http://"):
            self._client._http.mount(scheme, adapter)  # Google's own way to larger pools
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="gcs")

    def page(self, prefix: str, after: str = "", *, limit: int = PAGE) -> BlobPage:
        """See `BlobStore.page`."""
        if not prefix:
            msg = "an empty prefix is never listed: it would be every run's"
            raise ValueError(msg)
        key, listed = after.partition(_AND)[0], self._list(after, limit, prefix=prefix)
        blobs = [blob for blob in listed.blobs if blob.key != key]
        blobs, more = blobs[:limit], bool(listed.token) or len(blobs) > limit
        if not blobs:  # Google's pages may be empty though more of them follow
            return BlobPage([], _join(key, listed.token), bool(listed.token))
        last = blobs[-1].key
        if not self._versions or not more:
            return BlobPage(blobs, last, more)
        # Of the last key there may be more generations: it is left to the next page, whole.
        whole = [blob for blob in blobs if blob.key != last]
        if whole:
            return BlobPage(whole, whole[-1].key, more=True)
        return BlobPage(blobs, last, more=True, cut=True)

    def names(self, after: str = "", *, limit: int = PAGE) -> NamePage:
        """See `BlobStore.names`."""
        key, listed = after.partition(_AND)[0], self._list(after, limit, delimiter="/")
        # Each with where the next page begins behind it, which is before a name and at a key.
        found = sorted(
            [(blob.key, blob.key, "") for blob in listed.blobs if blob.key != key]
            + [(prefix, prefix[:-1] + _AFTER_SLASH, prefix[:-1]) for prefix in listed.prefixes]
        )
        if not found:
            return NamePage([], _join(key, listed.token), bool(listed.token))
        some = found[:limit]
        return NamePage([name for _, _, name in some if name], some[-1][1], bool(listed.token) or len(found) > limit)

    def find(self, keys: Sequence[str]) -> list[Blob]:
        """See `BlobStore.find`."""
        if not self._versions:
            return [Blob(key) for key in keys]
        return [blob for key in keys for blob in self._find_generations(key)]

    def _find_generations(self, key: str) -> list[Blob]:
        found, headway = list[Blob](), Headway(f"generations of {key!r}")
        listed = self._list(key, PAGE, prefix=key)
        while True:
            found += [blob for blob in listed.blobs if blob.key == key]
            if not listed.token or any(blob.key != key for blob in listed.blobs):
                return found
            headway.step(listed.token, found=bool(listed.blobs))
            listed = self._list(_join(key, listed.token), PAGE, prefix=key)

    def delete(self, blobs: Sequence[Blob]) -> list[Refusal]:
        """See `BlobStore.delete`."""
        answers = [self._pool.submit(self._delete, blob) for blob in blobs]
        refusals, absent = list[Refusal](), False
        try:
            for answer in answers:
                refusal, was_there = answer.result()
                refusals += [refusal] if refusal is not None else []
                absent = absent or not was_there
        finally:
            for answer in answers:
                answer.cancel()
        if absent:  # Google says the same of an object and of a bucket that is not there
            self.names(limit=1)
        return refusals

    def _delete(self, blob: Blob) -> tuple[Refusal | None, bool]:
        """Delete one; why it is still there, and whether it was."""
        if blob.key in {".", ".."}:  # in a path these would be the bucket
            return Refusal(blob, "invalid", "no object has such a name", passing=False), True
        generation = int(blob.version) if blob.version else None
        try:
            self._handle.delete_blob(
                blob.key, generation=generation, timeout=(CONNECT_SECONDS, READ_SECONDS), retry=None
            )
        except GoogleAPICallError as error:
            if error.code == 404:
                return None, False
            code, message, passing = _read(error)
            return Refusal(blob, code, message, passing), True
        except (GoogleAuthError, RequestException) as error:
            raise _explain_away(error) from error
        return None, True

    def write_probe(self, key: str) -> Blob:
        """See `ProbedBlobStore.write_probe`."""
        probe = self._handle.blob(key)
        try:
            probe.upload_from_string(b"", timeout=(CONNECT_SECONDS, READ_SECONDS), retry=None)
        except GoogleAPICallError as error:
            raise self._explain(error) from error
        except (GoogleAuthError, RequestException) as error:
            raise _explain_away(error) from error
        return Blob(key, version=None if probe.generation is None else str(probe.generation))

    def close(self) -> None:
        """Close the connections. Closing twice is fine."""
        self._pool.shutdown(cancel_futures=True)
        self._client.close()

    def _list(self, after: str, limit: int, **arguments: Any) -> _Listed:
        """An answer from a key on, the key itself included."""
        start, _, token = after.partition(_AND)
        try:
            answers = self._client.list_blobs(
                self._bucket,
                start_offset=start or None,
                page_token=token or None,
                versions="true" if self._versions else None,  # a bool would go as "True", which not all servers know
                page_size=min(limit + bool(start), PAGE),
                fields=_FIELDS,
                timeout=(CONNECT_SECONDS, READ_SECONDS),
                retry=None,
                **arguments,
            )
            answer = next(answers.pages)
            blobs = [
                Blob(
                    item.name,
                    item.size or 0,
                    str(item.generation) if self._versions else None,
                    item.time_created.timestamp() if item.time_created else 0.0,
                )
                for item in answer
            ]
            return _Listed(blobs, list(answer.prefixes), answers.next_page_token or "")
        except GoogleAPICallError as error:
            raise self._explain(error) from error
        except (GoogleAuthError, RequestException) as error:
            raise _explain_away(error) from error

    def _explain(self, error: GoogleAPICallError) -> BlobsAway | BlobsRefused:
        code, message, passing = _read(error)
        if error.code == 404:
            return BlobsRefused(f"{code}: there is no bucket {self._bucket!r}: make it, or look at GCS_BUCKET")
        words = f"{code}: {message} (bucket {self._bucket!r})"
        return BlobsAway(words) if passing else BlobsRefused(words)


def _join(key: str, token: str) -> str:
    """Where the next page begins: at a key, or at the service's own mark behind it."""
    return key + (_AND + token if token else "")


def _read(error: GoogleAPICallError) -> tuple[str, str, bool]:
    """Code, message, and whether it may be otherwise in a moment."""
    details = [detail for detail in error.errors if isinstance(detail, dict)]
    reason = str(details[0].get("reason", "")) if details else ""
    passing = error.code in _PASSING_STATUS or reason in _PASSING
    return f"{error.code} {reason or type(error).__name__}", str(error.message), passing


def _explain_away(error: Exception) -> BlobsAway | BlobsRefused:
    away = isinstance(error, RequestException | TransportError) or getattr(error, "retryable", False)
    return BlobsAway(f"{type(error).__name__}: {error}") if away else BlobsRefused(f"{type(error).__name__}: {error}")
