"""The proxy that lets S3 fail for the demo: it passes on, refuses one prefix while told so, and relents."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from demo.servers.fault_proxy import FaultProxy
from demo.servers.s3 import BUCKET, KEY, SECRET, MotoServer
from storage.blobs import Blob
from storage.errors import BlobsAway
from storage.s3 import S3Blobs

pytestmark = pytest.mark.integration

GOOD, BAD = [f"good/{number}" for number in range(3)], [f"bad/a b/{number}" for number in range(3)]


@pytest.fixture
def proxy(tmp_path: Path) -> Iterator[FaultProxy]:
    with MotoServer(tmp_path) as server, FaultProxy(tmp_path, server.endpoint) as running:
        server.make_bucket()
        server.put([*GOOD, *BAD])
        yield running


def test_one_prefix_is_refused_for_a_while(proxy: FaultProxy) -> None:
    blobs = S3Blobs(BUCKET, endpoint=proxy.endpoint, key=KEY, secret=SECRET, region="us-east-1")
    proxy.refuse("bad/")
    with pytest.raises(BlobsAway, match="SlowDown"):
        blobs.page("bad/")
    with pytest.raises(BlobsAway, match="SlowDown"):
        blobs.delete([Blob(key) for key in BAD])
    assert [blob.key for blob in blobs.page("good/").blobs] == GOOD
    assert blobs.delete([Blob(key) for key in GOOD]) == []
    assert blobs.page("good/").blobs == []
    proxy.relent()
    assert [blob.key for blob in blobs.page("bad/").blobs] == BAD
    assert blobs.delete([Blob(key) for key in BAD]) == []
    assert blobs.page("bad/").blobs == []
    blobs.close()
