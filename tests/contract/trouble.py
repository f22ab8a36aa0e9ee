"""A server over real HTTP that answers as it is told."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Answer = tuple[int, str] | tuple[int, str, dict[str, str]]


class Trouble:
    """A server that gives these answers, one a request, the last one again and again; none: it is silent.

    Attributes:
        answers: status, text, and headers if any.
        at: answers of single requests, by what their path has in it; they go before the others.
        requests: path, headers and body of what came.
    """

    def __init__(self) -> None:
        self.answers: list[Answer] = []
        self.at: dict[str, Answer] = {}
        self.requests: list[tuple[str, dict[str, str], bytes]] = []
        self.silent = threading.Event()
        self._lock = threading.Lock()
        trouble = self

        class Handler(BaseHTTPRequestHandler):
            def _answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                answer = trouble._choose(self.path, dict(self.headers.items()), body)
                if answer is None:
                    trouble.silent.wait(30)
                    return
                status, text, *others = answer
                self.send_response(status)
                for name, value in {"Content-Length": str(len(text.encode())), **(others[0] if others else {})}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(text.encode())

            do_GET = do_POST = do_PUT = do_DELETE = _answer  # noqa: N815 - the names that http.server looks for

            def log_message(self, *_: object) -> None:
                """Says nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self.server.server_address[1]}"
        self.thread = threading.Thread(target=self.server.serve_forever)
        self.thread.start()

    def _choose(self, path: str, headers: dict[str, str], body: bytes) -> Answer | None:
        with self._lock:
            self.requests.append((path, headers, body))
            for part, answer in self.at.items():
                if part in path:
                    return answer
            if not self.answers:
                return None
            return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]

    def close(self) -> None:
        self.silent.set()
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()
