"""Our own programs as processes: the bridge and the Celery workers, configured by environment variables alone."""

from __future__ import annotations

import sys
import urllib.request
from http import HTTPStatus
from typing import TYPE_CHECKING

from demo.servers.process import Process, free_port
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
    return {**dict.fromkeys(ours), **given}


def _make_own(folder: Path, given: Mapping[str, str]) -> dict[str, str | None]:
    """An environment for one of several programs on this machine: no server at the default port, own heartbeats."""
    folder.mkdir(parents=True, exist_ok=True)
    own = {"METRICS_PORT": "0", "HEARTBEAT_FOLDER": str(folder / "heartbeats")}
    return clear_settings({**own, **given})


class BridgeProcess(Process):
    """``python -m bridge``. SIGTERM makes it drain, commit and leave.

    Args:
        folder: for its log, and its working directory (no ``.env`` is read there unless you write one).
        settings: by their names in the environment.
        name: for messages, and of its log file.
    """

    def __init__(self, folder: Path, settings: Mapping[str, str], *, name: str = "bridge") -> None:
        super().__init__(
            name,
            [sys.executable, "-m", "bridge"],
            folder / f"{name}.log",
            environment=_make_own(folder, settings),
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
            environment={**_make_own(folder, settings), "REMAP_SIGTERM": None},
            folder=folder,
            ready_seconds=60,
        )

    def is_ready(self) -> bool:
        """Whether it consumes its queues."""
        return f"{self._node} ready." in self.output()


class BeatProcess(Process):
    """``celery -A tasks beat``.

    Args:
        folder: for its log and its schedule, and its working directory.
        settings: by their names in the environment.
        name: for messages, and of its log file.
    """

    def __init__(self, folder: Path, settings: Mapping[str, str], *, name: str = "beat") -> None:
        super().__init__(
            name,
            [sys.executable, "-m", "celery", "-A", "tasks", "beat", "--schedule", str(folder / f"{name}-schedule")],
            folder / f"{name}.log",
            environment=_make_own(folder, settings),
            folder=folder,
            ready_seconds=60,
        )

    def is_ready(self) -> bool:
        """Whether it has begun to send."""
        return "beat: Starting..." in self.output()


class CommandProcess(Process):
    """``matyan-celery`` with some arguments, which ends by itself.

    Args:
        folder: for its log, and its working directory.
        settings: by their names in the environment.
        arguments: the command and its options.
    """

    def __init__(self, folder: Path, settings: Mapping[str, str], *arguments: str) -> None:
        super().__init__(
            " ".join(arguments),
            [sys.executable, "-m", "matyan_celery", *arguments],
            folder / f"{'-'.join(arguments[:2])}.log",
            environment=_make_own(folder, settings),
            folder=folder,
        )


class FlowerProcess(Process):
    """``matyan-celery flower``: Flower with the page ``/recovery``, on 127.0.0.1.

    Args:
        folder: for its log, and its working directory.
        settings: by their names in the environment.
        name: for messages, and of its log file.
        port: a free one if not given.
        login: user and password, as ``user:password``; empty: Flower runs without authentication.
        prefix: of its addresses.
        config: started by Celery's own command with this configuration file.
    """

    def __init__(
        self,
        folder: Path,
        settings: Mapping[str, str],
        *,
        name: str = "flower",
        port: int | None = None,
        login: str = "demo:demo",
        prefix: str = "",
        config: Path | None = None,
    ) -> None:
        self.port = free_port() if port is None else port
        self.login = login
        self._prefix = f"/{prefix}" if prefix else ""
        command = [sys.executable, "-m", *(["celery", "-A", "tasks"] if config is not None else ["matyan_celery"])]
        command += ["flower", f"--port={self.port}", "--address=127.0.0.1"]
        command += [f"--conf={config}"] if config is not None else []
        command += [f"--basic_auth={login}"] if login else []
        command += [f"--url_prefix={prefix}"] if prefix else []
        super().__init__(
            name,
            command,
            folder / f"{name}.log",
            environment=_make_own(folder, settings),
            folder=folder,
            ready_seconds=60,
        )

    @property
    def url(self) -> str:
        """Where its pages begin, without a slash at the end."""
        return f"http://127.0.0.1:{self.port}{self._prefix}"

    def is_ready(self) -> bool:
        """Whether it answers."""
        try:
            with urllib.request.urlopen(f"{self.url}/healthcheck", timeout=5) as answer:  # noqa: S310 - http
                return bool(answer.status == HTTPStatus.OK)
        except OSError:
            return False
