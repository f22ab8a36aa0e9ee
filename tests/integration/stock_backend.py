"""The stock ``matyan-backend`` over an embedded store: where it is found, how it is started, what it answers.

It runs on its own Python (3.12 or newer) with `tests/fdb_double` first on its path, so that its ``fdb`` is the double
and its cluster file names our store. It also wants a Kafka to produce to: librdkafka's mock cluster will do.
"""

from __future__ import annotations

import json
import os
import struct
import subprocess
import urllib.request
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from demo.servers.kafka import MockKafka
from demo.servers.stock import StockBackend
from demo.servers.stock_environment import NoStockPackages, make_stock_environment

if TYPE_CHECKING:
    from collections.abc import Iterator

VERSION = "0.3.0"
PYTHON_VARIABLE = "MATYAN_TEST_STOCK_PYTHON"


class NoStockBackend(Exception):
    """There is no Python with the stock backend, and none can be made; the message says why."""


def stock_python() -> Path:
    """A Python that has the stock packages: the one that the variable names, else one made in the cache.

    Raises:
        NoStockBackend: neither.
    """
    named = os.environ.get(PYTHON_VARIABLE)
    if named:
        if not _has_backend(Path(named)):
            msg = f"{PYTHON_VARIABLE} names {named}, which cannot import matyan_backend {VERSION}"
            raise RuntimeError(msg)
        return Path(named)
    try:
        return make_stock_environment()
    except NoStockPackages as error:
        raise NoStockBackend(str(error)) from error


def _has_backend(python: Path) -> bool:
    check = (
        f"import importlib.metadata as m; assert m.version('matyan-backend') == '{VERSION}'; m.version('foundationdb')"
    )
    return subprocess.run([python, "-c", check], capture_output=True, check=False).returncode == 0


class StockApi:
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


@contextmanager
def run_backend(python: Path, store: Path, folder: Path) -> Iterator[StockApi]:
    """The stock backend over the embedded store at ``store``, for as long as the block lasts."""
    kafka = MockKafka()
    for topic in ("data-ingestion", "control-events"):
        kafka.create_topic(topic)
    settings = {"KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap_servers}
    try:
        with StockBackend(python, folder, f"sqlite:///{store.resolve()}", settings) as process:
            yield StockApi(process.url)
    finally:
        kafka.stop()


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
