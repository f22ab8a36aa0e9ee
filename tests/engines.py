"""The store engines that the suites run on, opened one way. Fixtures: ``engine``, ``space``.

``sqlite`` is the embedded engine; ``double`` the FoundationDB engine on a store in memory; ``binding`` that with the
client's real Python package in between; ``cluster`` the FoundationDB engine on a real cluster, the session's, or the
one whose file ``MATYAN_TEST_FDB_CLUSTER_FILE`` names. It may hold anything: use `Space` or `own_directory` there.
"""

from __future__ import annotations

import os
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

from storage.engine import Tries, open_engine
from storage.foundationdb import FoundationEngine
from storage.foundationdb_client import load_client
from storage.store import Store, assemble_store
from tests.fdb_double import load_double
from tests.fdb_double.library import load_binding

if TYPE_CHECKING:
    from collections.abc import Iterator

    from storage.engine import Engine

KINDS = ("sqlite", "double", "binding", "cluster")
IN_ONE_PROCESS = ("double", "binding")
_REMOVAL_MILLISECONDS = 30_000
CLUSTER_VARIABLE = "MATYAN_TEST_FDB_CLUSTER_FILE"


def open_kind(kind: str, folder: Path, *, timeout: float = 10.0, tries: Tries | None = None) -> Engine:
    """Open a store of this kind. The same folder gives the same store again; a cluster must have been started."""
    if kind == "sqlite":
        return open_engine(f"sqlite:///{folder / 'store.db'}", timeout=timeout)
    if kind in IN_ONE_PROCESS:
        cluster_file = folder / ("fdb.cluster" if kind == "double" else "binding.cluster")
        if not cluster_file.exists():
            cluster_file.write_text("double:double@127.0.0.1:4500\n")
        return FoundationEngine(
            f"fdb://{cluster_file}", str(cluster_file), timeout=timeout, client=client_of(kind), tries=tries
        )
    named = os.environ.get(CLUSTER_VARIABLE)
    if not named:
        msg = f"no FoundationDB cluster was started, and {CLUSTER_VARIABLE} names none"
        raise RuntimeError(msg)
    return open_engine(f"fdb://{Path(named).resolve()}", timeout=timeout, tries=tries)


def client_of(kind: str) -> Any:
    """The client package behind a kind of FoundationDB engine."""
    if kind == "double":
        return load_double()
    return load_binding()[0] if kind == "binding" else load_client()


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


@contextmanager
def own_directory(kind: str, engine: Engine, name: str) -> Iterator[tuple[str, ...]]:
    """A parent directory that nobody else has, and that is gone afterwards, whatever happens; for a whole store in it.

    Where the store is a file of the test's own it is no directory at all: then the paths are those of production.
    """
    path = () if kind == "sqlite" else (f"{name}-{uuid4().hex}",)
    try:
        yield path
    finally:
        if path:
            remove_directory(kind, engine, path)


@contextmanager
def open_store_kind(kind: str, folder: Path, *, timeout: float = 10.0) -> Iterator[Store]:
    """An empty store of this kind; on a cluster in a directory of its own, which goes with it."""
    engine = open_kind(kind, folder, timeout=timeout)
    own = own_directory(kind, engine, "store") if kind == "cluster" else nullcontext(())
    with own as under, assemble_store(engine, under=under) as store:
        yield store


def remove_directory(kind: str, engine: Engine, path: tuple[str, ...]) -> None:
    """Remove a test's directory, its node and all in it; an embedded store goes with its folder."""
    if kind == "sqlite":
        return
    client = client_of(kind)
    transaction = client.open(engine.url.removeprefix("fdb://")).create_transaction()
    transaction.options.set_timeout(_REMOVAL_MILLISECONDS)  # a cluster that has gone away must not hold all tests up
    while True:
        try:
            client.directory.remove_if_exists(transaction, path)
            transaction.commit().wait()
        except client.FDBError as error:
            transaction.on_error(error).wait()
        else:
            return


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
