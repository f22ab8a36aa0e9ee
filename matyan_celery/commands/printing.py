"""Text of unknown origin, made safe to print."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from storage.batch import NO_TIME

if TYPE_CHECKING:
    from storage.batch import Headers

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def printable(text: str, *, lines: bool = False) -> str:
    """``text`` with all that a terminal would act on (and half surrogates, which no stream takes) as escapes.

    Args:
        text: anything.
        lines: leave newlines as they are.
    """
    if text.isprintable():
        return text
    return "".join(
        sign if sign.isprintable() or (lines and sign == "\n") else sign.encode("unicode_escape", "replace").decode()
        for sign in text
    )


def show_bytes(data: bytes | None) -> str:
    """Bytes for reading: JSON indented, other text as it is, anything else as a Python literal."""
    if data is None:
        return "(none)"
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return f"{data!r} (not UTF-8)"
    try:
        parsed = json.loads(text)
        if isinstance(parsed, dict | list):
            text = json.dumps(parsed, indent=2, ensure_ascii=False)
    except (ValueError, RecursionError):
        pass  # shown as it is
    return printable(text, lines=True)


def show_headers(headers: Headers) -> str:
    """A record's headers for reading, a line each."""
    return "\n".join(f"{printable(name)}: {show_bytes(value)}" for name, value in headers)


def show_sent(timestamp_ms: int) -> str:
    """The time of a record as ISO 8601 in UTC, if it has one."""
    return "(no time)" if timestamp_ms == NO_TIME else show_time(timestamp_ms / 1_000)


def show_time(seconds: float) -> str:
    """A Unix time as ISO 8601 in UTC, or as a number where no calendar has it."""
    try:
        return (_EPOCH + timedelta(seconds=seconds)).isoformat(timespec="milliseconds")
    except (OverflowError, ValueError):
        return f"{seconds} s"
