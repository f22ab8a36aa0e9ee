"""A blob store in memory that does as it is told: which keys it refuses, when it is away, what happens meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from storage.blobs import PAGE, Blob, BlobPage, NamePage, Refusal
from storage.errors import BlobsAway


class MemoryBlobs:
    """See `storage.blobs.BlobStore`; versions are not kept."""

    def __init__(self, *keys: str) -> None:
        self.objects: dict[str, bytes] = dict.fromkeys(keys, b"blob")
        self.refused: dict[str, tuple[str, bool]] = {}  # key to code, and whether that passes at the next try
        self.away = 0  # requests that are not answered from now on
        self.immortal = False  # says that it deletes, and does not
        self.calls: list[tuple[str, str, int]] = []
        self.before_delete: Callable[[Sequence[Blob]], None] = lambda blobs: None
        self._lock = threading.Lock()

    def _answer(self, what: str, where: str, count: int) -> None:
        with self._lock:
            self.calls.append((what, where, count))
            if self.away:
                self.away -= 1
                msg = "the server does not answer"
                raise BlobsAway(msg)

    def page(self, prefix: str, after: str = "", *, limit: int = PAGE) -> BlobPage:
        self._answer("page", prefix, limit)
        with self._lock:
            keys = sorted(key for key in self.objects if key.startswith(prefix) and key > after)
        blobs = [Blob(key, len(self.objects.get(key, b""))) for key in keys[:limit]]
        return BlobPage(blobs, blobs[-1].key if blobs else after, len(keys) > limit)

    def names(self, after: str = "", *, limit: int = PAGE) -> NamePage:
        self._answer("names", after, limit)
        names = sorted({key.partition("/")[0] for key in self.objects if "/" in key})
        some = [name for name in names if name > after]
        return NamePage(some[:limit], some[:limit][-1] if some else after, len(some) > limit)

    def find(self, keys: Sequence[str]) -> list[Blob]:
        return [Blob(key) for key in keys]

    def delete(self, blobs: Sequence[Blob]) -> list[Refusal]:
        self.before_delete(blobs)
        self._answer("delete", blobs[0].key, len(blobs))
        refusals = []
        with self._lock:
            for blob in blobs:
                if blob.key in self.refused:
                    code, passing = self.refused[blob.key]
                    refusals.append(Refusal(blob, code, "no", passing))
                    if passing:
                        del self.refused[blob.key]
                elif not self.immortal:
                    self.objects.pop(blob.key, None)
        return refusals

    def write_probe(self, key: str) -> Blob:
        self._answer("write_probe", key, 1)
        self.objects[key] = b""
        return Blob(key)

    def close(self) -> None:
        """Nothing is held."""
