"""Directories: the same path is the same prefix, and the bytes behind are those of FoundationDB's directory layer."""

from __future__ import annotations

import contextlib
import random
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import fdb.tuple
import pytest

from storage.directories import open_directories
from storage.directory_layer import _node
from storage.errors import Refused
from tests.engines import client_of, open_kind, own_directory
from tests.fdb_double import load_double

if TYPE_CHECKING:
    from pathlib import Path

    from storage.engine import Engine, KeyValue
    from tests.engines import Space


def test_a_path_opened_twice_is_one_directory(kind: str, engine: Engine, space: Space, tmp_path: Path) -> None:
    first = engine.directory(*space.path, "data", "runs")
    assert engine.directory(*space.path, "data", "runs") == first
    again = open_kind(kind, tmp_path)
    assert again.directory(*space.path, "data", "runs") == first
    again.close()


def test_directories_do_not_share_a_prefix(engine: Engine, space: Space) -> None:
    paths = [("a",), ("a", "b"), ("b",), ("b", "a"), ("größe",), ("a", "b", "c"), ("",)]
    prefixes = {path: engine.directory(*space.path, *path) for path in paths}
    assert len(set(prefixes.values())) == len(paths)
    for one in prefixes.values():
        assert not any(other != one and other.startswith(one) for other in prefixes.values())
    assert {path: engine.directory(*space.path, *path) for path in paths} == prefixes


def test_our_four_directories_open_under_any_parent(engine: Engine, space: Space) -> None:
    first = open_directories(engine, space.path)
    assert open_directories(engine, space.path) == first
    assert len(set(first)) == 4


def test_many_that_open_a_path_at_once_get_one_directory(
    kind: str, engine: Engine, space: Space, tmp_path: Path
) -> None:
    engines = [open_kind(kind, tmp_path) for _ in range(4)]
    with ThreadPoolExecutor(8) as pool:
        prefixes = set(pool.map(lambda index: engines[index % 4].directory(*space.path, "x", "y"), range(24)))
    for another in engines:
        another.close()
    assert prefixes == {engine.directory(*space.path, "x", "y")}


@pytest.mark.parametrize("path", [(), (1,), ("a", None), (b"a",)])
def test_a_path_is_names(engine: Engine, path: tuple[Any, ...]) -> None:
    with pytest.raises(ValueError, match="no directory path"):
        engine.directory(*path)


# -- the embedded engine's layer against the client's own ------------------------------------------------------------


def whole_store(engine: Engine) -> list[KeyValue]:
    return engine.read(lambda transaction: transaction.get_range(b"", b"\xff").wait())


def test_the_embedded_layer_leaves_the_clients_bytes(tmp_path: Path) -> None:
    """Same seed, same candidates: 40 directories, so that the allocator's window moves on, are equal byte for byte."""
    dumps = []
    for kind in ("sqlite", "double"):
        random.seed(7)
        opened = open_kind(kind, tmp_path)
        open_directories(opened)
        for number in range(40):
            opened.directory("many", f"{number}", "deep")
        dumps.append(whole_store(opened))
        opened.close()
    assert dumps[0] == dumps[1]
    assert len(dumps[0]) > 160


def test_the_clients_layer_reads_and_extends_an_embedded_store(tmp_path: Path) -> None:
    engine = open_kind("sqlite", tmp_path)
    prefixes = open_directories(engine)
    cluster_file = tmp_path / "file.cluster"
    cluster_file.write_text(f"sqlite:///{tmp_path / 'store.db'}\n")
    client = load_double()
    database = client.open(str(cluster_file))
    assert client.directory.open(database, ("data", "runs")).key() == prefixes.runs
    assert sorted(client.directory.list(database)) == ["bridge", "data", "system"]
    made = client.directory.create_or_open(database, ("data", "more")).key()
    assert engine.directory("data", "more") == made
    assert client.directory.remove_if_exists(database, ("data", "more"))
    assert engine.directory("data", "more") != made
    database.store.close()
    engine.close()


def test_the_embedded_layer_refuses_what_it_does_not_know(tmp_path: Path) -> None:
    engine = open_kind("sqlite", tmp_path)
    engine.directory("data")
    data = engine.directory("data")
    node = b"\xfe" + fdb.tuple.pack((data,))
    engine.transact(lambda transaction: transaction.set(node + fdb.tuple.pack((b"layer",)), b"partition"))
    with pytest.raises(Refused, match="partition"):
        engine.directory("data", "runs")
    version = b"\xfe" + fdb.tuple.pack((b"\xfe", b"version"))
    engine.transact(lambda transaction: transaction.set(version, b"\x02" + b"\0" * 11))
    with pytest.raises(Refused, match=r"version \(2, 0, 0\)"):
        engine.directory("system")
    engine.close()


def test_a_prefix_in_use_is_not_given_out(tmp_path: Path) -> None:
    engine = open_kind("sqlite", tmp_path)

    def occupy(transaction: Any) -> None:
        for number in range(64):
            transaction.set(fdb.tuple.pack((number,)) + b"foreign", b"")

    engine.transact(occupy)
    with pytest.raises(Refused, match="in use by other keys"):
        engine.directory("data")
    engine.close()


@pytest.mark.parametrize("fails", [False, True])
def test_the_suite_removes_its_directories(kind: str, engine: Engine, fails: bool) -> None:
    """What keeps a shared cluster clean, whatever a test does: nodes and keys are gone."""
    if kind == "sqlite":
        pytest.skip("an embedded store goes with its folder")
    client = client_of(kind)
    database = client.open(engine.url.removeprefix("fdb://"))
    with contextlib.suppress(ZeroDivisionError), own_directory(kind, engine, "removed") as path:
        prefixes = open_directories(engine, path)
        engine.transact(lambda transaction: transaction.set(prefixes.runs + b"a", b""))
        assert client.directory.exists(database, path)
        if fails:
            raise ZeroDivisionError
    assert not client.directory.exists(database, path)
    assert path[0] not in client.directory.list(database)
    for prefix in prefixes:
        left = engine.read(lambda transaction, prefix=prefix: transaction.get_range(prefix, prefix + b"\xff").wait())  # type: ignore[misc]
        nodes = engine.read(
            lambda transaction, prefix=prefix: transaction.get_range(_node(prefix), _node(prefix) + b"\xff").wait()  # type: ignore[misc]
        )
        assert left == nodes == []
