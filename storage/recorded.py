"""Recorded records: one JSON line each, as in ``{"topic", "partition", "offset", "timestamp_ms", "key", "value"}``.

``key`` and ``value`` are text, or null where there is none; bytes that are not UTF-8 stand as ``key_base64`` and
``value_base64`` in their place. ``timestamp_ms`` is null for a record without a time. A record with headers has
``headers`` too, a list of ``{"name", "value"}`` in their order, with ``value_base64`` as above. A file whose name ends
in ``.gz`` is compressed; ``-`` is standard input. A byte order mark at the beginning is passed over.
"""

from __future__ import annotations

import base64
import binascii
import codecs
import gzip
import json
import sys
import zlib
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

from storage.batch import NO_TIME, Record

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from storage.batch import Headers

T = TypeVar("T")

_UTF_16: Final = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_LARGEST: Final = 2**63 - 1  # Kafka's offsets and times are signed 64-bit


class BadLineError(Exception):
    """A line of a file is not what it should be; names file, line and what is wrong."""


class Recorded(NamedTuple):
    """A record with the place that it was recorded at."""

    topic: str
    partition: int
    record: Record


@contextmanager
def _open(path: Path) -> Iterator[IO[bytes] | gzip.GzipFile]:
    if str(path) == "-":
        yield sys.stdin.buffer  # not ours to close
    elif path.suffix == ".gz":
        with gzip.open(path, "rb") as unpacked:
            yield unpacked
    else:
        with path.open("rb") as plain:
            yield plain


def read_lines(path: Path, parse: Callable[[str], T]) -> Iterator[T]:
    """What ``parse`` makes of each line of a file that is not blank; nothing but newlines ends a line.

    Args:
        path: the file; ``.gz`` and ``-`` as above.
        parse: reads one line; raises ValueError, TypeError or KeyError (a missing field) where it is wrong.

    Raises:
        BadLineError: a line is wrong, or a compressed file is damaged.
        OSError: the file cannot be read.
    """
    number = 0
    try:
        with _open(path) as lines:
            for number, read in enumerate(lines, 1):
                line = read.removeprefix(codecs.BOM_UTF8) if number == 1 else read
                if line.startswith(_UTF_16) and number == 1:
                    msg = f"{path}: this is UTF-16, as some shells write it: write it as UTF-8"
                    raise BadLineError(msg)
                if line and not line.isspace():
                    yield _parse_line(path, number, line, parse)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        msg = f"{path}, after line {number}: the compressed file is damaged ({error})"
        raise BadLineError(msg) from error


def _parse_line(path: Path, number: int, line: bytes, parse: Callable[[str], T]) -> T:
    try:
        return parse(line.decode())
    except KeyError as error:
        what = f"{error.args[0]} is missing"
    except UnicodeDecodeError as error:
        what = f"not UTF-8 ({error.reason} at byte {error.start})"
    except json.JSONDecodeError as error:
        what = f"not JSON ({error.msg} at character {error.pos + 1})"
    except (ValueError, TypeError, RecursionError) as error:
        what = str(error)
    msg = f"{path}, line {number}: {what}"
    raise BadLineError(msg)


def read_recorded(path: Path) -> Iterator[Recorded]:
    """The records of a file, in its order.

    Raises:
        BadLineError: a line is not a recorded record.
        OSError: the file cannot be read.
    """
    return read_lines(path, parse_recorded)


def parse_recorded(line: str) -> Recorded:
    """The record of one line.

    Raises:
        ValueError, TypeError, KeyError: it is none; says why.
    """
    fields: Any = json.loads(line)
    if not isinstance(fields, dict):
        msg = "not a JSON object"
        raise TypeError(msg)
    topic = fields["topic"]
    if not isinstance(topic, str) or not topic:
        msg = f"topic must be text, it is {topic!r:.50}"
        raise TypeError(msg)
    for name in ("partition", "offset"):
        number = fields[name]
        if type(number) is not int or not 0 <= number <= _LARGEST:
            msg = f"{name} must be a whole number from 0 up to 64 bits, it is {number!r:.50}"
            raise TypeError(msg)
    content = _content(fields, "key"), _content(fields, "value")
    record = Record(fields["offset"], _time(fields.get("timestamp_ms")), *content, _headers(fields.get("headers")))
    return Recorded(topic, fields["partition"], record)


def _time(time: Any) -> int:
    """A time as Kafka has it: a broker takes negative ones too."""
    if time is None:
        return NO_TIME
    if type(time) is not int or not -_LARGEST - 1 <= time <= _LARGEST:
        msg = f"timestamp_ms must be a whole number of at most 64 bits, or null for none, it is {time!r:.50}"
        raise TypeError(msg)
    return time


def _headers(headers: Any) -> Headers:
    if headers is None:
        return ()
    if not isinstance(headers, list) or not all(isinstance(header, dict) for header in headers):
        msg = f'headers must be a list of {{"name", "value"}}, it is {headers!r:.50}'
        raise TypeError(msg)
    return tuple(_header(number, header) for number, header in enumerate(headers))


def _header(number: int, fields: dict[str, Any]) -> tuple[str, bytes | None]:
    try:
        name = _content({"name": fields["name"]}, "name")
        if name is None:
            msg = "name must be text, it is null"
            raise TypeError(msg)
        return name.decode(), _content(fields, "value")
    except KeyError as error:
        msg = f"headers[{number}]: {error.args[0]} is missing"
        raise ValueError(msg) from error
    except (TypeError, ValueError) as error:
        msg = f"headers[{number}]: {error}"
        raise ValueError(msg) from error


def _content(fields: dict[str, Any], name: str) -> bytes | None:
    encoded = fields.get(f"{name}_base64")
    if encoded is not None:
        if fields.get(name) is not None:
            msg = f"{name} and {name}_base64 are both there"
            raise ValueError(msg)
        try:
            return base64.b64decode(encoded, validate=True)
        except (binascii.Error, TypeError, ValueError) as error:
            msg = f"{name}_base64 is no base64: {error}"
            raise ValueError(msg) from error
    text = fields[name]
    if text is None:
        return None
    if not isinstance(text, str):
        msg = f"{name} must be text or null, it is {text!r:.50}"
        raise TypeError(msg)
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        msg = f"{name} has half a surrogate pair, which UTF-8 cannot hold: give its bytes as {name}_base64"
        raise ValueError(msg) from error


def format_recorded(recorded: Recorded) -> str:
    """The line of a record, without its newline; the inverse of `parse_recorded`."""
    topic, partition, record = recorded
    fields: dict[str, Any] = {
        "topic": topic,
        "partition": partition,
        "offset": record.offset,
        "timestamp_ms": None if record.timestamp_ms == NO_TIME else record.timestamp_ms,
        **_format_content("key", record.key),
        **_format_content("value", record.value),
    }
    if record.headers:
        fields["headers"] = [{"name": name, **_format_content("value", value)} for name, value in record.headers]
    return json.dumps(fields)


def _format_content(name: str, content: bytes | None) -> dict[str, str | None]:
    try:
        return {name: None if content is None else content.decode()}
    except UnicodeDecodeError:
        return {f"{name}_base64": base64.b64encode(content or b"").decode()}
