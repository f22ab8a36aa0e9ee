"""Slow downloads and builds, kept between runs: made once, whole or not at all, however many processes want them."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from demo.servers.process import DidNotStart

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

_SECONDS: Final = 900


def cache_folder() -> Path:
    """Where slow downloads are kept between runs; may be deleted at any time."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "matyan-celery"


def made_once(folder: Path, is_complete: Callable[[Path], bool], make: Callable[[Path], None]) -> Path:
    """A folder of the cache, made if it is absent or not whole.

    Args:
        folder: where it belongs.
        is_complete: whether all of it is there; asked before use, since a cache may lose files.
        make: makes it under another name, which does not exist yet; renamed when it is whole.

    Returns:
        ``folder``.
    """
    if is_complete(folder):
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with locked(folder.with_name(f"{folder.name}.lock")):
        if not is_complete(folder):  # else somebody else made it while we waited
            with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f"{folder.name}.") as parent:
                fresh = Path(parent) / "fresh"
                make(fresh)
                shutil.rmtree(folder, ignore_errors=True)
                fresh.rename(folder)
    return folder


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """One process at a time; the lock goes with its holder."""
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def run_tool(
    command: Sequence[str | Path], what: str, *, folder: Path, environment: Mapping[str, str] | None = None
) -> str:
    """Run a program that fetches or builds, fifteen minutes at most.

    Args:
        command: the program and its arguments.
        what: what comes of it, for the error.
        folder: where it runs.
        environment: variables beside ours.

    Returns:
        What it wrote to its standard output.

    Raises:
        DidNotStart: it could not; holds the end of what the program said.
    """
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            env={**os.environ, **(environment or {})},
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        msg = f"{what} could not be had: {error}"
        raise DidNotStart(msg) from error
    if done.returncode != 0:
        msg = f"{command[0]} could not get {what}:\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
        raise DidNotStart(msg)
    return done.stdout
