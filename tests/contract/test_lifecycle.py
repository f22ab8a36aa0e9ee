"""Opening, closing, forking; and URLs that name no store."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from storage.engine import Tries, open_engine
from storage.errors import BadStoreURL, EngineMissing, Refused
from storage.foundationdb import FoundationEngine
from tests.contract.actors import count_up, start
from tests.engines import client_of, open_kind
from tests.fdb_double import load_double

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from types import ModuleType

    from storage.engine import Engine
    from tests.engines import Space

DEADLINE = 60.0


def test_what_was_written_is_there_when_it_is_opened_again(
    kind: str, engine: Engine, space: Space, tmp_path: Path
) -> None:
    engine.transact(lambda transaction: transaction.set(space.key("a"), b"1"))
    engine.close()
    again = open_kind(kind, tmp_path)
    assert again.read(lambda transaction: transaction.get(space.key("a")).wait()) == b"1"
    again.close()


def test_closing_twice_is_fine_and_a_closed_engine_says_so(kind: str, tmp_path: Path) -> None:
    engine = open_kind(kind, tmp_path)
    engine.close()
    engine.close()
    with pytest.raises(RuntimeError, match="is closed"):
        engine.transact(lambda transaction: transaction.set(b"a", b""))
    with pytest.raises(RuntimeError, match="is closed"):
        engine.read(lambda transaction: transaction.get(b"a").wait())


@pytest.mark.parametrize("kind", ["double", "binding", "cluster"])
def test_the_client_takes_how_it_is_to_try_again(kind: str, engine: Engine, space: Space) -> None:
    tries = Tries(most=5, longest_pause=0.25)
    path = engine.url.removeprefix("fdb://")
    other = FoundationEngine(engine.url, path, client=client_of(kind), tries=tries)
    count_up(other, space.key("n"), 3)
    assert engine.read(lambda transaction: transaction.get(space.key("n")).wait()) == b"3"
    other.close()


def test_an_engine_knows_its_url(kind: str, engine: Engine) -> None:
    scheme = "sqlite:///" if kind == "sqlite" else "fdb:///"
    assert engine.url.startswith(scheme)


def test_a_store_in_use_survives_a_fork(kind: str, engine: Engine, space: Space, tmp_path: Path) -> None:
    """Embedded: both processes go on. FoundationDB: the child is told, in place of hanging for ever."""
    key = space.key("n")
    engine.close()
    with start("fork", kind, tmp_path, key) as actor:
        said = actor.communicate(timeout=DEADLINE)[0].splitlines()
    if kind == "sqlite":
        # SQLite must not see a file in the child that was open in the parent.
        assert said == ["inherited 0", "child 0", "number b'101'", "done"]
    else:
        assert said[1].startswith("refused: ")
        assert "before this process was forked" in said[1]
        assert said[2:] == ["child 2", "number b'1'", "done"]


def test_a_fork_inside_a_transaction_gives_the_child_no_lock(kind: str, engine: Engine, tmp_path: Path) -> None:
    if kind == "cluster":
        pytest.skip("the client's own transaction is no business of ours in a child")
    engine.close()
    with start("fork-inside", kind, tmp_path, b"key") as actor:
        said = actor.communicate(timeout=DEADLINE)[0].splitlines()
    assert said[0].startswith("refused: ")
    assert said[1:] == ["child 2", "value b'parent'", "done"]


@pytest.mark.parametrize(
    ("url", "complaint"),
    [
        ("", "is no store URL"),
        ("store.db", "is no store URL"),
        ("sqlite:store.db", "is no store URL"),
        ("sqlite://store.db", "is no store URL"),
        ("sqlite:///", "is no store URL"),
        ("redis:///store", "the scheme is 'redis'"),
        ("sqlite:///:memory:", "name a file"),
        ("fdb:///nowhere/fdb.cluster", "cannot read the cluster file"),
    ],
)
def test_a_url_that_names_no_store_is_refused_by_name(url: str, complaint: str) -> None:
    with pytest.raises(BadStoreURL, match=complaint) as caught:
        open_engine(url)
    assert url in str(caught.value)


def test_a_relative_path_is_the_working_directorys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    engine = open_engine("sqlite:///new/folder/my store.db")
    monkeypatch.chdir("/")
    engine.transact(lambda transaction: transaction.set(b"a", b""))
    engine.close()
    assert (tmp_path / "new" / "folder" / "my store.db").is_file()


@pytest.mark.parametrize("text", ["", "# a comment\n", "127.0.0.1:4500", "sqlite:///store.db", "\xff"])
def test_a_file_that_is_no_cluster_file_is_refused(tmp_path: Path, text: str) -> None:
    """The client would wait for a cluster that does not exist."""
    cluster_file = tmp_path / "fdb.cluster"
    cluster_file.write_text(text, encoding="latin-1")
    with pytest.raises(BadStoreURL, match="cluster file"):
        FoundationEngine("fdb:///x", str(cluster_file), client=load_double())


@pytest.fixture
def no_client() -> Iterator[None]:
    """As in a process that has not imported ``fdb`` yet."""
    kept = take_out_client()
    yield
    take_out_client()
    sys.modules.update(kept)


def take_out_client() -> dict[str, ModuleType]:
    names = [name for name in sys.modules if name == "fdb" or name.startswith("fdb.")]
    return {name: sys.modules.pop(name) for name in names}


@pytest.fixture
def cluster_url(tmp_path: Path) -> str:
    cluster_file = tmp_path / "fdb.cluster"
    cluster_file.write_text("a:b@127.0.0.1:4500\n")
    return f"fdb://{cluster_file}"


@pytest.mark.usefixtures("no_client")
def test_a_missing_package_says_what_to_install(cluster_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fdb", None)
    with pytest.raises(EngineMissing, match="pip install 'foundationdb"):
        open_engine(cluster_url)


@pytest.mark.usefixtures("no_client")
def test_a_missing_c_library_says_what_to_install(cluster_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real package, told to load a library that is not there."""
    monkeypatch.setattr("ctypes.CDLL", raise_os_error)
    monkeypatch.setattr("ctypes.util.find_library", lambda name: None)
    with pytest.raises(EngineMissing, match=r"libfdb_c.*release line"):
        open_engine(cluster_url)


@pytest.mark.usefixtures("no_client")
def test_another_api_version_in_the_process_is_refused(cluster_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import fdb

    monkeypatch.setattr(fdb, "_version", 710, raising=False)
    with pytest.raises(Refused, match="API version 710 already, we need 730"):
        open_engine(cluster_url)


def raise_os_error(*arguments: object, **options: object) -> None:
    msg = "libfdb_c.so: cannot open shared object file"
    raise OSError(msg)
