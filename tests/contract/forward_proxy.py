"""A proxy as companies have them, on 127.0.0.1; whatever name it is asked for stands for this machine."""

from __future__ import annotations

import contextlib
import http.client
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final
from urllib.parse import urlsplit

_HERE: Final = "127.0.0.1"
_SECONDS: Final = 60.0
_HOP: Final = frozenset({"connection", "proxy-connection", "keep-alive", "transfer-encoding", "content-length"})


class ForwardProxy:
    """The proxy, in threads of ours.

    Attributes:
        requests: method, address and Host header of what was asked of it.
    """

    def __init__(self) -> None:
        self.requests: list[tuple[str, str, str]] = []
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_CONNECT(self) -> None:
                proxy.requests.append(("CONNECT", self.path, self.path))  # there need be no Host header
                self.close_connection = True
                with socket.create_connection((_HERE, int(self.path.rpartition(":")[2])), _SECONDS) as server:
                    self.send_response_only(200)
                    self.end_headers()
                    back = threading.Thread(target=_pour, args=(server, self.connection))
                    back.start()
                    _pour(self.connection, server)
                    back.join()

            def _pass_on(self) -> None:
                proxy.requests.append((self.command, self.path, self.headers.get("Host", "")))
                parts = urlsplit(self.path)
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                server = http.client.HTTPConnection(_HERE, parts.port or 80, timeout=_SECONDS)
                try:
                    path = f"{parts.path}?{parts.query}" if parts.query else parts.path
                    server.request(self.command, path, body, dict(self.headers))
                    answer = server.getresponse()
                    content = answer.read()
                finally:
                    server.close()
                self.send_response_only(answer.status)
                for name, value in answer.getheaders():
                    if name.lower() not in _HOP:
                        self.send_header(name, value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_POST = do_DELETE = _pass_on  # noqa: N815 - the names that http.server looks for

            def log_message(self, *_: Any) -> None:
                """Says nothing."""

        self._server = ThreadingHTTPServer((_HERE, 0), Handler)
        self._server.daemon_threads = True
        self.address = f"http://{_HERE}:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    def close(self) -> None:
        """End it."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _pour(source: socket.socket, sink: socket.socket) -> None:
    """What comes from one side goes to the other, until that ends."""
    with contextlib.suppress(OSError):
        while data := source.recv(65_536):
            sink.sendall(data)
    for side in (source, sink):
        with contextlib.suppress(OSError):
            side.shutdown(socket.SHUT_RDWR)
