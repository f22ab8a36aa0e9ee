"""The way to an S3: an authority of one's own, where the bucket stands, a proxy, and the machine's metadata service."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from demo.servers.certificates import Authority
from demo.servers.go_programs import missing_for_go
from demo.servers.s3 import KEY, SECRET, VersityServer
from matyan_celery.checks.blobs import check_blobs
from storage.blobs import BlobStore
from storage.errors import BlobsAway, BlobsRefused
from tasks.blob_stores import make_blobs
from tasks.errors import WrongSettingError
from tasks.settings import Settings, load_settings
from tests.contract.forward_proxy import ForwardProxy
from tests.contract.trouble import Trouble

pytestmark = pytest.mark.timeout(900)  # versitygw may have to be built

BUCKET, DOMAIN = "our-blobs", "s3.test"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module", params=["http", "https"])
def server(
    tmp_path_factory: pytest.TempPathFactory, authority: Authority, request: pytest.FixtureRequest
) -> Iterator[VersityServer]:
    """versitygw that also knows buckets before its name; by TLS for that name, and for its address."""
    missing = missing_for_go()
    if missing is not None:
        pytest.skip(f"no versitygw: {missing}")
    folder = tmp_path_factory.mktemp("versity")
    if request.param == "http":
        made = VersityServer(folder, domain=DOMAIN)
    else:
        signed = authority.sign("server", "127.0.0.1", DOMAIN, f"*.{DOMAIN}")
        made = VersityServer(folder, domain=DOMAIN, certificate=signed, authority=authority.file)
    with made:
        made.make_bucket(BUCKET)
        yield made


@pytest.fixture
def proxy() -> Iterator[ForwardProxy]:
    opened = ForwardProxy()
    yield opened
    opened.close()


def choose(endpoint: str, **given: object) -> Settings:
    return load_settings(None, s3_endpoint=endpoint, s3_access_key=KEY, s3_secret_key=SECRET, s3_bucket=BUCKET, **given)


def delete_one(server: VersityServer, blobs: BlobStore) -> None:
    """Whether it can be worked with."""
    server.put(["r/a"], b"blob", BUCKET)
    page = blobs.page("r/")
    assert [blob.key for blob in page.blobs] == ["r/a"]
    assert blobs.delete(page.blobs) == []
    assert (blobs.page("r/").blobs, server.keys("", BUCKET)) == ([], [])


@pytest.mark.parametrize("server", ["https"], indirect=True)
def test_an_authority_of_ones_own(server: VersityServer, authority: Authority) -> None:
    stranger = make_blobs(choose(server.endpoint))
    with pytest.raises(BlobsAway, match=r"(?s)SSLError.*name that one's in S3_CA_FILE"):
        stranger.page("r/")
    stranger.close()
    assert "S3_CA_FILE" in str(check_blobs(choose(server.endpoint)))
    settings = choose(server.endpoint, s3_ca_file=str(authority.file))
    assert check_blobs(settings).well
    blobs = make_blobs(settings)
    delete_one(server, blobs)
    blobs.close()


def test_a_wrong_file_of_certificates_is_named(tmp_path: Path) -> None:
    empty = tmp_path / "empty.pem"
    empty.write_text("nothing of the kind\n")
    for path, reason in ((tmp_path / "never.pem", "cannot be read"), (empty, "holds no certificate")):
        settings = choose("https://127.0.0.1:9", s3_ca_file=str(path))
        with pytest.raises(BlobsRefused, match=rf"S3_CA_FILE='{path}' {reason}"):
            make_blobs(settings)
        assert f"S3_CA_FILE='{path}' {reason}" in str(check_blobs(settings))


@pytest.mark.parametrize(("style", "host"), [("virtual", f"{BUCKET}.{DOMAIN}"), ("path", DOMAIN), ("auto", DOMAIN)])
def test_where_the_bucket_stands_and_a_proxy_on_the_way(
    server: VersityServer, authority: Authority, proxy: ForwardProxy, style: str, host: str
) -> None:
    """The server's name is known to the proxy alone, as in a closed network."""
    scheme = server.endpoint.partition(":")[0]
    endpoint = f"{scheme}://{DOMAIN}:{server.port}"
    given = {"s3_ca_file": str(authority.file)} if scheme == "https" else {}
    settings = choose(endpoint, s3_addressing_style=style, s3_proxy=proxy.address, **given)
    blobs = make_blobs(settings)
    delete_one(server, blobs)
    blobs.close()
    assert {where for _, _, where in proxy.requests} == {f"{host}:{server.port}"}
    if scheme == "http":  # else all of it but the host is hidden from the proxy
        assert all(
            urlsplit(path).path.startswith(f"/{BUCKET}") == (style != "virtual") for _, path, _ in proxy.requests
        )


def test_a_proxy_that_is_not_there_is_named_without_its_password() -> None:
    blobs = make_blobs(choose("http://s3.test", s3_proxy="http://me:hunter2@127.0.0.1:9"))
    with pytest.raises(BlobsAway, match="S3_PROXY") as caught:
        blobs.page("r/")
    assert "hunter2" not in str(caught.value)
    blobs.close()


@pytest.mark.parametrize(("name", "value"), [("s3_proxy", "127.0.0.1:3128"), ("s3_addressing_style", "vhost")])
def test_wrong_settings_are_named(name: str, value: str) -> None:
    with pytest.raises(WrongSettingError, match=rf"{name.upper()}='{value}'"):
        choose("http://s3.test", **{name: value})


@pytest.mark.parametrize("asks", [True, False])
def test_the_metadata_service_is_asked_only_where_it_may_be(
    asks: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = Trouble()
    service.answers = [(404, "")]
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "AWS_EC2_METADATA_DISABLED"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", service.endpoint)
    settings = load_settings(None, s3_endpoint="http://127.0.0.1:9", s3_access_key="", s3_secret_key="", s3_imds=asks)
    blobs = make_blobs(settings)
    with pytest.raises(BlobsRefused, match="Unable to locate credentials"):
        blobs.page("r/")
    assert bool(service.requests) == asks
    blobs.close()
    service.close()
