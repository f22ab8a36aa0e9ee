"""S3 as a process: versitygw, a real gateway over a folder, or moto's server, which starts fast and can be fooled."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Final

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from demo.servers.go_programs import VERSITYGW, build_program
from demo.servers.process import Process, free_port

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

KEY: Final = "test-key"
SECRET: Final = "test-secret"  # noqa: S105 - of a server on this machine, for a test's time
BUCKET: Final = "matyan-artifacts"


class S3Server(Process):
    """An S3 server on 127.0.0.1, always at the same port; `make_bucket` makes what is to be used.

    Args:
        name: for messages.
        command: program and arguments.
        folder: for its log.
        port: where it listens.
        environment: of the program.
        authority: certificates that vouch for it, where it speaks TLS.
    """

    key: Final = KEY
    secret: Final = SECRET
    region: Final = "us-east-1"

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        folder: Path,
        port: int,
        environment: dict[str, str | None],
        *,
        authority: Path | None = None,
    ) -> None:
        self.port = port
        self._authority = authority
        folder.mkdir(parents=True, exist_ok=True)
        super().__init__(name, command, folder / f"{name}.log", environment=environment, ready_seconds=60)
        self._client: Any = None

    @property
    def endpoint(self) -> str:
        """What clients connect to."""
        return f"{'https' if self._authority else 'http'}://127.0.0.1:{self.port}"

    def settings(self, bucket: str = BUCKET) -> dict[str, str]:
        """Our settings for it, by their names in the environment."""
        return {
            "S3_ENDPOINT": self.endpoint,
            "S3_ACCESS_KEY": KEY,
            "S3_SECRET_KEY": SECRET,
            "S3_BUCKET": bucket,
        }

    @property
    def client(self) -> Any:
        """A boto3 client of the server's owner."""
        if self._client is None:
            self._client = boto3.client(
                "s3",
                endpoint_url=self.endpoint,
                aws_access_key_id=KEY,
                aws_secret_access_key=SECRET,
                region_name=self.region,
                verify=None if self._authority is None else str(self._authority),
                config=Config(connect_timeout=2, read_timeout=20, retries={"total_max_attempts": 1}),
            )
        return self._client

    def is_ready(self) -> bool:
        """Whether it answers."""
        try:
            self.client.list_buckets()
        except (BotoCoreError, ClientError):
            return False
        return self.is_alive()

    def make_bucket(self, bucket: str = BUCKET, *, versions: bool = False) -> None:
        """Make a bucket, unless it is there; with ``versions``, one that keeps every version."""
        if bucket not in {found["Name"] for found in self.client.list_buckets()["Buckets"]}:
            self.client.create_bucket(Bucket=bucket)
        if versions:
            self.client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})

    def put(self, keys: Iterable[str], body: bytes = b"blob", bucket: str = BUCKET) -> None:
        """Write an object a key."""
        for key in keys:
            self.client.put_object(Bucket=bucket, Key=key, Body=body)

    def keys(self, prefix: str = "", bucket: str = BUCKET) -> list[str]:
        """All keys below a prefix."""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        return [item["Key"] for page in pages for item in page.get("Contents", [])]


class VersityServer(S3Server):
    """versitygw over a folder; what is a key there is a file here.

    Args:
        folder: for its log and its data.
        port: a free one if not given.
        domain: buckets are also found before this name of the host.
        certificate: files of a certificate and its key; with them it speaks TLS.
        authority: the file of who signed it.
    """

    def __init__(
        self,
        folder: Path,
        port: int | None = None,
        *,
        domain: str = "",
        certificate: tuple[Path, Path] | None = None,
        authority: Path | None = None,
    ) -> None:
        port = free_port() if port is None else port
        self.data = folder / "objects"
        for name in (self.data, folder / "versions"):
            name.mkdir(parents=True, exist_ok=True)
        command = [str(build_program(VERSITYGW)), "--port", f"127.0.0.1:{port}", "--quiet"]
        command += ["--virtual-domain", domain] if domain else []
        command += ["--cert", str(certificate[0]), "--key", str(certificate[1])] if certificate else []
        command += ["posix", "--sidecar", str(folder / "sidecar"), "--versioning-dir", str(folder / "versions")]
        (folder / "sidecar").mkdir(exist_ok=True)
        command.append(str(self.data))
        environment: dict[str, str | None] = {"ROOT_ACCESS_KEY": KEY, "ROOT_SECRET_KEY": SECRET}
        super().__init__("versitygw", command, folder, port, environment, authority=authority)

    def fill(self, keys: Iterable[str], body: bytes = b"blob", bucket: str = BUCKET) -> None:
        """Write many objects at once, as files."""
        for key in keys:
            path = self.data / bucket / key
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(body)


class MotoServer(S3Server):
    """moto's server: everything in memory, and gone when it ends.

    Args:
        folder: for its log.
        port: a free one if not given.
    """

    def __init__(self, folder: Path, port: int | None = None) -> None:
        port = free_port() if port is None else port
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
        super().__init__("moto", command, folder, port, {})
