"""All keys of a directory: out as lines, and back in. Bounded memory, bounded transactions."""

from __future__ import annotations

import json
import math
import struct
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import fdb.tuple
import msgpack

from storage.directories import BRIDGE, INDEXES, RUNS, SYSTEM
from storage.engine import KEY_LIMIT, VALUE_LIMIT

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from storage.engine import Engine, KeyValue, Transaction

DIRECTORIES: Final = tuple(sorted("/".join(path) for path in (RUNS, INDEXES, SYSTEM, BRIDGE)))
_PAGE: Final = 2_000  # pairs of a read, at most
_CHUNK: Final = 1_000_000  # bytes of a read or of a transaction, about
_CHUNK_PAIRS: Final = 5_000  # pairs of a transaction: FoundationDB adds some 100 bytes to each
_EXACT: Final = 2**53  # integers beyond are not exact in every JSON reader


class Row(NamedTuple):
    """A key of a directory, without the directory's prefix, and its value."""

    directory: str
    key: bytes
    value: bytes


def scan(engine: Engine, directory: str) -> Iterator[Row]:
    """All rows of a directory in key order, read page by page; not one consistent state if somebody writes.

    Raises:
        StorageUnavailable: the store did not answer.
    """
    prefix = engine.directory(*directory.split("/"))
    begin, end = prefix, _end(prefix)
    page = _PAGE
    while True:
        start, limit = begin, page
        pairs: list[KeyValue] = engine.read(
            lambda transaction: transaction.get_range(start, end, limit=limit).wait()  # noqa: B023 - run at once
        )
        for key, value in pairs:
            yield Row(directory, key[len(prefix) :], value)
        if len(pairs) < page:
            return
        begin = pairs[-1][0] + b"\x00"
        # Values may have 100,000 bytes: the next page is of about the wanted size if it is like this one.
        size = sum(len(key) + len(value) for key, value in pairs)
        page = min(_PAGE, max(10, page * _CHUNK // max(size, 1)))


def is_empty(engine: Engine, directory: str) -> bool:
    """Whether a directory holds no key."""
    prefix = engine.directory(*directory.split("/"))
    return not engine.read(lambda transaction: transaction.get_range(prefix, _end(prefix), limit=1).wait())


def _end(prefix: bytes) -> bytes:
    """The first key after all that begin with ``prefix``."""
    kept = prefix.rstrip(b"\xff")
    return kept[:-1] + bytes((kept[-1] + 1,))


def write(engine: Engine, rows: Iterable[Row]) -> int:
    """Write rows, many to a transaction; their number. What was written stays if ``rows`` fails midway.

    Raises:
        StorageUnavailable: the store did not answer.
    """
    prefixes: dict[str, bytes] = {}
    waiting: list[KeyValue] = []
    size = count = 0
    for row in rows:
        prefix = prefixes.get(row.directory)
        if prefix is None:
            prefix = prefixes[row.directory] = engine.directory(*row.directory.split("/"))
        waiting.append((prefix + row.key, row.value))
        size += len(row.key) + len(row.value)
        count += 1
        if size >= _CHUNK or len(waiting) >= _CHUNK_PAIRS:
            _write(engine, waiting)
            waiting, size = [], 0
    _write(engine, waiting)
    return count


def _write(engine: Engine, pairs: list[KeyValue]) -> None:
    def work(transaction: Transaction) -> None:
        for key, value in pairs:
            transaction.set(key, value)

    if pairs:
        engine.transact(work)


def format_row(row: Row) -> str:
    """A row as a line of JSON: ``dir``, ``key_hex`` and ``value_hex`` say all; the rest is for reading."""
    return json.dumps(
        {
            "dir": row.directory,
            "key": _show_key(row.key),
            "key_hex": row.key.hex(),
            "value_hex": row.value.hex(),
            "value": _show_value(row.value),
        }
    )


def parse_row(line: str) -> Row:
    """The inverse of `format_row`; needs only ``dir``, ``key_hex`` and ``value_hex``.

    Raises:
        ValueError: the line is no row; says why.
    """
    fields = json.loads(line)
    if not isinstance(fields, dict):
        msg = "not a JSON object"
        raise ValueError(msg)
    missing = [name for name in ("dir", "key_hex", "value_hex") if not isinstance(fields.get(name), str)]
    if missing:
        msg = f"{', '.join(missing)} must be there, as text"
        raise ValueError(msg)
    if fields["dir"] not in DIRECTORIES:
        msg = f"dir is {fields['dir']!r}, known are {', '.join(DIRECTORIES)}"
        raise ValueError(msg)
    row = Row(fields["dir"], _parse_hex(fields, "key_hex"), _parse_hex(fields, "value_hex"))
    if len(row.key) > KEY_LIMIT or len(row.value) > VALUE_LIMIT:
        msg = (
            f"a key of {len(row.key)} and a value of {len(row.value)} bytes: the store takes {KEY_LIMIT}, {VALUE_LIMIT}"
        )
        raise ValueError(msg)
    return row


def _parse_hex(fields: dict[str, str], name: str) -> bytes:
    try:
        return bytes.fromhex(fields[name])
    except ValueError as error:
        msg = f"{name} is not hexadecimal: {error}"
        raise ValueError(msg) from error


def _show_key(key: bytes) -> Any:
    try:
        return [_show_element(element) for element in fdb.tuple.unpack(key)]
    except (ValueError, IndexError, struct.error):
        return None


def _show_element(element: Any) -> dict[str, Any]:
    """A key element with its type, as in the conformance files."""
    match element:
        case None:
            return {"t": "null", "v": None}
        case bool():
            return {"t": "bool", "v": element}
        case int():
            return {"t": "int", "v": element if abs(element) <= _EXACT else str(element)}
        case float():
            return {"t": "float", "v": _show(element), "hex": struct.pack(">d", element).hex()}
        case str():
            return {"t": "str", "v": element}
        case tuple() | list():
            return {"t": "tuple", "v": [_show_element(inner) for inner in element]}
        case _:
            return {"t": type(element).__name__, "v": repr(element)}


def _show_value(value: bytes) -> Any:
    if not value:
        return {"$empty": True}
    try:
        return _show(msgpack.unpackb(value, strict_map_key=False))
    except (ValueError, TypeError, RecursionError, msgpack.UnpackException):
        return {"$bytes": len(value)}


def _show(value: Any) -> Any:
    """A value as JSON can show it."""
    match value:
        case bool() | None | str():
            return value
        case int():
            return value if abs(value) <= _EXACT else {"$int": str(value)}
        case float():
            return value if math.isfinite(value) else {"$float": repr(value)}
        case list() | tuple():
            return [_show(inner) for inner in value]
        case dict():
            return {str(name): _show(inner) for name, inner in value.items()}
        case _:
            return {"$bytes": len(value)} if isinstance(value, bytes) else repr(value)
