"""FoundationDB's programs and its client library: found, never installed.

They are looked for in the folder that ``FDB_HOME`` names, then on the path and where the official packages put them,
then in a folder ``shared/servers/foundationdb`` beside the checkout, whose ``unpack.sh`` prints where it has them.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import functools
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from demo.servers.cache import run_tool
from demo.servers.process import DidNotStart

RELEASE: Final = "7.3"  # the line of the Python package in constraints.txt; another line's client cannot connect
HOME_VARIABLE: Final = "FDB_HOME"
SHARED: Final = Path(__file__).parents[3] / "shared" / "servers" / "foundationdb"
_LIBRARY: Final = "libfdb_c.so"
# Debian's and RPM's official packages; users have no sbin on their path, and the agent is on nobody's.
_OFFICIAL: Final = (Path("/usr/sbin"), Path("/usr/bin"), Path("/usr/lib/foundationdb/backup_agent"))


@dataclass(frozen=True)
class FoundationPrograms:
    """Where they are.

    Attributes:
        folders: that hold the programs; the first one that has a program counts.
        library: the folder of ``libfdb_c``; None where the system's loader finds it.
    """

    folders: tuple[Path, ...]
    library: Path | None

    def program(self, name: str) -> Path:
        """A program of FoundationDB by its name.

        Raises:
            DidNotStart: it is not there.
        """
        for folder in self.folders:
            if (folder / name).is_file():
                return folder / name
        msg = f"no {name} in {', '.join(map(str, self.folders))}"
        raise DidNotStart(msg)

    def environment(self) -> dict[str, str]:
        """What lets a program that is started load the client library."""
        if self.library is None:
            return {}
        before = os.environ.get("LD_LIBRARY_PATH", "").split(":")
        here = str(self.library)
        return {"LD_LIBRARY_PATH": ":".join([here, *(folder for folder in before if folder not in {here, ""})])}

    def load(self) -> None:
        """Let this process, and those that it starts from now on, load the client library by its name."""
        os.environ.update(self.environment())
        if self.library is not None:
            # The loader has read our own LD_LIBRARY_PATH when we began. But it knows what is loaded by its name.
            ctypes.CDLL(str(self.library / _LIBRARY))


def missing_for_foundationdb() -> str | None:
    """Why no FoundationDB can run here; None if it can."""
    try:
        find_foundationdb()
    except DidNotStart as error:
        return str(error)
    return None


@functools.cache
def find_foundationdb() -> FoundationPrograms:
    """Server, command line and client library, of one release line with the Python package.

    Raises:
        DidNotStart: there are none, or of another line; says where was looked, or what is wrong.
    """
    named = os.environ.get(HOME_VARIABLE)
    found = _of_folder(Path(named).absolute()) if named else _of_path() or _of_shared()
    if found is None:
        msg = (
            f"{HOME_VARIABLE} is not set, fdbserver and fdbcli are not on the path, and there is no {SHARED}: install "
            f"FoundationDB {RELEASE} (its packages 'foundationdb-server' and 'foundationdb-clients')"
        )
        raise DidNotStart(msg)
    _check_release(found.program("fdbserver"))
    return found


def _of_folder(folder: Path) -> FoundationPrograms:
    for name in ("fdbserver", "fdbcli", _LIBRARY):
        if not (folder / name).is_file():
            msg = f"{HOME_VARIABLE} names {folder}, where is no {name}"
            raise DidNotStart(msg)
    return FoundationPrograms((folder,), folder)


def _of_path() -> FoundationPrograms | None:
    on_path = [Path(found).parent for found in map(shutil.which, ("fdbserver", "fdbcli")) if found]
    folders = tuple(dict.fromkeys((*on_path, *_OFFICIAL)))
    found = FoundationPrograms(folders, None)
    try:
        server = found.program("fdbserver")
        found.program("fdbcli")
    except DidNotStart:
        return None
    if ctypes.util.find_library("fdb_c") is not None:
        return found
    if (server.parent / _LIBRARY).is_file():
        return FoundationPrograms(folders, server.parent)
    msg = f"{server} is here, but no {_LIBRARY}: install 'foundationdb-clients' {RELEASE} too"
    raise DidNotStart(msg)


def _of_shared() -> FoundationPrograms | None:
    script = SHARED / "unpack.sh"
    if not script.is_file():
        return None
    return _of_folder(Path(run_tool([script], "FoundationDB", folder=SHARED).strip()))


def _check_release(server: Path) -> None:
    try:
        said = subprocess.run([server, "--version"], capture_output=True, text=True, check=False, timeout=60).stdout
    except (OSError, subprocess.TimeoutExpired) as error:
        msg = f"{server} does not run: {error}"
        raise DidNotStart(msg) from error
    version = re.search(r"\(v([0-9.]+)\)", said)
    if version is None or not version[1].startswith(f"{RELEASE}."):
        msg = f"{server} is {version[1] if version else 'of no version that it tells'}, the tests need {RELEASE}"
        raise DidNotStart(msg)
