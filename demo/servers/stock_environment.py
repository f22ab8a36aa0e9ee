"""A Python with the stock Matyan packages: made once in the cache, with pinned versions, checked before use.

They need Python 3.12 or newer and cannot share our environment: the backend wants an older FastAPI, the frontier
another boto3. So they get an environment of their own, whatever Python ours has.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from demo.servers.cache import cache_folder, locked
from demo.servers.process import DidNotStart

if TYPE_CHECKING:
    from collections.abc import Iterator

VERSION: Final = "0.3"
NEEDED: Final = ("python3.13", "python3.12")
PINNED: Final = Path(__file__).with_name("stock_packages.txt")
_STAMP: Final = "installed.txt"  # the list that was installed, once all of it was


class NoStockPackages(DidNotStart):
    """There is no Python for the stock packages, or they cannot be installed; the message says what to do."""


def missing_for_stock() -> str | None:
    """Why the stock packages cannot run here; None if they can."""
    if _find_python() is not None:
        return None
    return (
        f"the stock Matyan packages {VERSION} need Python 3.12 or 3.13; ours is {sys.version.split()[0]}, and no other "
        "was found on PATH or among pyenv's versions; install one, for example with `pyenv install 3.12`"
    )


def make_stock_environment() -> Path:
    """The Python of an environment that has the stock packages, made if the cache does not hold it.

    Raises:
        NoStockPackages: there is no suitable Python, or pip failed; says what to do.
    """
    base = _find_python()
    if base is None:
        raise NoStockPackages(missing_for_stock())
    version = _ask(base, "import sys; print('{}.{}'.format(*sys.version_info))")
    cache = cache_folder()
    folder = cache / f"stock-{VERSION}-py{version}"
    cache.mkdir(parents=True, exist_ok=True)
    with locked(cache / f"{folder.name}.lock"):  # somebody else may be making it; an environment cannot be renamed
        if not _is_complete(folder):
            shutil.rmtree(folder, ignore_errors=True)
            _install(base, folder)
    return _python_of(folder)


def is_cached() -> bool:
    """Whether `make_stock_environment` has nothing to install, for a word to people who would wait."""
    return any(_is_complete(folder) for folder in cache_folder().glob(f"stock-{VERSION}-py*"))


def _install(base: Path, folder: Path) -> None:
    subprocess.run([base, "-m", "venv", folder], check=True)
    command: list[str | Path] = [_python_of(folder), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    # Without dependencies: the list is whole, and resolving what the frontier asks for takes pip very long.
    command += ["--no-deps", "--requirement", PINNED]
    done = subprocess.run(command, capture_output=True, check=False, text=True)
    if done.returncode != 0:
        shutil.rmtree(folder, ignore_errors=True)
        msg = f"pip could not install the stock packages for {base}:\n{done.stderr.strip()[-1_000:]}"
        raise NoStockPackages(msg)
    shutil.copy(PINNED, folder / _STAMP)


def _is_complete(folder: Path) -> bool:
    try:
        same = (folder / _STAMP).read_text() == PINNED.read_text()
    except OSError:
        return False
    return same and _runs(_python_of(folder))  # its base may have been removed since


def _python_of(folder: Path) -> Path:
    return folder / "bin" / "python"


def _find_python() -> Path | None:
    """The first one that runs: a shim may stand for a version that is not installed."""
    return next((python for python in _candidates() if _runs(python)), None)


def _candidates() -> Iterator[Path]:
    if f"python{sys.version_info.major}.{sys.version_info.minor}" in NEEDED:
        yield Path(sys.executable)
    for name in NEEDED:
        found = shutil.which(name)
        if found:
            yield Path(found)
    versions = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    for name in NEEDED:
        yield from sorted(versions.glob(f"{name.removeprefix('python')}.*/bin/python"), reverse=True)


def _runs(python: Path) -> bool:
    try:
        # Debian's python3 without python3-venv has a venv, and no pip to put into it.
        return (
            subprocess.run([python, "-c", "import venv, ensurepip, ssl"], capture_output=True, check=False).returncode
            == 0
        )
    except OSError:
        return False


def _ask(python: Path, program: str) -> str:
    return subprocess.run([python, "-c", program], capture_output=True, check=True, text=True).stdout.strip()
