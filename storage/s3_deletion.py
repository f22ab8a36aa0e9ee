"""Deleting in S3: a thousand objects a request, or each by itself where a store does not take such requests.

Layers that speak S3 in front of another store, and guards before a server, know single deletions where they do not know
``DeleteObjects``. Which words they refuse it with is no standard. So a refusal is put to the test: where a single
deletion goes through, it was meant for the form, and single ones are made for an hour; then the form is tried again.
"""

from __future__ import annotations

import logging
import re
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final

from botocore.exceptions import ClientError

from storage.blobs import PAGE, Blob, Refusal
from storage.s3_client import PASSING, S3Client, read_error, read_status

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

ABREAST: Final = 8  # objects that are deleted at once where another store gets one request
_THREADS: Final = 128
SINGLY_SECONDS: Final = 3_600.0

_GONE: Final = frozenset({"NoSuchKey", "NoSuchVersion", "NotFound", "404"})
# Refusals of the form itself: not implemented, or for want of a checksum of one kind or the other.
_FORM: Final = frozenset(
    {"NotImplemented", "MethodNotAllowed", "MissingContentMD5", "InvalidDigest", "BadDigest", "501", "405"}
)
_FORM_STATUS: Final = frozenset({405, 501})
# A bulk request cannot carry keys with these characters, or bends them.
_NO_XML: Final = re.compile("[\x00-\x1f\x7f-\x9f\ufffe\uffff]")

_log = logging.getLogger(__name__)


def count_threads(requests: int) -> int:
    """Single deletions in flight, at most.

    Args:
        requests: of those who ask, at most, at the same time.
    """
    return min(ABREAST * requests, _THREADS)


class Deletion:
    """Deletes in one bucket; see `storage.blobs.BlobStore.delete`.

    Args:
        client: of the bucket.
        requests: of those who ask, at most, at the same time.
        clock: seconds that only go forward.
    """

    def __init__(self, client: S3Client, *, requests: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._client = client
        self._clock = clock
        self._singly_until = 0.0
        self._pool = ThreadPoolExecutor(count_threads(requests), thread_name_prefix="s3")

    def delete(self, blobs: Sequence[Blob]) -> list[Refusal]:
        """Delete them; those that are still there.

        Raises:
            BlobsAway: the store does not answer, or asks for patience.
            BlobsRefused: it said no to all of it.
        """
        odd = [blob for blob in blobs if _NO_XML.search(blob.key)]
        plain = [blob for blob in blobs if not _NO_XML.search(blob.key)] if odd else blobs
        refusals: list[Refusal] = []
        for start in range(0, len(plain), PAGE):
            some = plain[start : start + PAGE]
            refusals += self._delete_each(some) if self._clock() < self._singly_until else self._delete_some(some)
        return refusals + self._delete_each(odd)

    def close(self) -> None:
        """End the threads. Closing twice is fine."""
        self._pool.shutdown(cancel_futures=True)

    def _delete_some(self, blobs: Sequence[Blob]) -> list[Refusal]:
        """With one request, if the store takes it."""
        named = {(blob.key, blob.version): blob for blob in blobs}
        objects = [{"Key": key} | ({"VersionId": version} if version else {}) for key, version in named]
        try:
            answer = self._client.ask_plainly(
                self._client.boto.delete_objects, Delete={"Objects": objects, "Quiet": True}
            )
        except ClientError as error:
            return self._try_singly(blobs, error)
        refusals = []
        for refused in answer.get("Errors", ()):
            code = str(refused.get("Code", ""))
            if code in _GONE:
                continue
            key, version = refused.get("Key", ""), refused.get("VersionId") or None
            # Not every server says which version it means: then it may be any of the key's.
            meant = [blob for blob in blobs if blob.key == key and version in {None, blob.version}]
            refusals += [
                Refusal(blob, code, refused.get("Message", ""), code in PASSING)
                for blob in meant or [Blob(key, 0, version)]
            ]
        return refusals

    def _try_singly(self, blobs: Sequence[Blob], error: ClientError) -> list[Refusal]:
        """A whole request was refused: find out whether for its form, and do without it then."""
        code, message, passing = read_error(error)
        by_form = code in _FORM or read_status(error) in _FORM_STATUS
        if code == "NoSuchBucket" or (passing and not by_form):
            raise self._client.explain(error) from error
        first = self._delete_each(blobs[:1])
        if first and (not by_form or first[0].code == code):
            raise self._client.explain(error) from error
        self._singly_until = self._clock() + SINGLY_SECONDS
        _log.warning(
            "bucket %r takes no DeleteObjects (%s: %s): its objects go one by one for an hour, then it is asked again",
            self._client.bucket,
            code,
            message,
        )
        return first + self._delete_each(blobs[1:])

    def _delete_each(self, blobs: Sequence[Blob]) -> list[Refusal]:
        """With a request for each, many at once."""
        keys: dict[str, list[Blob]] = {}
        for blob in blobs:
            keys.setdefault(blob.key, []).append(blob)
        # The versions of one key one after the other: servers get into trouble with those that go at the same time.
        answers = [self._pool.submit(self._delete_in_turn, some) for some in keys.values()]
        refusals, nameless = list[Refusal](), False
        try:
            for refusal, is_nameless in (one for answer in answers for one in answer.result()):
                refusals += [refusal] if refusal is not None else []
                nameless = nameless or is_nameless
        finally:
            for answer in answers:
                answer.cancel()
        if nameless:  # such an answer means an object or a bucket that is not there
            self._client.list(self._client.boto.list_objects_v2, MaxKeys=1)
        return refusals

    def _delete_in_turn(self, blobs: Sequence[Blob]) -> list[tuple[Refusal | None, bool]]:
        return [self._delete_one(blob) for blob in blobs]

    def _delete_one(self, blob: Blob) -> tuple[Refusal | None, bool]:
        """Why it is still there; and whether the store said that something is not there, but not what."""
        version = {"VersionId": blob.version} if blob.version else {}
        try:
            self._client.ask_plainly(self._client.boto.delete_object, Key=blob.key, **version)
        except ClientError as error:
            code, message, passing = read_error(error)
            if code == "NoSuchBucket":
                raise self._client.explain(error) from error
            if code in _GONE:
                return None, code in {"404", "NotFound"}
            return Refusal(blob, code, message, passing), False
        return None, False
