"""The blob stores that are held to one contract: one in memory, moto's and versitygw's S3, Google's by fake-gcs-server,
Azure's by Azurite, and any S3 that the environment names."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import uuid4

import pytest

from demo.servers.azurite import AzuriteServer
from demo.servers.gcs import GcsServer
from demo.servers.go_programs import FAKE_GCS, missing_for_go
from demo.servers.npm_programs import missing_for_npm
from demo.servers.s3 import MotoServer, S3Server, VersityServer
from storage.azure import AzureBlobs
from storage.blobs import ProbedBlobStore
from storage.gcs import GcsBlobs
from storage.listing import each_page
from storage.s3 import S3Blobs
from tests.contract.given_s3 import ENDPOINT_VARIABLE, GivenS3, find_given
from tests.memory_blobs import MemoryBlobs

Server = S3Server | GivenS3 | GcsServer | AzuriteServer


@pytest.fixture(scope="session")
def moto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with MotoServer(tmp_path_factory.mktemp("moto")) as server:
        yield server


@pytest.fixture(scope="session")
def versity(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    missing = missing_for_go()
    if missing is not None:
        pytest.skip(f"no versitygw: {missing}")
    with VersityServer(tmp_path_factory.mktemp("versity")) as server:
        yield server


@pytest.fixture(scope="session")
def gcs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GcsServer]:
    missing = missing_for_go(FAKE_GCS)
    if missing is not None:
        pytest.skip(f"no fake-gcs-server: {missing}")
    with GcsServer(tmp_path_factory.mktemp("gcs")) as server:
        yield server


@pytest.fixture(scope="session")
def azurite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AzuriteServer]:
    missing = missing_for_npm()
    if missing is not None:
        pytest.skip(f"no Azurite: {missing}")
    with AzuriteServer(tmp_path_factory.mktemp("azurite")) as server:
        yield server


@pytest.fixture(scope="session")
def given() -> GivenS3:
    """The S3 that the environment names."""
    found = find_given()
    if found is None:
        pytest.skip(f"{ENDPOINT_VARIABLE} names no S3 to be tested")
    return found


def open_s3(server: S3Server | GivenS3, bucket: str, *, versions: bool = False) -> S3Blobs:
    return S3Blobs(
        bucket,
        endpoint=server.endpoint,
        key=server.key,
        secret=server.secret,
        region=server.region,
        versions=versions,
        requests=4,
    )


def open_gcs(endpoint: str, bucket: str, *, versions: bool = False) -> GcsBlobs:
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("STORAGE_EMULATOR_HOST", endpoint)
        return GcsBlobs(bucket, versions=versions, requests=4)


def open_blobs(server: Server, bucket: str, *, versions: bool = False) -> ProbedBlobStore:
    if isinstance(server, GcsServer):
        return open_gcs(server.endpoint, bucket, versions=versions)
    if isinstance(server, AzuriteServer):
        return AzureBlobs(bucket, connection=server.connection(), requests=4)
    return open_s3(server, bucket, versions=versions)


class Place:
    """A blob store, and how to write to it."""

    def __init__(
        self, blobs: ProbedBlobStore, server: Server | None = None, bucket: str = "", *, versions: bool = False
    ) -> None:
        self.versions = versions
        self.blobs = blobs
        self.server = server
        self.bucket = bucket

    def put(self, *keys: str, body: bytes = b"blob") -> None:
        if self.server is None:
            assert isinstance(self.blobs, MemoryBlobs)
            self.blobs.objects.update(dict.fromkeys(keys, body))
        else:
            self.server.put(keys, body, self.bucket)

    def keys(self, prefix: str) -> list[str]:
        """All keys below a prefix, in pages of three."""
        found: list[str] = []
        for page in each_page(lambda after: self.blobs.page(prefix, after, limit=3), prefix):
            assert len(page.blobs) <= 3
            found += [blob.key for blob in page.blobs]
            assert len(found) < 100
        return found


PLACES = ["memory", "moto", "moto versions", "versity", "versity versions", "gcs", "gcs versions", "azurite"]
S3_SERVERS = ["moto", "versity"]
if find_given() is not None:
    PLACES += ["given", "given versions"]
    S3_SERVERS.append("given")


@pytest.fixture(params=PLACES)
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    if request.param == "memory":
        yield Place(MemoryBlobs())
        return
    name, _, versions = request.param.partition(" ")
    server: Server = request.getfixturevalue(name)
    bucket = f"test-{uuid4().hex[:12]}"
    server.make_bucket(bucket, versions=bool(versions))
    blobs = open_blobs(server, bucket, versions=bool(versions))
    yield Place(blobs, server, bucket, versions=bool(versions))
    blobs.close()
    blobs.close()
    if isinstance(server, GivenS3):
        server.drop_bucket(bucket)
