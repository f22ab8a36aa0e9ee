"""Metrics and health over HTTP: /livez, /readyz, /startupz, and metrics at any other path (like the stock workers)."""

from __future__ import annotations

import gzip
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Final

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.exposition import choose_encoder

from tasks.settings import WrongSettingError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from prometheus_client.registry import Collector

    from tasks.health import Health

_SLOW: Final = 30.0  # seconds after which a client that says nothing is dropped


class Endpoint:
    """The HTTP server of one process, in a thread of its own.

    Args:
        host: address to listen on.
        port: at which; 0: any that is free, see `port`.
        health: answers the probes.
        collectors: where the metrics come from.

    Raises:
        WrongSettingError: the port is in use, or may not be had; says what to do.
    """

    def __init__(self, host: str, port: int, health: Health, collectors: Iterable[Collector]) -> None:
        registry = CollectorRegistry()
        for collector in (*collectors, ProcessCollector(registry=None), PlatformCollector(registry=None)):
            registry.register(collector)
        GCCollector(registry=registry)
        probes = {"/livez": health.find_hung, "/readyz": health.find_unready, "/startupz": health.find_unstarted}
        try:
            self._server = _Server((host, port), _make_handler(registry, probes))
        except OSError as error:
            msg = (
                f"METRICS_PORT={port}: cannot listen there on {host} ({error.strerror}): give each process of this "
                "machine a port of its own, or 0 for none"
            )
            raise WrongSettingError(msg) from error
        self._thread = threading.Thread(target=self._server.serve_forever, name="metrics", daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        """The port that it listens at."""
        return int(self._server.server_address[1])

    def close(self) -> None:
        """Stop answering. Closing twice is fine."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def release(self) -> None:
        """Let a forked child go of the port, which would outlive its parent otherwise."""
        self._server.socket.close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away in the middle is none of our business."""


def _make_handler(
    registry: CollectorRegistry, probes: dict[str, Callable[[], list[str]]]
) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = _SLOW

        def do_GET(self) -> None:
            probe = probes.get(self.path.partition("?")[0])
            if probe is None:
                self._send_metrics()
                return
            ailments = probe()
            text = "\n".join(ailments) or "ok"
            self._send(503 if ailments else 200, "text/plain; charset=utf-8", (text + "\n").encode())

        do_HEAD = do_GET  # noqa: N815 - the library's name

        def _send_metrics(self) -> None:
            encode, kind = choose_encoder(self.headers.get("Accept", ""))
            body = encode(registry)
            if "gzip" in self.headers.get("Accept-Encoding", ""):
                self._send(200, kind, gzip.compress(body, 1), ("Content-Encoding", "gzip"))
            else:
                self._send(200, kind, body)

        def _send(self, code: int, kind: str, body: bytes, *headers: tuple[str, str]) -> None:
            self.send_response(code)
            for name, value in (("Content-Type", kind), ("Content-Length", str(len(body))), *headers):
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the library's name
            """Probes come every few seconds: not a line each."""

    return Handler
