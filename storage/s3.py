"""Blobs in S3, or in whatever speaks its protocol (boto3).

Every request has timeouts and is made once: what is tried again, and for how long, is decided by who asks.
"""

from __future__ import annotations

import base64
import hashlib
import re
from typing import TYPE_CHECKING, Any, Final

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, ParamValidationError

from storage.blobs import PAGE, Blob, BlobPage, NamePage, Refusal
from storage.errors import BlobsAway, BlobsRefused

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

CONNECT_SECONDS: Final = 5.0
READ_SECONDS: Final = 20.0

_PASSING: Final = frozenset(
    {
        "SlowDown",
        "Throttling",
        "ThrottlingException",
        "RequestLimitExceeded",
        "TooManyRequests",
        "ServiceUnavailable",
        "InternalError",
        "RequestTimeout",
        "OperationAborted",
        "429",
        "500",
        "502",
        "503",
        "504",
    }
)
_PASSING_STATUS: Final = frozenset({429, 500, 502, 503, 504})
# A bulk request cannot carry keys with these characters, or bends them.
_NO_XML: Final = re.compile("[\x00-\x1f\x7f-\x9f\ufffe\uffff]")
_LAST: Final = "\U0010ffff"
_AND: Final = "\0"  # between key and version of a position; no key has it


