"""Bytes of keys and values (CONTRACT 3): tuple-layer keys, msgpack values; limits are checked before a write."""

from __future__ import annotations

import struct
from functools import lru_cache
from typing import Any, Final

import fdb.tuple
import msgpack

from storage.engine import KEY_LIMIT, VALUE_LIMIT
from storage.errors import InvalidRecord, KeyTooLarge, ValueTooLarge

EMPTY: Final = b""
TRUE: Final = b"\xc3"

_SHORT: Final = 200  # characters of text that is worth remembering packed

_packer: Final = msgpack.Packer(autoreset=True)
_pack_double: Final = struct.Struct(">cd").pack
_double: Final = struct.Struct(">d")
_double_bits: Final = struct.Struct(">Q")
_tagged_bits: Final = struct.Struct(">BQ")
_SIGN_BIT: Final = 1 << 63
_ALL_BITS: Final = (1 << 64) - 1


def pack_value(value: Any) -> bytes:
    """One msgpack object, at most 100,000 bytes.

    Raises:
        InvalidRecord: msgpack has no form for it (an integer beyond 64 bits).
        ValueTooLarge: it is longer.
    """
    try:
        packed: bytes = _packer.pack(value)
    except (OverflowError, ValueError, TypeError) as error:
        _packer.reset()
        msg = f"cannot be stored: {error}"
        raise InvalidRecord(msg) from None
    if len(packed) > VALUE_LIMIT:
        msg = f"a value of {len(packed)} bytes, the store takes {VALUE_LIMIT}"
        raise ValueTooLarge(msg)
    return packed


def pack_time(seconds: float) -> bytes:
    """A time as it is stored: a msgpack double of Unix seconds."""
    return _pack_double(b"\xcb", seconds)


def unpack_value(value: bytes | None) -> Any:
    """The object of a stored value; None for none."""
    return None if value is None else msgpack.unpackb(value, strict_map_key=False)


def pack_key(*elements: Any) -> bytes:
    """The tuple-layer bytes of some elements, without a directory's prefix.

    Raises:
        InvalidRecord: an element has no form as a key (an object).
    """
    try:
        packed: bytes = fdb.tuple.pack(elements)
    except (TypeError, ValueError, OverflowError, struct.error) as error:
        msg = f"cannot be part of a key: {error}"
        raise InvalidRecord(msg) from None
    return packed


def unpack_key(packed: bytes) -> tuple[Any, ...]:
    """The elements of a key without its directory's prefix."""
    elements: tuple[Any, ...] = fdb.tuple.unpack(packed)
    return elements


@lru_cache(maxsize=50_000)
def _pack_text(text: str) -> bytes:
    return b"\x02" + text.encode().replace(b"\x00", b"\x00\xff") + b"\x00"


def pack_element(element: Any) -> bytes:
    """One element of a key; short text, which comes again and again, is packed once.

    Raises:
        InvalidRecord: it has no form as a key.
    """
    if type(element) is str:
        return _pack_text(element) if len(element) < _SHORT else pack_key(element)
    return pack_step(element)


def first_element(packed: bytes) -> bytes:
    """The first element of a packed tuple, packed."""
    if packed[:1] == b"\x02":
        end = packed.index(b"\x00")
        while packed[end + 1 : end + 2] == b"\xff":
            end = packed.index(b"\x00", end + 2)
        return packed[: end + 1]
    return pack_key(unpack_key(packed)[0])


def pack_step(step: Any) -> bytes:
    """One element that is no text, as fast as can be: a whole number from 0 up, as nearly all steps are, first.

    Raises:
        InvalidRecord: it has no form as a key.
    """
    if type(step) is int and 0 <= step < 0x1_0000_0000_0000_0000 - 1:
        size = (step.bit_length() + 7) >> 3
        return bytes((0x14 + size,)) + step.to_bytes(size, "big")
    if type(step) is float:  # ordered as numbers are: the sign bit turned over, of a negative one all bits
        (bits,) = _double_bits.unpack(_double.pack(step))
        return _tagged_bits.pack(0x21, bits ^ (_ALL_BITS if bits & _SIGN_BIT else _SIGN_BIT))
    if type(step) is bool:
        return b"\x27" if step else b"\x26"
    return pack_key(step)


def check_key(length: int) -> None:
    """Raise `KeyTooLarge` where a whole key of ``length`` bytes would be over the store's limit."""
    if length > KEY_LIMIT:
        msg = f"a key of {length} bytes, the store takes {KEY_LIMIT}"
        raise KeyTooLarge(msg)


def span(prefix: bytes) -> tuple[bytes, bytes]:
    """Begin and end of all keys that extend a tuple by at least one element."""
    return prefix + b"\x00", prefix + b"\xff"
