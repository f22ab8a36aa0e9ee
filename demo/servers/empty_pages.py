"""Listings of S3 as stores give them that cut a page first and leave out what is deleted or expired afterwards.

Before a page come pages that are empty and truncated. The page itself is fetched at once and handed out when its turn
has come, under a mark of ours: what we pass on stays as it was signed.
"""

from __future__ import annotations

import itertools
import threading
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qs, urlsplit
from xml.sax.saxutils import escape

if TYPE_CHECKING:
    from collections.abc import Callable

Answer = tuple[int, list[tuple[str, str]], bytes]

_XML: Final = [("Content-Type", "application/xml")]
_MARK: Final = "held"
_FIRST_KEY: Final = "!"  # before all names that are used


class EmptyPages:
    """What is held back, by its mark."""

    def __init__(self) -> None:
        self._held: dict[str, Answer] = {}
        self._numbers = itertools.count()
        self._lock = threading.Lock()

    def answer(self, path: str, fetch: Callable[[], Answer], *, count: int, circle: bool) -> Answer | None:
        """The answer to a listing; None: the request is none.

        Args:
            path: of the request.
            fetch: passes it on.
            count: empty pages before the page.
            circle: after the empty pages the first of them comes again, for ever.
        """
        query = parse_qs(urlsplit(path).query, keep_blank_values=True)
        versions = "versions" in query
        if not versions and "list-type" not in query:
            return None
        mark = query.get("version-id-marker" if versions else "continuation-token", [""])[0]
        key = query.get("key-marker", [_FIRST_KEY])[0]
        kind, _, rest = mark.partition(".")
        if kind == _MARK:
            number, _, left = rest.partition(".")
            if int(left) > 0:
                return _empty(key, f"{_MARK}.{number}.{int(left) - 1}", versions=versions)
            if circle:
                return _empty(key, f"{_MARK}.{number}.{count - 1}", versions=versions)
            with self._lock:
                return self._held[number]
        if not count:
            return None
        with self._lock:
            number = str(next(self._numbers))
        self._held[number] = fetch()
        return _empty(key, f"{_MARK}.{number}.{count - 1}", versions=versions)


def _empty(key: str, mark: str, *, versions: bool) -> Answer:
    if versions:
        body = f"<NextKeyMarker>{escape(key)}</NextKeyMarker><NextVersionIdMarker>{mark}</NextVersionIdMarker>"
        name = "ListVersionsResult"
    else:
        body, name = f"<KeyCount>0</KeyCount><NextContinuationToken>{mark}</NextContinuationToken>", "ListBucketResult"
    return 200, _XML, f"<{name}><IsTruncated>true</IsTruncated>{body}</{name}>".encode()