class S3Blobs:
    """A bucket; see `storage.blobs.BlobStore`.

    Args:
        bucket: its name.
        endpoint: the server's address; empty: Amazon's own.
        key: access key; empty, with an empty secret: the cloud's own identity (an IAM role, say).
        secret: secret key.
        region: the region that requests are signed for.
        versions: list and delete every version and delete marker.
        requests: connections kept, at most.
    """

    def __init__(
        self,
        bucket: str,
        *,
        endpoint: str,
        key: str,
        secret: str,
        region: str,
        versions: bool = False,
        requests: int = 10,
    ) -> None:
        self._bucket = bucket
        self._versions = versions
        session = boto3.session.Session()
        self._client: Any = session.client(
            "s3",
            endpoint_url=endpoint or None,
            aws_access_key_id=key or None,  # None: botocore looks for the cloud's own identity
            aws_secret_access_key=secret or None,
            region_name=region,
            config=Config(
                signature_version="s3v4",
                connect_timeout=CONNECT_SECONDS,
                read_timeout=READ_SECONDS,
                retries={"total_max_attempts": 1, "mode": "standard"},
                max_pool_connections=max(10, requests),
            ),
        )
        # Servers older than S3's newer checksums want this one for bulk deletes; the others take both.
        self._client.meta.events.register("before-sign.s3.DeleteObjects", _add_md5)

    def page(self, prefix: str, after: str = "", *, limit: int = PAGE) -> BlobPage:
        """See `BlobStore.page`."""
        if not prefix:
            msg = "an empty prefix is never listed: it would be every run's"
            raise ValueError(msg)
        if self._versions:
            return self._page_of_versions(prefix, after, limit)
        answer = self._ask(
            self._client.list_objects_v2, Prefix=prefix, MaxKeys=limit, **({"StartAfter": after} if after else {})
        )
        blobs = [
            Blob(item["Key"], item.get("Size", 0), None, _seconds(item))
            for item in answer.get("Contents", ())
            if item["Key"].startswith(prefix)
        ]
        return BlobPage(blobs, blobs[-1].key if blobs else after, bool(answer.get("IsTruncated")) and bool(blobs))

    def _page_of_versions(self, prefix: str, after: str, limit: int) -> BlobPage:
        key, _, version = after.partition(_AND)
        where = {"KeyMarker": key} if key else {}
        if version:
            where["VersionIdMarker"] = version
        answer = self._ask(self._client.list_object_versions, Prefix=prefix, MaxKeys=limit, **where)
        blobs = [
            Blob(item["Key"], item.get("Size", 0), item["VersionId"], _seconds(item))
            for item in (*answer.get("Versions", ()), *answer.get("DeleteMarkers", ()))
            if item["Key"].startswith(prefix) and (version or item["Key"] > key)  # some servers begin at the marker
        ]
        last = max((blob.key for blob in blobs), default=key)
        if not answer.get("IsTruncated") or not answer.get("NextKeyMarker"):
            return BlobPage(blobs, last, more=False)
        # Of the last key there may be more versions. It is left to the next page, whole: to go on behind a version that
        # was deleted meanwhile is what servers do not agree on. Only a key with more versions than a page is cut.
        whole = [blob for blob in blobs if blob.key != last]
        if whole:
            return BlobPage(whole, max(blob.key for blob in whole), more=True)
        end = answer["NextKeyMarker"] + _AND + (answer.get("NextVersionIdMarker") or "")
        return BlobPage(blobs, end, more=True, cut=bool(blobs))

    def names(self, after: str = "", *, limit: int = PAGE) -> NamePage:
        """See `BlobStore.names`. With versions also those under which nothing but old versions and markers stands."""
        ask = self._client.list_object_versions if self._versions else self._client.list_objects_v2
        where = {"KeyMarker" if self._versions else "StartAfter": after} if after else {}
        answer = self._ask(ask, Delimiter="/", MaxKeys=limit, **where)
        prefixes = [item["Prefix"] for item in answer.get("CommonPrefixes", ())]
        # Behind a prefix the next page begins at its last possible key, so that its own are passed over.
        keys = [item["Key"] for kind in ("Contents", "Versions", "DeleteMarkers") for item in answer.get(kind, ())]
        ends = keys + [prefix + _LAST for prefix in prefixes]
        end = max(ends, default=after)
        names = [prefix.removesuffix("/") for prefix in prefixes if prefix + _LAST > after]
        return NamePage(names, end, bool(answer.get("IsTruncated")) and end > after)

    def find(self, keys: Sequence[str]) -> list[Blob]:
        """See `BlobStore.find`."""
        if not self._versions:
            return [Blob(key) for key in keys]
        found: list[Blob] = []
        for key in keys:
            page = BlobPage([], "", more=True)
            while page.more and (not page.end or page.end.partition(_AND)[0] == key):
                page = self._page_of_versions(key, page.end, PAGE)
                found += [blob for blob in page.blobs if blob.key == key]
        return found

    def delete(self, blobs: Sequence[Blob]) -> list[Refusal]:
        """See `BlobStore.delete`."""
        odd = [blob for blob in blobs if _NO_XML.search(blob.key)]
        plain = [blob for blob in blobs if not _NO_XML.search(blob.key)] if odd else blobs
        refusals: list[Refusal] = []
        for start in range(0, len(plain), PAGE):
            refusals += self._delete_some(plain[start : start + PAGE])
        for blob in odd:
            refusals += self._delete_one(blob)
        return refusals

    def _delete_some(self, blobs: Sequence[Blob]) -> list[Refusal]:
        named = {(blob.key, blob.version): blob for blob in blobs}
        objects = [{"Key": key} | ({"VersionId": version} if version else {}) for key, version in named]
        answer = self._ask(self._client.delete_objects, Delete={"Objects": objects, "Quiet": True})
        refusals = []
        for error in answer.get("Errors", ()):
            code = error.get("Code", "")
            if code in {"NoSuchKey", "NoSuchVersion"}:
                continue
            key, version = error.get("Key", ""), error.get("VersionId") or None
            # Not every server says which version it means: then it may be any of the key's.
            meant = [blob for blob in blobs if blob.key == key and version in {None, blob.version}]
            refusals += [
                Refusal(blob, code, error.get("Message", ""), code in _PASSING)
                for blob in meant or [Blob(key, 0, version)]
            ]
        return refusals

    def _delete_one(self, blob: Blob) -> list[Refusal]:
        version = {"VersionId": blob.version} if blob.version else {}
        try:
            self._client.delete_object(Bucket=self._bucket, Key=blob.key, **version)
        except ClientError as error:
            code, message, passing = _read(error)
            if code in {"NoSuchBucket", "404"}:
                raise self._explain(error) from error
            return [] if code in {"NoSuchKey", "NoSuchVersion"} else [Refusal(blob, code, message, passing)]
        except BotoCoreError as error:
            raise _explain_away(error) from error
        return []

    def close(self) -> None:
        """Close the connections. Closing twice is fine."""
        self._client.close()

    def _ask(self, method: Callable[..., Any], **arguments: Any) -> Any:
        try:
            return method(Bucket=self._bucket, **arguments)
        except ClientError as error:
            raise self._explain(error) from error
        except BotoCoreError as error:
            raise _explain_away(error) from error

    def _explain(self, error: ClientError) -> BlobsAway | BlobsRefused:
        code, message, passing = _read(error)
        if code == "NoSuchBucket":
            return BlobsRefused(f"NoSuchBucket: there is no bucket {self._bucket!r}: make it, or look at S3_BUCKET")
        words = f"{code}: {message} ({error.operation_name} on bucket {self._bucket!r})"
        return BlobsAway(words) if passing else BlobsRefused(words)


def _read(error: ClientError) -> tuple[str, str, bool]:
    """Code, message, and whether it may be otherwise in a moment."""
    what = error.response.get("Error", {})
    code = str(what.get("Code", ""))
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    return code, str(what.get("Message", "")), code in _PASSING or status in _PASSING_STATUS


def _explain_away(error: BotoCoreError) -> BlobsAway | BlobsRefused:
    if isinstance(error, NoCredentialsError | ParamValidationError):
        return BlobsRefused(f"{error}")
    return BlobsAway(f"{type(error).__name__}: {error}")


def _seconds(item: dict[str, Any]) -> float:
    modified = item.get("LastModified")
    return 0.0 if modified is None else float(modified.timestamp())


def _add_md5(request: Any, **_: Any) -> None:
    body = request.body if request.body is not None else b""
    if isinstance(body, bytes | bytearray) and "Content-MD5" not in request.headers:
        request.headers["Content-MD5"] = base64.b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode()
