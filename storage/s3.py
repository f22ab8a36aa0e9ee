"""Blobs in S3, or in whatever speaks its protocol.

Every request has timeouts and is made once: what is tried again, and for how long, is decided by who asks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from storage.blobs import PAGE, Blob, BlobPage, NamePage, Refusal
from storage.errors import BlobsRefused
from storage.listing import Headway
from storage.s3_client import Addressing, S3Client
from storage.s3_deletion import Deletion, count_threads

if TYPE_CHECKING:
    from collections.abc import Sequence

_LAST: Final = "\U0010ffff"
# What versitygw says to a version that is gone; others say these to what is there, too.
_UNCLEAR: Final = frozenset({"InvalidArgument", "InternalError"})
_AND: Final = "\0"  # between a position's key and the store's own mark or version; no key has it


class S3Blobs:
    """A bucket; see `storage.blobs.BlobStore`.

    Args:
        bucket: its name.
        endpoint, key, secret, region, ca_file, addressing, proxy, metadata: see `S3Client`.
        versions: list and delete every version and delete marker.
        requests: of those who ask, at most, at the same time.

    Raises: as `S3Client`.
    """

    def __init__(
        self,
        bucket: str,
        *,
        endpoint: str,
        key: str,
        secret: str,
        region: str,
        ca_file: str = "",
        addressing: Addressing = "auto",
        proxy: str = "",
        metadata: bool = True,
        versions: bool = False,
        requests: int = 10,
    ) -> None:
        self._versions = versions
        self._client = S3Client(
            bucket,
            endpoint=endpoint,
            key=key,
            secret=secret,
            region=region,
            ca_file=ca_file,
            addressing=addressing,
            proxy=proxy,
            metadata=metadata,
            connections=requests + count_threads(requests),
        )
        self._boto = self._client.boto
        self._deletion = Deletion(self._client, requests=requests)

    def page(self, prefix: str, after: str = "", *, limit: int = PAGE) -> BlobPage:
        """See `BlobStore.page`."""
        if not prefix:
            msg = "an empty prefix is never listed: it would be every run's"
            raise ValueError(msg)
        if self._versions:
            return self._page_of_versions(prefix, after, limit)
        answer = self._list_from(after, Prefix=prefix, MaxKeys=limit)
        blobs = [
            Blob(item["Key"], item.get("Size", 0), None, _seconds(item))
            for item in answer.get("Contents", ())
            if item["Key"].startswith(prefix)
        ]
        last = blobs[-1].key if blobs else after.partition(_AND)[0]
        return BlobPage(blobs, *self._find_end(answer, last, found=bool(blobs)))

    def _list_from(self, after: str, **what: Any) -> Any:
        """An answer to a listing: at the store's own mark, or behind the key where it takes that no more."""
        key, _, token = after.partition(_AND)
        if token:
            try:
                return self._client.list(self._boto.list_objects_v2, ContinuationToken=token, **what)
            except BlobsRefused:  # an old one, maybe; if it is something else, it is said again
                pass
        return self._client.list(self._boto.list_objects_v2, **what, **({"StartAfter": key} if key else {}))

    def _find_end(self, answer: Any, last: str, *, found: bool) -> tuple[str, bool]:
        """Where the next page begins, and whether there is one; that the page is empty says nothing of that."""
        token = answer.get("NextContinuationToken") or ""
        if not answer.get("IsTruncated") and not (token and found):
            return last, False
        if not token and not found:
            raise self._endless()
        return last + (_AND + token if token else ""), True

    def _page_of_versions(self, prefix: str, after: str, limit: int) -> BlobPage:
        key, _, version = after.partition(_AND)
        where = {"KeyMarker": key} if key else {}
        if version:
            where["VersionIdMarker"] = version
        answer = self._client.list(self._boto.list_object_versions, Prefix=prefix, MaxKeys=limit, **where)
        blobs = [
            Blob(item["Key"], item.get("Size", 0), item["VersionId"], _seconds(item))
            for item in (*answer.get("Versions", ()), *answer.get("DeleteMarkers", ()))
            if item["Key"].startswith(prefix) and (version or item["Key"] > key)  # some servers begin at the marker
        ]
        last = max((blob.key for blob in blobs), default=key)
        if not answer.get("IsTruncated"):
            return BlobPage(blobs, last, more=False)
        # Of the last key there may be more versions. It is left to the next page, whole: to go on behind a version that
        # was deleted meanwhile is what servers do not agree on. Only a key with more versions than a page is cut.
        whole = [blob for blob in blobs if blob.key != last]
        if whole:
            return BlobPage(whole, max(blob.key for blob in whole), more=True)
        return BlobPage(blobs, self._find_version_end(answer, last if blobs else ""), more=True, cut=bool(blobs))

    def _find_version_end(self, answer: Any, otherwise: str = "") -> str:
        """Where the store says that the next page begins."""
        if not answer.get("NextKeyMarker"):
            if otherwise:
                return otherwise
            raise self._endless()
        version = answer.get("NextVersionIdMarker")
        return str(answer["NextKeyMarker"]) + (_AND + version if version else "")

    def names(self, after: str = "", *, limit: int = PAGE) -> NamePage:
        """See `BlobStore.names`. With versions also those under which nothing but old versions and markers stands."""
        if not self._versions:
            answer = self._list_from(after, Delimiter="/", MaxKeys=limit)
            prefixes = [item["Prefix"] for item in answer.get("CommonPrefixes", ())]
            # Behind a prefix a page that has no mark begins at its last possible key, so that its own are passed over.
            ends = [item["Key"] for item in answer.get("Contents", ())] + [prefix + _LAST for prefix in prefixes]
            end, more = self._find_end(answer, max(ends, default=after.partition(_AND)[0]), found=bool(ends))
            return NamePage([prefix.removesuffix("/") for prefix in prefixes], end, more)
        key, _, version = after.partition(_AND)
        where = {"KeyMarker": key} if key else {}
        if version:
            where["VersionIdMarker"] = version
        answer = self._client.list(self._boto.list_object_versions, Delimiter="/", MaxKeys=limit, **where)
        prefixes = [item["Prefix"] for item in answer.get("CommonPrefixes", ())]
        keys = [item["Key"] for kind in ("Versions", "DeleteMarkers") for item in answer.get(kind, ())]
        end = max([*keys, *(prefix + _LAST for prefix in prefixes)], default="")
        more = bool(answer.get("IsTruncated"))
        if more and (not end or end <= key):
            end = self._find_version_end(answer)
        names = [prefix.removesuffix("/") for prefix in prefixes if prefix + _LAST > key]
        return NamePage(names, end, more)

    def find(self, keys: Sequence[str]) -> list[Blob]:
        """See `BlobStore.find`."""
        if not self._versions:
            return [Blob(key) for key in keys]
        return [blob for key in keys for blob in self._find_versions(key)]

    def _find_versions(self, key: str) -> list[Blob]:
        found, headway = list[Blob](), Headway(f"versions of {key!r}")
        page = self._page_of_versions(key, "", PAGE)
        while True:
            found += [blob for blob in page.blobs if blob.key == key]
            if not page.more or any(blob.key != key for blob in page.blobs):
                return found
            headway.step(page.end, found=bool(page.blobs))
            page = self._page_of_versions(key, page.end, PAGE)

    def delete(self, blobs: Sequence[Blob]) -> list[Refusal]:
        """See `BlobStore.delete`."""
        refusals = self._deletion.delete(blobs)
        return [refusal for refusal in refusals if not self._is_gone(refusal)] if self._versions else refusals

    def _is_gone(self, refusal: Refusal) -> bool:
        """Whether a version was refused for want of it, by a server that says so in its own way."""
        if refusal.code not in _UNCLEAR or not refusal.blob.version:
            return False
        found = self._find_versions(refusal.blob.key)
        return refusal.blob.version not in {blob.version for blob in found}

    def write_probe(self, key: str) -> Blob:
        """See `ProbedBlobStore.write_probe`."""
        answer = self._client.ask(self._boto.put_object, Key=key, Body=b"")
        return Blob(key, version=answer.get("VersionId"))

    def close(self) -> None:
        """Close the connections. Closing twice is fine."""
        self._deletion.close()
        self._client.close()

    def _endless(self) -> BlobsRefused:
        msg = "the store says that more of the listing follows, and neither a mark nor a key of it says where"
        return BlobsRefused(f"{msg} (bucket {self._client.bucket!r}); it is not taken for the end")


def _seconds(item: dict[str, Any]) -> float:
    modified = item.get("LastModified")
    return 0.0 if modified is None else float(modified.timestamp())
