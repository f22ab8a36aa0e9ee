"""An S3 in front of an S3, as a process: passes everything on, and while told so refuses what concerns one prefix.

``python -m demo.servers.fault_proxy PORT TARGET SWITCH``: while the file SWITCH is there, requests that mention its
text in their address or body are answered with 503 SlowDown, as Amazon does under load.
"""

from __future__ import annotations

import http.client
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from demo.servers.process import Process, free_port

_HOST: Final = "127.0.0.1"
_SECONDS: Final = 30.0  # for an answer of the S3 behind
_LISTENING: Final = "listening"
_ANSWER: Final = b"""<?xml version="1.0" encoding="UTF-8"?>
<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"""
# Of one connection, not of the message.
_HOP: Final = frozenset({"connection", "keep-alive", "transfer-encoding", "content-length"})


class FaultProxy(Process):
    """The proxy as a process.

    Args:
        folder: for its log and its switch.
        target: address of the S3 behind it.
    """

    def __init__(self, folder: Path, target: str) -> None:
        self.port = free_port()
        self._switch = folder / "refused"
        folder.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "demo.servers.fault_proxy", str(self.port), target, str(self._switch)]
        root = str(Path(__file__).parents[2])
        super().__init__("fault-proxy", command, folder / "fault-proxy.log", environment={"PYTHONPATH": root})

    @property
    def endpoint(self) -> str:
        """What clients connect to."""
        return f"http://{_HOST}:{self.port}"

    def is_ready(self) -> bool:
        """Whether it listens."""
        return _LISTENING in self.output()

    def refuse(self, prefix: str) -> None:
        """From now on refuse what concerns a prefix."""
        fresh = self._switch.with_suffix(".new")
        fresh.write_text(prefix)
        fresh.rename(self._switch)

    def relent(self) -> None:
        """From now on refuse nothing."""
        self._switch.unlink(missing_ok=True)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def _pass_on(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.server.is_refused(self.path, body):
            self._answer(503, [("Content-Type", "application/xml")], _ANSWER)
            return
        target = http.client.HTTPConnection(self.server.target, timeout=_SECONDS)
        try:
            target.request(self.command, self.path, body, dict(self.headers))
            answer = target.getresponse()
            self._answer(answer.status, answer.getheaders(), answer.read())
        finally:
            target.close()

    def _answer(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        self.send_response_only(status)
        for name, value in headers:
            if name.lower() not in _HOP:
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def __getattr__(self, name: str) -> Any:
        """All methods are passed on: the server looks for ``do_GET``, ``do_PUT``, ..."""
        if name.startswith("do_"):
            return self._pass_on
        raise AttributeError(name)


class _Server(ThreadingHTTPServer):
    def __init__(self, port: int, target: str, switch: Path) -> None:
        self.target = urlsplit(target).netloc
        self._switch = switch
        super().__init__((_HOST, port), _Handler)

    def is_refused(self, path: str, body: bytes) -> bool:
        try:
            prefix = self._switch.read_text()
        except FileNotFoundError:
            return False
        return prefix in unquote(path) or prefix.encode() in body


def main() -> None:
    """Serve until killed."""
    port, target, switch = sys.argv[1:]
    with _Server(int(port), target, Path(switch)) as server:
        print(_LISTENING, flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main()
