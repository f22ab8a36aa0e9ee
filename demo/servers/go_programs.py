"""Programs written in Go: built once from the module proxy, kept in the cache, checked before use."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Final

from demo.servers.cache import cache_folder, made_once, run_tool
from demo.servers.process import DidNotStart

if TYPE_CHECKING:
    from pathlib import Path

VERSITYGW: Final = "github.com/versity/versitygw/cmd/versitygw@v1.8.0"
FAKE_GCS: Final = "github.com/fsouza/fake-gcs-server@v1.56.1"
_NOTE: Final = "built.txt"  # what was built, and the program's size


def missing_for_go(module: str = VERSITYGW) -> str | None:
    """Why a program cannot be built here; None if it can, or if the cache has it."""
    return None if shutil.which("go") or _is_complete(_folder(module), module) else "go not found"


def build_program(module: str) -> Path:
    """The program of a Go module, for example ``host/owner/name/cmd/name@v1.2.3``; built if the cache does not hold it.

    Raises:
        DidNotStart: it could not be built; says how.
    """
    folder = made_once(
        _folder(module), lambda folder: _is_complete(folder, module), lambda fresh: _build(module, fresh)
    )
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


def _build(module: str, fresh: Path) -> None:
    fresh.mkdir()
    environment = {"GOBIN": str(fresh), "GOFLAGS": "-mod=mod"}
    run_tool(["go", "install", module], module, folder=fresh, environment=environment)
    if not (fresh / _name(module)).is_file():
        msg = f"go built no {_name(module)} from {module}"
        raise DidNotStart(msg)
    (fresh / _NOTE).write_text(_describe(fresh, module))
