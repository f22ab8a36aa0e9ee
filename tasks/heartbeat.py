"""Heartbeat files: where they are, and what they say of a process. Imports little: a probe runs every few seconds.

Times are those of the machine's monotonic clock, which processes share: a heartbeat of before a reboot is an old one.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

WRITE_EVERY: Final = 1.0  # seconds
PROBES: Final = ("live", "ready", "started")
DEFAULT_FOLDER: Final = str(Path(tempfile.gettempdir()) / "matyan-celery")
_FOLDER: Final = "HEARTBEAT_FOLDER"


def find_folder(env_file: Path) -> Path:
    """The setting HEARTBEAT_FOLDER, read as `tasks.settings` reads it, without loading all the others.

    Args:
        env_file: read where it exists; the environment wins over it.
    """
    found = _find(os.environ)
    if found is None and env_file.is_file():
        from dotenv import dotenv_values

        found = _find(dotenv_values(env_file, encoding="utf-8-sig"))
    return Path(found or DEFAULT_FOLDER)


def _find(layer: Mapping[str, str | None]) -> str | None:
    if _FOLDER in layer:
        return layer[_FOLDER]
    return next((value for name, value in layer.items() if name.upper() == _FOLDER), None)


def heartbeat_file(folder: Path, role: str) -> Path:
    """Where a process of a role leaves its heartbeat."""
    return folder / f"{role}.json"


def find_ailments(folder: Path, roles: Iterable[str], probe: str) -> list[str]:
    """What speaks against a process on this machine, by its heartbeat file; nothing if all is well.

    Args:
        folder: where heartbeats are.
        roles: the process has one of these; the first that has a file counts.
        probe: one of `PROBES`.
    """
    files = [heartbeat_file(folder, role) for role in roles]
    for file in files:
        try:
            beat = json.loads(file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            continue
        except (OSError, ValueError) as error:
            return [f"cannot read {file}: {error}"]
        if not is_alive(beat["pid"]):
            return [f"process {beat['pid']} of {file} is gone"]
        loops: dict[str, float] = beat["loops"]
        if probe == "started":
            return [] if loops else ["no loop has turned yet"]
        hung = find_hung(loops, beat["stale"]) + list(beat.get("stuck", ()))
        return hung + list(beat["unready"]) if probe == "ready" else hung
    return [f"no heartbeat at {files[0]}: it does not run here, has just begun, or has another {_FOLDER}"]


def find_hung(turns: Mapping[str, float], stale: float) -> list[str]:
    """The loops that have not turned for longer than ``stale`` seconds, in sentences."""
    now = time.monotonic()
    if not turns:
        return ["no loop has turned yet"]
    return [
        f"{loop}: has not turned for {now - turned:.0f} s"
        for loop, turned in list(turns.items())
        if not -WRITE_EVERY <= now - turned <= stale  # one that lies ahead is of before a reboot
    ]


def is_alive(pid: int) -> bool:
    """Whether there is a process of this id."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
