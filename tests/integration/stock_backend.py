"""The stock ``matyan-backend`` over an embedded store: where it is found, how it is started, what it answers.

It runs on its own Python (3.12 or newer) with `tests/fdb_double` first on its path, so that its ``fdb`` is the double
and its cluster file names our store. It also wants a Kafka to produce to: librdkafka's mock cluster will do.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import struct
import subprocess
import sys
import urllib.request
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from demo.servers.kafka import MockKafka
from demo.servers.process import Process, free_port, wait_until
from tests.fdb_double import FOLDER

if TYPE_CHECKING:
    from collections.abc import Iterator

VERSION = "0.3.0"
PYTHON_VARIABLE = "MATYAN_TEST_STOCK_PYTHON"
NEEDED = ("python3.13", "python3.12")


class NoStockBackend(Exception):
    """There is no Python with the stock backend, and none can be made; the message says why."""


def stock_python() -> Path:
    """A Python that has the stock backend: the one that the variable names, else one made in the cache.

    Raises:
        NoStockBackend: neither.
    """
    named = os.environ.get(PYTHON_VARIABLE)
    if named:
        if not _has_backend(Path(named)):
            msg = f"{PYTHON_VARIABLE} names {named}, which cannot import matyan_backend {VERSION}"
            raise RuntimeError(msg)
        return Path(named)
    base = _find_python()
    if base is None:
        msg = f"the stock backend needs Python 3.12 or 3.13, none was found; {PYTHON_VARIABLE} may name one that has it"
        raise NoStockBackend(msg)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "matyan-celery"
    return _make_environment(base, cache)


def _find_python() -> Path | None:
    for name in NEEDED:
        found = shutil.which(name)
        if found and _runs(Path(found)):
            return Path(found)
    versions = Path.home() / ".pyenv" / "versions"
    for name in NEEDED:
        for candidate in sorted(versions.glob(f"{name.removeprefix('python')}.*/bin/python"), reverse=True):
            if _runs(candidate):
                return candidate
    return None


def _runs(python: Path) -> bool:
    """Whether it is more than a shim of a version that is not installed."""
    return subprocess.run([python, "-c", "import venv"], capture_output=True, check=False).returncode == 0


def _has_backend(python: Path) -> bool:
    check = (
        f"import importlib.metadata as m; assert m.version('matyan-backend') == '{VERSION}'; m.version('foundationdb')"
    )
    return subprocess.run([python, "-c", check], capture_output=True, check=False).returncode == 0


def _make_environment(base: Path, cache: Path) -> Path:
    version = subprocess.run(
        [base, "-c", "import sys; print('{}.{}'.format(*sys.version_info))"], capture_output=True, check=True, text=True
    ).stdout.strip()
    folder = cache / f"stock-{VERSION}-py{version}"
    python = folder / "bin" / "python"
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another test run may be making it
        if python.exists() and _has_backend(python):
            return python
        shutil.rmtree(folder, ignore_errors=True)
        subprocess.run([base, "-m", "venv", folder], check=True)
        install = [
            str(python),
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            f"matyan-backend=={VERSION}",
        ]
        done = subprocess.run(install, capture_output=True, check=False, text=True)
        if done.returncode != 0:
            shutil.rmtree(folder, ignore_errors=True)
            msg = f"pip could not install matyan-backend {VERSION} for Python {version}: {done.stderr.strip()[-300:]}"
            raise NoStockBackend(msg)
    return python


class StockBackend:
    """Its REST API."""

    def __init__(self, url: str) -> None:
        self._url = url

    def get(self, path: str) -> bytes:
        """The body of the answer to a GET."""
        return self._ask(path, None)

    def get_json(self, path: str) -> Any:
        """The JSON of the answer to a GET."""
        return json.loads(self.get(path))

    def post_json(self, path: str, body: object) -> Any:
        """The JSON of the answer to a POST."""
        return json.loads(self._ask(path, json.dumps(body).encode()))

    def get_tree(self, path: str) -> dict[tuple[str | int, ...], Any]:
        """The answer to a GET in the UI's streaming form: values by path."""
        return decode_stream(self.get(path))

    def _ask(self, path: str, body: bytes | None) -> bytes:
        request = urllib.request.Request(self._url + path, body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=30) as answer:
            content: bytes = answer.read()
        return content

    def is_up(self) -> bool:
        """Whether it answers."""
        try:
            self.get("/health/ready/")
        except OSError:
            return False
        return True


@contextmanager
def run_backend(python: Path, store: Path, folder: Path) -> Iterator[StockBackend]:
    """The stock backend over the embedded store at ``store``, for as long as the block lasts."""
    cluster_file = folder / "stock.cluster"
    cluster_file.write_text(f"sqlite:///{store}\n")
    kafka = MockKafka()
    for topic in ("data-ingestion", "control-events"):
        kafka.create_topic(topic)
    port = free_port()
    process = Process(
        "stock backend",
        [str(python), "-m", "uvicorn", "matyan_backend.app:app", "--host", "127.0.0.1", "--port", str(port)],
        folder / "stock.log",
        environment={
            "PYTHONPATH": str(FOLDER),
            "FDB_CLUSTER_FILE": str(cluster_file),
            "KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
            "METRICS_ENABLED": "false",
            "VIRTUAL_ENV": None,
        },
        folder=folder,
    )
    backend = StockBackend(f"http://127.0.0.1:{port}")
    process.start()
    try:
        wait_until(lambda: backend.is_up() or not process.is_alive(), "the stock backend answers", seconds=60)
        if not process.is_alive():
            sys.stderr.write(process.log.read_text()[-3_000:])
            msg = f"the stock backend ended with code {process.code}"
            raise RuntimeError(msg)
        yield backend
    finally:
        process.stop(10)


def decode_stream(data: bytes) -> dict[tuple[str | int, ...], Any]:
    """The pairs of the UI's streaming form: length, path, length, value, little-endian; a path's parts end with fe."""
    pairs = {}
    position = 0
    blocks = []
    while position < len(data):
        (size,) = struct.unpack_from("<I", data, position)
        blocks.append(data[position + 4 : position + 4 + size])
        position += 4 + size
    for path, value in zip(blocks[::2], blocks[1::2], strict=True):
        pairs[_decode_path(path)] = _decode_value(value)
    return pairs


def _decode_path(data: bytes) -> tuple[str | int, ...]:
    parts: list[str | int] = []
    while data:
        if data[0] == 0xFE:  # a number: 8 bytes, big-endian
            parts.append(struct.unpack(">q", data[1:9])[0])
            data = data[10:]
        else:
            text, _, data = data.partition(b"\xfe")
            parts.append(text.decode())
    return tuple(parts)


def _decode_value(data: bytes) -> Any:
    kind, rest = data[0], data[1:]
    if kind == 1:
        return rest != b"\0"
    if kind in (2, 3):
        return struct.unpack("<q" if kind == 2 else "<d", rest)[0]
    if kind == 4:
        return rest.decode()
    return {0: None, 5: rest, 6: [], 7: {}}[kind]
