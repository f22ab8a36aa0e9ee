"""The real FoundationDB does what the demo and the other tests lean on."""

from __future__ import annotations

from pathlib import Path

import pytest

from demo.servers.foundationdb import CliFailed, FoundationCluster
from demo.servers.foundationdb_programs import HOME_VARIABLE, find_foundationdb, missing_for_foundationdb
from demo.servers.process import DidNotStart
from storage.engine import open_engine
from storage.errors import StorageUnavailable

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]


def write(url: str, key: bytes, value: bytes, *, timeout: float = 60.0) -> None:
    engine = open_engine(url, timeout=timeout)
    try:
        engine.transact(lambda transaction: transaction.set(key, value))
    finally:
        engine.close()


def read(url: str, key: bytes) -> bytes | None:
    engine = open_engine(url, timeout=60.0)
    try:
        return engine.read(lambda transaction: transaction.get(key).wait())
    finally:
        engine.close()


def test_it_keeps_data_and_port_over_kill_and_stop(foundationdb: FoundationCluster) -> None:
    url, (server,) = foundationdb.url, foundationdb.processes
    pid = server.pid
    for end in (server.kill, server.stop):
        write(url, b"end", end.__name__.encode())
        end()
        assert not server.is_alive()
        foundationdb.start()
        assert server.pid != pid
        assert read(url, b"end") == end.__name__.encode()


def test_it_stands_still_and_goes_on(foundationdb: FoundationCluster) -> None:
    foundationdb.processes[0].pause()
    with pytest.raises(StorageUnavailable):
        write(foundationdb.url, b"a", b"1", timeout=0.5)
    foundationdb.processes[0].go_on()
    write(foundationdb.url, b"a", b"2")
    assert read(foundationdb.url, b"a") == b"2"


def test_it_is_cleared_locked_and_unlocked(foundationdb: FoundationCluster) -> None:
    write(foundationdb.url, b"a", b"1")
    foundationdb.clear()
    assert read(foundationdb.url, b"a") is None
    foundationdb.lock()
    with pytest.raises(CliFailed, match="locked"):
        foundationdb.clear()
    foundationdb.unlock()
    write(foundationdb.url, b"a", b"1")


@pytest.mark.usefixtures("foundationdb_server")
def test_three_processes_keep_all_when_one_dies(tmp_path: Path) -> None:
    with FoundationCluster(tmp_path, processes=3) as cluster:
        write(cluster.url, b"a", b"1")
        cluster.processes[1].kill()
        write(cluster.url, b"b", b"2")
        assert [read(cluster.url, key) for key in (b"a", b"b")] == [b"1", b"2"]
        cluster.start()
        assert all(process.is_alive() for process in cluster.processes)


def test_where_none_can_be_had_it_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(HOME_VARIABLE, str(tmp_path))
    find_foundationdb.cache_clear()
    try:
        assert missing_for_foundationdb() == f"FDB_HOME names {tmp_path}, where is no fdbserver"
        with pytest.raises(DidNotStart, match="where is no fdbserver"):
            find_foundationdb()
        monkeypatch.delenv(HOME_VARIABLE)
        monkeypatch.setattr("demo.servers.foundationdb_programs.SHARED", tmp_path / "shared")
        monkeypatch.setattr("demo.servers.foundationdb_programs._OFFICIAL", ())
        monkeypatch.setenv("PATH", str(tmp_path))
        assert "install FoundationDB 7.3" in str(missing_for_foundationdb())
    finally:
        find_foundationdb.cache_clear()
