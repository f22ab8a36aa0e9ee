"""Programs written in Go: built once from the module proxy, kept in the cache, checked before use."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Final

from demo.servers.kafka_jars import cache_folder, locked
from demo.servers.process import DidNotStart

VERSITYGW: Final = "github.com/versity/versitygw/cmd/versitygw@v1.8.0"
FAKE_GCS: Final = "github.com/fsouza/fake-gcs-server@v1.56.1"
_NOTE: Final = "built.txt"  # what was built, and the program's size
_SECONDS: Final = 900


def missing_for_go(module: str = VERSITYGW) -> str | None:
    """Why a program cannot be built here; None if it can, or if the cache has it."""
    return None if shutil.which("go") or _is_complete(_folder(module), module) else "go not found"


def build_program(module: str) -> Path:
    """The program of a Go module, for example ``host/owner/name/cmd/name@v1.2.3``; built if the cache does not hold it.

    Raises:
        DidNotStart: it could not be built; says how.
    """
    folder = _folder(module)
    if not _is_complete(folder, module):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with locked(folder.with_name(f"{folder.name}.lock")):
            if not _is_complete(folder, module):  # else somebody else built it while we waited
                with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f"{folder.name}.") as fresh:
                    _build(module, Path(fresh) / "bin")
                    shutil.rmtree(folder, ignore_errors=True)
                    (Path(fresh) / "bin").rename(folder)
    return folder / _name(module)


def _name(module: str) -> str:
    return module.partition("@")[0].rpartition("/")[2]


def _folder(module: str) -> Path:
    return cache_folder() / f"{_name(module)}-{module.partition('@')[2]}"


def _is_complete(folder: Path, module: str) -> bool:
    try:
        return (folder / _NOTE).read_text() == _describe(folder, module)
    except OSError:
        return False


def _describe(folder: Path, module: str) -> str:
    return f"{module} {(folder / _name(module)).stat().st_size}\n"


def _build(module: str, folder: Path) -> None:
    environment = {**os.environ, "GOBIN": str(folder), "GOFLAGS": "-mod=mod"}
    try:
        done = subprocess.run(
            ["go", "install", module], env=environment, capture_output=True, text=True, timeout=_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        msg = f"{module} could not be built: {error}"
        raise DidNotStart(msg) from error
    if done.returncode != 0 or not (folder / _name(module)).is_file():
        msg = f"go could not build {module}:\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
        raise DidNotStart(msg)
    (folder / _NOTE).write_text(_describe(folder, module))
