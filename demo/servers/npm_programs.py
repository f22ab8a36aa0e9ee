"""Programs written in JavaScript: fetched once from the npm registry, kept in the cache, checked before use."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Final

from demo.servers.cache import cache_folder, made_once, run_tool

if TYPE_CHECKING:
    from pathlib import Path

AZURITE: Final = "azurite@3.35.0"  # the last that runs on Node 20 and older


def missing_for_npm(package: str = AZURITE) -> str | None:
    """Why a program cannot run here; None if it can."""
    if shutil.which("node") is None:
        return "node not found"
    return None if shutil.which("npm") or _is_complete(_folder(package), package) else "npm not found"


def fetch_program(package: str, main: str) -> Path:
    """The file to give to ``node``; fetched if the cache does not hold it.

    Args:
        package: ``name@version``.
        main: the program's path within the package.

    Raises:
        DidNotStart: it could not be fetched; says how.
    """
    folder = made_once(
        _folder(package), lambda folder: _is_complete(folder, package), lambda fresh: _fetch(package, fresh)
    )
    return _home(folder, package) / main


def _folder(package: str) -> Path:
    name, _, version = package.partition("@")
    return cache_folder() / f"{name}-{version}"


def _home(folder: Path, package: str) -> Path:
    return folder / "node_modules" / package.partition("@")[0]


def _is_complete(folder: Path, package: str) -> bool:
    """Whether npm came to its end there, and with this version."""
    try:
        found = json.loads((_home(folder, package) / "package.json").read_text())
        return (folder / "complete").exists() and found["version"] == package.partition("@")[2]
    except (OSError, ValueError, KeyError):
        return False


def _fetch(package: str, fresh: Path) -> None:
    fresh.mkdir()
    command = ["npm", "install", "--prefix", str(fresh), "--no-audit", "--no-fund", "--ignore-scripts", package]
    run_tool(command, package, folder=fresh)
    (fresh / "complete").touch()
