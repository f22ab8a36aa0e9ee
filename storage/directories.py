"""The four directories that this project opens: three of Matyan's and one of our own (CONTRACT 2)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from storage.engine import Engine

RUNS: Final = ("data", "runs")
INDEXES: Final = ("data", "indexes")
SYSTEM: Final = ("system",)
BRIDGE: Final = ("bridge",)


class Directories(NamedTuple):
    """Key prefixes. Matyan's directories hold Matyan's bytes and nothing else; what is ours lives in ``bridge``."""

    runs: bytes
    indexes: bytes
    system: bytes
    bridge: bytes


def open_directories(engine: Engine, under: tuple[str, ...] = ()) -> Directories:
    """Open the four directories, making those that are absent.

    Args:
        engine: the open store.
        under: a parent path; empty in production, a path of its own for a test that shares a cluster.

    Raises:
        StorageUnavailable: the store did not answer.
    """
    return Directories(
        runs=engine.directory(*under, *RUNS),
        indexes=engine.directory(*under, *INDEXES),
        system=engine.directory(*under, *SYSTEM),
        bridge=engine.directory(*under, *BRIDGE),
    )
