"""Programs written in JavaScript: fetched once from the npm registry, kept in the cache, checked before use."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Final

from demo.servers.kafka_jars import cache_folder, locked
from demo.servers.process import DidNotStart

AZURITE: Final = "azurite@3.35.0"  # the last that runs on Node 20 and older
_SECONDS: Final = 900


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
    folder = _folder(package)
    if not _is_complete(folder, package):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with locked(folder.with_name(f"{folder.name}.lock")):
            if not _is_complete(folder, package):  # else somebody else fetched it while we waited
                with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f"{folder.name}.") as fresh:
                    _fetch(package, Path(fresh) / "program")
                    shutil.rmtree(folder, ignore_errors=True)
                    (Path(fresh) / "program").rename(folder)
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


def _fetch(package: str, folder: Path) -> None:
    folder.mkdir()
    command = ["npm", "install", "--prefix", str(folder), "--no-audit", "--no-fund", "--ignore-scripts", package]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        msg = f"{package} could not be fetched: {error}"
        raise DidNotStart(msg) from error
    if done.returncode != 0:
        msg = f"npm could not fetch {package}:\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
        raise DidNotStart(msg)
    (folder / "complete").touch()
