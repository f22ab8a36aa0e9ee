"""What a key, a value and a range may be, on every engine (https://apple.github.io/foundationdb/known-limitations.html).

FoundationDB's client finds some of these at the commit, or ends the process; here they are found at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from storage.engine import KEY_LIMIT, VALUE_LIMIT
from storage.errors import KeyTooLarge, ValueTooLarge

if TYPE_CHECKING:
    from collections.abc import Mapping

SYSTEM_KEYS: Final = b"\xff"


def check_key(key: bytes) -> None:
    """Whether ``key`` may be read and cleared.

    Raises:
        TypeError: it is not bytes.
        ValueError: it is among the store's own keys.
    """
    if type(key) is not bytes:
        msg = f"a key is bytes, not {type(key).__name__}"
        raise TypeError(msg)
    if key >= SYSTEM_KEYS:
        msg = f"the key {key[:60]!r} is among the store's own, which begin with ff"
        raise ValueError(msg)


def check_pair(key: bytes, value: bytes) -> None:
    """Whether ``value`` may be written under ``key``.

    Raises:
        KeyTooLarge, ValueTooLarge: it is beyond a limit.
        TypeError, ValueError: as in `check_key`.
    """
    if type(key) is not bytes or key >= SYSTEM_KEYS:
        check_key(key)
    if type(value) is not bytes:
        msg = f"a value is bytes, not {type(value).__name__}"
        raise TypeError(msg)
    if len(key) > KEY_LIMIT:
        msg = f"a key of {len(key):,} bytes (limit {KEY_LIMIT:,}): {key[:60]!r}..."
        raise KeyTooLarge(msg)
    if len(value) > VALUE_LIMIT:
        msg = f"a value of {len(value):,} bytes (limit {VALUE_LIMIT:,}) under {key[:200]!r}"
        raise ValueTooLarge(msg)


def check_pairs(pairs: Mapping[bytes, bytes]) -> None:
    """Whether all of these may be written; cheap where they may, as nearly always.

    Raises:
        KeyTooLarge, ValueTooLarge, TypeError, ValueError: of the first that may not, as in `check_pair`.
    """
    if not pairs:
        return
    values = pairs.values()
    if (
        {*map(type, pairs), *map(type, values)} != {bytes}
        or max(map(len, pairs)) > KEY_LIMIT
        or max(map(len, values)) > VALUE_LIMIT
        or max(pairs) >= SYSTEM_KEYS
    ):
        for key, value in pairs.items():
            check_pair(key, value)


def check_range(begin: bytes, end: bytes, *, limit: int) -> None:
    """Whether a range may be read; one that ends before it begins is empty.

    Raises:
        TypeError, ValueError: as in `check_key`; or a limit below 0.
    """
    if type(begin) is not bytes or type(end) is not bytes:
        msg = f"a range is between bytes, not {type(begin).__name__} and {type(end).__name__}"
        raise TypeError(msg)
    if begin > SYSTEM_KEYS or end > SYSTEM_KEYS:
        msg = f"the range {begin[:60]!r} .. {end[:60]!r} is among the store's own keys, which begin with ff"
        raise ValueError(msg)
    if limit < 0:
        msg = f"the limit of a range is {limit}: use 0 for all of it"
        raise ValueError(msg)


def check_span(begin: bytes, end: bytes) -> None:
    """Whether a range may be cleared.

    Raises:
        TypeError, ValueError: as in `check_range`; or it ends before it begins (FoundationDB error 2005).
    """
    check_range(begin, end, limit=0)
    if begin > end:
        msg = f"a range that ends before it begins: {begin[:60]!r} .. {end[:60]!r}"
        raise ValueError(msg)
