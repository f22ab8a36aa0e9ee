"""Google Cloud Storage as a process: fake-gcs-server, in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import requests
from google.auth.credentials import AnonymousCredentials
from google.cloud.storage import Client

from demo.servers.go_programs import FAKE_GCS, build_program
from demo.servers.process import Process, free_port

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


class GcsServer(Process):
    """fake-gcs-server on 127.0.0.1; everything is gone when it ends.

    Args:
        folder: for its log.
        port: a free one if not given.
    """

    def __init__(self, folder: Path, port: int | None = None) -> None:
        self.port = free_port() if port is None else port
        command = [str(build_program(FAKE_GCS)), "-scheme", "http", "-host", "127.0.0.1", "-port", str(self.port)]
        command += ["-backend", "memory", "-public-host", f"127.0.0.1:{self.port}", "-log-level", "error"]
        folder.mkdir(parents=True, exist_ok=True)
        super().__init__("fake-gcs-server", command, folder / "fake-gcs-server.log", ready_seconds=60)
        self._client: Any = None

    @property
    def endpoint(self) -> str:
        """What clients connect to."""
        return f"http://127.0.0.1:{self.port}"

    def settings(self, bucket: str) -> dict[str, str]:
        """Our settings for it, by their names in the environment; the library wants `environment` too."""
        return {"BLOB_BACKEND_TYPE": "gcs", "GCS_BUCKET": bucket}

    @property
    def environment(self) -> dict[str, str]:
        """What makes Google's library come here, as Google names it."""
        return {"STORAGE_EMULATOR_HOST": self.endpoint}

    @property
    def client(self) -> Any:
        """A client of the server's owner."""
        if self._client is None:
            options = {"api_endpoint": self.endpoint}
            self._client = Client("test", credentials=AnonymousCredentials(), client_options=options)
        return self._client

    def is_ready(self) -> bool:
        """Whether it answers."""
        try:
            requests.get(f"{self.endpoint}/storage/v1/b?project=test", timeout=5).raise_for_status()
        except requests.RequestException:
            return False
        return self.is_alive()

    def make_bucket(self, bucket: str, *, versions: bool = False) -> None:
        """Make a bucket; with ``versions``, one that keeps every generation."""
        made = self.client.bucket(bucket)
        made.versioning_enabled = versions
        made.create()

    def put(self, keys: Iterable[str], body: bytes, bucket: str) -> None:
        """Write an object a key."""
        for key in keys:
            self.client.bucket(bucket).blob(key).upload_from_string(body)

    def keys(self, bucket: str) -> list[str]:
        """All keys."""
        return [item.name for item in self.client.list_blobs(bucket)]

    def kill(self) -> None:
        """End it, and our connections."""
        super().kill()
        if self._client is not None:
            self._client.close()
            self._client = None
