"""A token endpoint for tests (OAuth 2, client credentials): signs tokens, and shows the key to check them by."""

from __future__ import annotations

import base64
import json
import threading
import time
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final, Self

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

CLIENT: Final = "matyan"
SECRET: Final = "hunter2-of-the-client"
AUDIENCE: Final = "kafka"
ISSUER: Final = "tests"
_SECONDS: Final = 600


class TokenEndpoint:
    """Runs in a thread of its own, on 127.0.0.1."""

    def __init__(self) -> None:
        self._key = rsa.generate_private_key(public_exponent=65_537, key_size=2_048)
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._answer(HTTPStatus.OK, endpoint.keys())

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length", "0")))
                given = self.headers.get("Authorization", "").removeprefix("Basic ")
                if base64.b64decode(given).decode() == f"{CLIENT}:{SECRET}":
                    self._answer(HTTPStatus.OK, endpoint.token())
                else:
                    self._answer(HTTPStatus.UNAUTHORIZED, {"error": "invalid_client"})

            def _answer(self, status: HTTPStatus, body: Any) -> None:
                data = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, name="token-endpoint")

    @property
    def url(self) -> str:
        """Where tokens are asked for."""
        return f"http://127.0.0.1:{self._server.server_port}/token"

    @property
    def keys_url(self) -> str:
        """Where the keys are."""
        return f"http://127.0.0.1:{self._server.server_port}/keys"

    def keys(self) -> dict[str, Any]:
        """The public key, as a JWKS."""
        numbers = self._key.public_key().public_numbers()
        return {
            "keys": [
                {
                    "kty": "RSA",
                    "kid": "1",
                    "use": "sig",
                    "alg": "RS256",
                    "n": _encode(numbers.n.to_bytes(256)),
                    "e": _encode(numbers.e.to_bytes(3)),
                }
            ]
        }

    def token(self) -> dict[str, Any]:
        """A fresh token, as the endpoint answers with it."""
        now = int(time.time())
        claims = {"sub": CLIENT, "iss": ISSUER, "aud": AUDIENCE, "iat": now, "exp": now + _SECONDS, "scope": "kafka"}
        head = {"alg": "RS256", "kid": "1", "typ": "JWT"}
        signed = f"{_encode(json.dumps(head).encode())}.{_encode(json.dumps(claims).encode())}"
        signature = self._key.sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256())
        return {
            "access_token": f"{signed}.{_encode(signature)}",
            "token_type": "Bearer",
            "expires_in": _SECONDS,
            "scope": "kafka",
        }

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")
