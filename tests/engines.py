"""The store engines that the suites run on, opened one way. Fixtures: ``engine``, ``space``.

``sqlite`` is the embedded engine; ``double`` the FoundationDB engine on a store in memory; ``cluster`` the FoundationDB
engine on the cluster whose file ``MATYAN_TEST_FDB_CLUSTER_FILE`` names, which may hold anything: use `Space` there.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

from storage.engine import Tries, open_engine
from storage.foundationdb import FoundationEngine
from storage.foundationdb_client import load_client
from tests.fdb_double import load_double

if TYPE_CHECKING:
    from collections.abc import Iterator

    from storage.engine import Engine

KINDS = ("sqlite", "double", "cluster")
CLUSTER_VARIABLE = "MATYAN_TEST_FDB_CLUSTER_FILE"


def open_kind(kind: str, folder: Path, *, timeout: float = 10.0, tries: Tries | None = None) -> Engine:
    """Open a store of this kind. The same folder gives the same store again; skips where there is no cluster."""
    if kind == "sqlite":
        return open_engine(f"sqlite:///{folder / 'store.db'}", timeout=timeout)
    if kind == "double":
        cluster_file = folder / "fdb.cluster"
        if not cluster_file.exists():
            cluster_file.write_text("double:double@127.0.0.1:4500\n")
        double = load_double()
        return FoundationEngine(f"fdb://{cluster_file}", str(cluster_file), timeout=timeout, client=double, tries=tries)
    named = os.environ.get(CLUSTER_VARIABLE)
    if not named:
        pytest.skip(f"no FoundationDB cluster: {CLUSTER_VARIABLE} names none")
    return open_engine(f"fdb://{Path(named).resolve()}", timeout=timeout)


def double_database(folder: Path) -> Any:
    """The double's database behind ``open_kind("double", folder)``: its ``faults`` and ``store``."""
    return load_double().open(str(folder / "fdb.cluster"))


@dataclass(frozen=True)
class Space:
    """A directory of a test's own; all of its keys begin with ``prefix``."""

    path: tuple[str, ...]
    prefix: bytes

    def key(self, name: str | bytes) -> bytes:
        return self.prefix + (name.encode() if isinstance(name, str) else name)

    @property
    def range(self) -> tuple[bytes, bytes]:
        return self.prefix + b"\x00", self.prefix + b"\xff"


def make_space(engine: Engine) -> Space:
    path = (f"test-{uuid4().hex}",)
    return Space(path, engine.directory(*path))


def remove_directory(kind: str, engine: Engine, path: tuple[str, ...]) -> None:
    """Remove a test's directory and all in it from a cluster that others use too; other kinds go with their folder."""
    if kind == "cluster":
        client = load_client()
        cluster_file = engine.url.removeprefix("fdb://")
        client.directory.remove_if_exists(client.open(cluster_file), path)


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def engine(kind: str, tmp_path: Path) -> Iterator[Engine]:
    """An open store of each kind."""
    opened = open_kind(kind, tmp_path)
    yield opened
    opened.close()


@pytest.fixture
def space(kind: str, engine: Engine) -> Iterator[Space]:
    """A directory of the test's own in ``engine``."""
    made = make_space(engine)
    yield made
    remove_directory(kind, engine, made.path)
