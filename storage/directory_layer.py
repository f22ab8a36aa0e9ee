"""FoundationDB's directory layer, as much of it as finds and makes directories, over any transaction of ours.

It leaves the bytes that the client's own layer leaves (version 1.0.0, default subspaces, high-contention allocator), so
that a store's keys are the same on every engine and the client's layer can go on with them. Not here: partitions,
manual prefixes, moving, removing. Source of the rules: ``fdb/directory_impl.py`` of the ``foundationdb`` package.
"""

from __future__ import annotations

import random
import struct
from typing import TYPE_CHECKING, Any, Final

import fdb.tuple

from storage.errors import Refused

if TYPE_CHECKING:
    from collections.abc import Callable

    from storage.engine import Transaction

_pack: Final[Callable[[tuple[object, ...], bytes], bytes]] = fdb.tuple.pack
_unpack: Final[Callable[[bytes, int], tuple[Any, ...]]] = fdb.tuple.unpack

_NODES: Final = b"\xfe"
_SUBDIRECTORIES: Final = 0
_VERSION: Final = (1, 0, 0)


def _below(prefix: bytes, *elements: object) -> bytes:
    return _pack(elements, prefix)


def _node(prefix: bytes) -> bytes:
    """Where what is known of the directory with this key prefix is kept."""
    return _below(_NODES, prefix)


_ROOT: Final = _node(_NODES)
_VERSION_KEY: Final = _below(_ROOT, b"version")
_COUNTERS: Final = _below(_ROOT, b"hca", 0)
_RECENT: Final = _below(_ROOT, b"hca", 1)


def find(transaction: Transaction, path: tuple[str, ...]) -> bytes | None:
    """The key prefix of the directory at ``path``; None where there is none.

    Raises:
        Refused: a newer directory layer has written the store, or the path leads into a partition.
    """
    if not path or not all(isinstance(name, str) for name in path):
        msg = f"{path!r} is no directory path: name at least one directory"
        raise ValueError(msg)
    _check_version(transaction, writing=False)
    prefix: bytes | None = None
    node = _ROOT
    for name in path:
        prefix = transaction.get(_below(node, _SUBDIRECTORIES, name)).wait()
        if prefix is None:
            return None
        node = _node(prefix)
        if transaction.get(_below(node, b"layer")).wait() == b"partition":
            msg = f"the directory {name!r} of {path!r} is a partition, which this engine does not know"
            raise Refused(msg)
    return prefix


def create_or_open(transaction: Transaction, path: tuple[str, ...]) -> bytes:
    """The key prefix of the directory at ``path``, made with its parents if it is absent.

    Raises:
        Refused: see `find`; or the prefix that comes next is in use by other keys.
    """
    found = find(transaction, path)
    if found is not None:
        return found
    _check_version(transaction, writing=True)
    prefix = _allocate(transaction)
    if transaction.get_range(prefix, _after(prefix), limit=1).wait() or not _is_free(transaction, prefix):
        msg = f"cannot make the directory {path!r}: its prefix {prefix!r} is in use by other keys"
        raise Refused(msg)
    parent = _node(create_or_open(transaction, path[:-1])) if len(path) > 1 else _ROOT
    transaction.set(_below(parent, _SUBDIRECTORIES, path[-1]), prefix)
    transaction.set(_below(_node(prefix), b"layer"), b"")
    return prefix


def _check_version(transaction: Transaction, *, writing: bool) -> None:
    stored = transaction.get(_VERSION_KEY).wait()
    if stored is None:
        if writing:
            transaction.set(_VERSION_KEY, struct.pack("<III", *_VERSION))
        return
    version = struct.unpack("<III", stored)
    if version[0] > _VERSION[0] or (writing and version[1] > _VERSION[1]):
        msg = f"the store's directories have version {version}, known is {_VERSION}: upgrade"
        raise Refused(msg)


def _allocate(transaction: Transaction) -> bytes:
    """A prefix that was never allocated before and is about as short as it can be."""
    last = transaction.get_range(_COUNTERS + b"\x00", _COUNTERS + b"\xff", limit=1, reverse=True).wait()
    start: int = _unpack(last[0][0], len(_COUNTERS))[0] if last else 0
    while True:
        counter = _below(_COUNTERS, start)
        stored = transaction.get(counter).wait()
        count = 1 + (struct.unpack("<q", stored)[0] if stored is not None else 0)
        transaction.set(counter, struct.pack("<q", count))
        window = _window(start)
        if count * 2 < window:
            break
        start += window
        transaction.clear_range(_COUNTERS, _below(_COUNTERS, start))
        transaction.clear_range(_RECENT, _below(_RECENT, start))
    while True:
        candidate = random.randrange(start, start + window)
        taken = _below(_RECENT, candidate)
        if transaction.get(taken).wait() is None:
            transaction.set(taken, b"")
            return _below(b"", candidate)


def _window(start: int) -> int:
    """How many numbers are handed out before the allocator moves on."""
    if start < 255:
        return 64
    return 1024 if start < 65535 else 8192


def _is_free(transaction: Transaction, prefix: bytes) -> bool:
    """Whether no directory's prefix begins with this one, or this one with it."""
    before = transaction.get_range(_NODES + b"\x00", _node(prefix) + b"\x00", limit=1, reverse=True).wait()
    if before and prefix.startswith(_unpack(before[0][0], len(_NODES))[0]):
        return False
    return not transaction.get_range(_node(prefix), _node(_after(prefix)), limit=1).wait()


def _after(prefix: bytes) -> bytes:
    """The first key behind all that begin with ``prefix``."""
    stripped = prefix.rstrip(b"\xff")
    return stripped[:-1] + bytes([stripped[-1] + 1])
