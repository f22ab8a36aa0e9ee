"""Recorded records: one JSON line each, as in ``{"topic", "partition", "offset", "timestamp_ms", "key", "value"}``.

``key`` and ``value`` are text, or null where there is none; bytes that are not UTF-8 stand as ``key_base64`` and
``value_base64`` in their place. A file whose name ends in ``.gz`` is compressed; ``-`` is standard input.
"""

from __future__ import annotations

import base64
import binascii
import gzip
import json
import sys
from typing import IO, TYPE_CHECKING, Any, NamedTuple

from storage.batch import Record

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class BadLineError(Exception):
    """A line of a file is not what it should be; names file, line and what is wrong."""


class Recorded(NamedTuple):
    """A record with the place that it was recorded at."""

    topic: str
    partition: int
    record: Record


def open_text(path: Path) -> IO[str]:
    """Open a file of lines for reading; ``.gz`` and ``-`` as above. Never split its lines by anything but newlines."""
    if str(path) == "-":
        return sys.stdin
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8", newline="\n")
    return path.open(encoding="utf-8", newline="\n")


def read_recorded(path: Path) -> Iterator[Recorded]:
    """The records of a file, in its order.

    Raises:
        BadLineError: a line is not a recorded record.
        OSError: the file cannot be read.
    """
    with open_text(path) as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                try:
                    yield _parse(line)
                except (ValueError, TypeError, KeyError) as error:
                    what = f"{error} is missing" if isinstance(error, KeyError) else str(error)
                    msg = f"{path}, line {number}: {what}"
                    raise BadLineError(msg) from error


def _parse(line: str) -> Recorded:
    fields: Any = json.loads(line)
    if not isinstance(fields, dict):
        msg = "not a JSON object"
        raise TypeError(msg)
    numbers = {name: fields[name] for name in ("partition", "offset")}
    time = fields.get("timestamp_ms") or 0
    for name, number in {**numbers, "timestamp_ms": time}.items():
        if type(number) is not int or number < 0:
            msg = f"{name} must be a whole number from 0, it is {number!r}"
            raise TypeError(msg)
    record = Record(numbers["offset"], time, _content(fields, "key"), _content(fields, "value"))
    return Recorded(str(fields["topic"]), numbers["partition"], record)


def _content(fields: dict[str, Any], name: str) -> bytes | None:
    encoded = fields.get(f"{name}_base64")
    if encoded is not None:
        try:
            return base64.b64decode(encoded, validate=True)
        except (binascii.Error, TypeError) as error:
            msg = f"{name}_base64 is no base64: {error}"
            raise ValueError(msg) from error
    text = fields[name]
    if text is None:
        return None
    if not isinstance(text, str):
        msg = f"{name} must be text or null, it is {text!r:.50}"
        raise TypeError(msg)
    return text.encode()
