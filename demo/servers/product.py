"""Our own programs as processes: the bridge and the Celery workers, configured by environment variables alone."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from demo.servers.process import Process
from tasks.settings import Settings, setting_names

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path


def clear_settings(given: Mapping[str, str]) -> dict[str, str | None]:
    """An environment in which only ``given`` configures our programs, whatever our own environment holds.

    Raises:
        ValueError: a name in ``given`` is none of ours; our programs would ignore it.
    """
    ours = setting_names(Settings)
    unknown = sorted(set(given) - ours)
    if unknown:
        msg = f"no such settings: {', '.join(unknown)}"
        raise ValueError(msg)
    # Several of them run on one machine: none has metrics and health at the default port unless a test gives one.
    return {**dict.fromkeys(ours), "METRICS_PORT": "0", **given}


class BridgeProcess(Process):
    """``python -m bridge``. SIGTERM makes it drain, commit and leave.

    Args:
        folder: for its log, and its working directory (no ``.env`` is read there unless you write one).
        settings: by their names in the environment.
        name: for messages, and of its log file.
    """

    def __init__(self, folder: Path, settings: Mapping[str, str], *, name: str = "bridge") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        super().__init__(
            name,
            [sys.executable, "-m", "bridge"],
            folder / f"{name}.log",
            environment=clear_settings(settings),
            folder=folder,
        )


class WorkerProcess(Process):
    """``celery -A tasks worker``. SIGTERM lets running tasks end; `kill` takes its children too.

    Args:
        folder: for its log, and its working directory (no ``.env`` is read there unless you write one).
        settings: by their names in the environment.
        name: for messages, of its log file, and the worker's node name.
        concurrency: how many tasks run at once.
        queues: the queues to consume; all of ours if not given.
        pool: Celery's name for the kind of children.
    """

    def __init__(
        self,
        folder: Path,
        settings: Mapping[str, str],
        *,
        name: str = "worker",
        concurrency: int = 1,
        queues: Sequence[str] | None = None,
        pool: str = "prefork",
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._node = f"{name}@{folder.name}"
        command = [sys.executable, "-m", "celery", "-A", "tasks", "worker", "--hostname", self._node]
        command += ["--loglevel", "INFO", "--pool", pool, "--concurrency", str(concurrency)]
        command += ["--without-gossip", "--without-mingle"]
        if queues is not None:
            command += ["--queues", ",".join(queues)]
        super().__init__(
            name,
            command,
            folder / f"{name}.log",
            # Celery's soft shutdown (REMAP_SIGTERM=SIGQUIT) would wait its whole time, even with nothing running.
            environment={**clear_settings(settings), "REMAP_SIGTERM": None},
            folder=folder,
            ready_seconds=60,
        )

    def is_ready(self) -> bool:
        """Whether it consumes its queues."""
        return f"{self._node} ready." in self.output()


class BeatProcess(Process):
    """``celery -A tasks beat``: sends the periodic jobs.

    Args:
        folder: for its log, its schedule, and its working directory (no ``.env`` is read there unless you write one).
        settings: by their names in the environment.
        name: for messages, and of its log and schedule files.
    """

    def __init__(self, folder: Path, settings: Mapping[str, str], *, name: str = "beat") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        super().__init__(
            name,
            [sys.executable, "-m", "celery", "-A", "tasks", "beat", "--loglevel", "INFO", "--pidfile", ""],
            folder / f"{name}.log",
            environment=clear_settings({"BEAT_SCHEDULE_FILE": str(folder / name / "schedule"), **settings}),
            folder=folder,
            ready_seconds=60,
        )

    def is_ready(self) -> bool:
        """Whether it has begun to send."""
        return "beat: Starting..." in self.output()
