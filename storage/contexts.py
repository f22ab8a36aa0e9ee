"""The id of a metric's context (CONTRACT 3.2): 0 for the empty one, else 32 bits of a hash of its canonical JSON."""

from __future__ import annotations

import hashlib
import json
from typing import Any, Final

_CACHED: Final = 10_000  # contexts; a run has a handful
_SHORT: Final = 500  # characters of a context's repr that are worth remembering

_ids: Final[dict[str, int]] = {}


def identify_context(context: Any) -> int:
    """The id of a context as received; anything falsy is the empty context.

    Two contexts have one id if and only if their canonical JSON is the same text: keys sorted by code point, no spaces,
    ASCII only, floats in their shortest form. ``{"a": 1}`` and ``{"a": 1.0}`` differ.
    """
    if not context:
        return 0
    shown = repr(context)  # tells apart whatever the canonical text tells apart, and costs a tenth of it
    known = _ids.get(shown)
    if known is not None:
        return known
    canonical = json.dumps(context, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    found = int.from_bytes(hashlib.sha256(canonical.encode("ascii")).digest()[:4], "big")
    if len(shown) <= _SHORT:
        if len(_ids) >= _CACHED:
            _ids.clear()
        _ids[shown] = found
    return found
