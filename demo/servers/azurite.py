"""Azure's blob storage as a process: Azurite, in memory."""

from __future__ import annotations

import base64
import socket
from typing import TYPE_CHECKING, Any, Final

from azure.storage.blob import BlobServiceClient

from demo.servers.npm_programs import AZURITE, fetch_program
from demo.servers.process import Process, free_port

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

ACCOUNT: Final = "matyan"
KEY: Final = base64.b64encode(b"of a server on this machine, for a test's time").decode()


class AzuriteServer(Process):
    """Azurite's blob service on 127.0.0.1; everything is gone when it ends.

    Args:
        folder: for its log.
        port: a free one if not given.
    """

    def __init__(self, folder: Path, port: int | None = None) -> None:
        self.port = free_port() if port is None else port
        program = fetch_program(AZURITE, "dist/src/blob/main.js")
        command = ["node", str(program), "--blobHost", "127.0.0.1", "--blobPort", str(self.port)]
        # Its check knows no version of the protocol that is younger than itself; what we use is older.
        command += ["--inMemoryPersistence", "--silent", "--disableTelemetry", "--skipApiVersionCheck"]
        folder.mkdir(parents=True, exist_ok=True)
        super().__init__(
            "azurite",
            command,
            folder / "azurite.log",
            environment={"AZURITE_ACCOUNTS": f"{ACCOUNT}:{KEY}"},
            folder=folder,
            ready_seconds=120,
        )
        self._client: BlobServiceClient | None = None

    @property
    def account_url(self) -> str:
        """What clients connect to."""
        return f"http://127.0.0.1:{self.port}/{ACCOUNT}"

    def connection(self, key: str = KEY) -> str:
        """A connection string."""
        return f"DefaultEndpointsProtocol=http;AccountName={ACCOUNT};AccountKey={key};BlobEndpoint={self.account_url};"

    def settings(self, container: str) -> dict[str, str]:
        """Our settings for it, by their names in the environment."""
        return {"BLOB_BACKEND_TYPE": "azure", "AZURE_CONTAINER": container, "AZURE_CONN_STR": self.connection()}

    @property
    def client(self) -> Any:
        """A client of the server's owner."""
        if self._client is None:
            self._client = BlobServiceClient.from_connection_string(self.connection())
        return self._client

    def is_ready(self) -> bool:
        """Whether it listens."""
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=2).close()
        except OSError:
            return False
        return self.is_alive()

    def make_bucket(self, bucket: str, *, versions: bool = False) -> None:
        """Make a container.

        Raises:
            ValueError: with versions; Azurite has none.
        """
        if versions:
            msg = "Azurite keeps no versions"
            raise ValueError(msg)
        self.client.create_container(bucket)

    def put(self, keys: Iterable[str], body: bytes, bucket: str) -> None:
        """Write a blob a key."""
        container = self.client.get_container_client(bucket)
        for key in keys:
            container.upload_blob(key, body, overwrite=True)

    def keys(self, bucket: str) -> list[str]:
        """All keys."""
        return list(self.client.get_container_client(bucket).list_blob_names())

    def kill(self) -> None:
        """End it, and our connections."""
        super().kill()
        if self._client is not None:
            self._client.close()
            self._client = None
