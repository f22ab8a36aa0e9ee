"""A double of the package ``fdb``, for tests: the part of its API that we and the stock backend use.

The tuple, subspace and directory layers are those of the installed ``foundationdb`` package, found beside this one by
the package's path; what they stand on (``impl``: transactions, databases, futures) is here. A cluster file whose first
line is ``sqlite:///path`` opens that embedded store; any other opens an ordered, versioned store in memory, one for
each cluster file, with real conflict detection, FoundationDB's limits and faults at will (`Database.faults`).

Put the folder above on another program's path and it takes the place of ``fdb`` there: nothing in here needs our own
packages, or anything beyond the standard library as long as the store is a file.
"""

from __future__ import annotations

import importlib
from importlib.metadata import distribution
from typing import Any

__path__.append(str(distribution("foundationdb").locate_file("fdb")))

LATEST_API_VERSION: int = importlib.import_module(f"{__name__}.apiversion").LATEST_API_VERSION

_SYMBOLS = {
    "impl": (
        "Database",
        "FDBError",
        "Future",
        "KeySelector",
        "KeyValue",
        "StreamingMode",
        "Transaction",
        "open",
        "transactional",
    ),
    "directory_impl": ("DirectoryLayer", "directory"),
    "subspace_impl": ("Subspace",),
}

_version: int | None = None


def is_api_version_selected() -> bool:
    return _version is not None


def get_api_version() -> int:
    if _version is None:
        msg = "API version is not set"
        raise RuntimeError(msg)
    return _version


def api_version(ver: int) -> None:
    """Select the API version, after which the package has all of its names, as in the real one."""
    global _version
    if _version is not None:
        if _version != ver:
            msg = f"FDB API already loaded at version {_version}"
            raise RuntimeError(msg)
        return
    if ver != LATEST_API_VERSION:
        msg = f"the double knows API version {LATEST_API_VERSION} only, not {ver}"
        raise RuntimeError(msg)
    impl = importlib.import_module(f"{__name__}.impl")
    _add(impl, "impl")
    _version = ver
    for name in ("directory_impl", "subspace_impl"):
        _add(importlib.import_module(f"{__name__}.{name}"), name)


def _add(module: Any, name: str) -> None:
    for symbol in _SYMBOLS[name]:
        globals()[symbol] = getattr(module, symbol)
