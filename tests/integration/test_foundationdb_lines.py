"""Release lines of FoundationDB: client library, Python package and cluster that do not fit are named in one sentence.

No C library of another line can be had from the registries. So a copy of ours is made to speak the protocol of 7.4: to
the cluster, and to itself, it is then a client of that line.
"""

from __future__ import annotations

import ctypes.util
import json
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from demo.servers.cache import cache_folder, made_once, run_tool
from demo.servers.foundationdb import FoundationCluster
from tests.conftest import Programs

pytestmark = [pytest.mark.integration, pytest.mark.timeout(400)]

OURS, NEWER = 0x0FDB00B073000000, 0x0FDB00B074000000
PACKAGES = {"7.4": "7.4.8", "8.0": "8.0.0"}
SECONDS = 120


@pytest.fixture
def settings(settings: dict[str, str], foundationdb: FoundationCluster) -> dict[str, str]:
    return {**settings, "STORAGE_URL": foundationdb.url, "STORAGE_TIMEOUT_SECONDS": "2"}


@pytest.fixture
def newer_library(foundationdb: FoundationCluster, tmp_path: Path) -> Path:
    """A folder with a client library that says it is of 7.4."""
    folder = foundationdb.programs.library
    if folder is None:
        pytest.skip(f"where the system's loader finds {ctypes.util.find_library('fdb_c')} is not known")
    code = (folder / "libfdb_c.so").read_bytes()
    assert code.count(struct.pack("<Q", OURS)) == 1, "the protocol version is found once"
    (tmp_path / "newer").mkdir()
    (tmp_path / "newer" / "libfdb_c.so").write_bytes(code.replace(struct.pack("<Q", OURS), struct.pack("<Q", NEWER)))
    return tmp_path / "newer"


def test_a_client_that_is_newer_than_the_cluster_is_named(
    newer_library: Path, foundationdb: FoundationCluster, programs: Programs, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = foundationdb.processes[0].port
    sentence = f"the cluster at 127.0.0.1:{port} is of release line 7.3, older than our client library libfdb_c (7.4)"
    bridge, worker = programs.bridge(), programs.worker()
    with monkeypatch.context() as patch:
        patch.setenv("LD_LIBRARY_PATH", str(newer_library))
        for command in (("wait", "--for", "store", "--timeout", "1"), ("doctor",)):
            said = ""
            for _ in range(5):  # one look has some seconds, in which a busy machine may not learn the reason
                code, said = programs.run(*command)
                assert code == 1
                if sentence in said:
                    break
            assert sentence in said
            assert "'matyan-celery[fdb73]'" in said
            assert "Traceback" not in said
        for process in (bridge, worker):
            process.launch()
        for process in (bridge, worker):
            process.wait_output(sentence, SECONDS)
            process.stop()
    bridge.start()  # with the library of the cluster's line
    bridge.wait_output("partition taken over", SECONDS)


def package(line: str) -> Path:
    """A folder with the Python package of a release line."""
    version = PACKAGES[line]

    def install(fresh: Path) -> None:
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--disable-pip-version-check"]
        fresh.mkdir()
        run_tool([*command, "--target", ".", f"foundationdb=={version}"], f"foundationdb {version}", folder=fresh)

    folder = cache_folder() / f"foundationdb-package-{version}"
    return made_once(folder, lambda folder: (folder / "fdb" / "apiversion.py").is_file(), install)


@pytest.mark.parametrize("line", PACKAGES)
def test_a_package_that_is_newer_than_the_library_is_named(
    line: str, programs: Programs, monkeypatch: pytest.MonkeyPatch
) -> None:
    sentence = f"the Python package foundationdb is of release line {line}, FoundationDB's C library of 7.3"
    monkeypatch.setenv("PYTHONPATH", str(package(line)))
    code, said = programs.run("wait", "--for", "store", "--timeout", "1")
    assert code == 1
    assert sentence in said
    assert "'matyan-celery[fdb73]'" in said
    assert "Traceback" not in said
    bridge, worker = programs.bridge(), programs.worker()
    for process in (bridge, worker):
        process.launch()
    assert bridge.wait(SECONDS) == 1
    for process in (bridge, worker):
        process.wait_output(sentence, SECONDS)
        assert "Traceback" not in process.output()


@pytest.mark.parametrize("line", PACKAGES)
def test_the_packages_of_all_lines_give_the_same_bytes(line: str, tmp_path: Path) -> None:
    """What we take from the package on every store: keys."""
    script = (
        "import fdb, fdb.tuple as t, json, sys, uuid;"
        "rows = [('run', 'seqs', 0, 'x', 'val', 7), (-1, 2**70, 1.5, True, None, b'a\\0b', 'größe', ('a', (None,)))];"
        "print(json.dumps([fdb.LATEST_API_VERSION, [t.pack(row).hex() for row in rows]]))"
    )

    def answer(python_path: str) -> tuple[int, list[str]]:
        done = subprocess.run(
            [sys.executable, "-c", script],
            env={"PYTHONPATH": python_path},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=True,
        )
        number, rows = json.loads(done.stdout)
        return number, rows

    (ours, our_rows), (other, other_rows) = answer(""), answer(str(package(line)))
    assert ours == 730
    assert other == int(line.replace(".", "")) * 10
    assert our_rows == other_rows
