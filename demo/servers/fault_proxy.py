"""An S3 in front of an S3, as a process: passes everything on, and while told so answers as stores do that differ.

``python -m demo.servers.fault_proxy PORT TARGET SWITCH``: the file SWITCH, if there, says what is wrong, in JSON:

- ``refuse``: requests that have this text in their address or body are answered with 503 SlowDown, as Amazon does under
  load;
- ``empty``, ``circle``: so many empty pages come before each page of a listing, or again and again;
- ``bulk``: status and code of the answer to DeleteObjects.
"""

from __future__ import annotations

import http.client
import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from demo.servers.empty_pages import Answer, EmptyPages
from demo.servers.process import Process, free_port

_HOST: Final = "127.0.0.1"
_SECONDS: Final = 30.0  # for an answer of the S3 behind
_LISTENING: Final = "listening"
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
        self._turn(refuse=prefix)

    def empty_pages(self, count: int, *, circle: bool = False) -> None:
        """From now on put empty pages before each page of a listing; in a circle, without an end."""
        self._turn(empty=count, circle=circle)

    def refuse_bulk(self, status: int, code: str) -> None:
        """From now on take no DeleteObjects."""
        self._turn(bulk=[status, code])

    def _turn(self, **wrong: Any) -> None:
        fresh = self._switch.with_suffix(".new")
        fresh.write_text(json.dumps(wrong))
        fresh.rename(self._switch)

    def relent(self) -> None:
        """From now on pass on everything."""
        self._switch.unlink(missing_ok=True)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def _pass_on(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self._answer(*(self._find_fault(body) or self._fetch(body)))

    def _find_fault(self, body: bytes) -> Answer | None:
        wrong = self.server.read_switch()
        prefix = wrong.get("refuse")
        if prefix and (prefix in unquote(self.path) or prefix.encode() in body):
            return _refusal(503, "SlowDown")
        if "bulk" in wrong and self.command == "POST" and "delete" in urlsplit(self.path).query:
            return _refusal(*wrong["bulk"])
        if self.command != "GET":
            return None
        count, circle = wrong.get("empty", 0), wrong.get("circle", False)
        return self.server.pages.answer(self.path, lambda: self._fetch(body), count=count, circle=circle)

    def _fetch(self, body: bytes) -> Answer:
        target = http.client.HTTPConnection(self.server.target, timeout=_SECONDS)
        try:
            target.request(self.command, self.path, body, dict(self.headers))
            answer = target.getresponse()
            return answer.status, answer.getheaders(), answer.read()
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
        self.pages = EmptyPages()
        super().__init__((_HOST, port), _Handler)

    def read_switch(self) -> dict[str, Any]:
        try:
            wrong: dict[str, Any] = json.loads(self._switch.read_text())
        except FileNotFoundError:
            return {}
        return wrong


def _refusal(status: int, code: str) -> Answer:
    words = "Please reduce your request rate." if code == "SlowDown" else "This is not taken here."
    body = f'<?xml version="1.0" encoding="UTF-8"?><Error><Code>{code}</Code><Message>{words}</Message></Error>'
    return status, [("Content-Type", "application/xml")], body.encode()


def main() -> None:
    """Serve until killed."""
    port, target, switch = sys.argv[1:]
    with _Server(int(port), target, Path(switch)) as server:
        print(_LISTENING, flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main()
