"""Every blob store lists and deletes alike: one in memory, moto's and versitygw's S3, Google's by fake-gcs-server and
Azure's by Azurite; with and without versions."""

from __future__ import annotations

from uuid import uuid4

import pytest

from demo.servers.azurite import AzuriteServer
from demo.servers.gcs import GcsServer
from demo.servers.s3 import KEY, SECRET, S3Server
from matyan_celery.checks.blobs import check_blobs, look_at_blobs
from storage.azure import AzureBlobs
from storage.blobs import Blob, BlobStore
from storage.errors import BlobsAway, BlobsRefused
from storage.listing import each_page
from storage.s3 import S3Blobs
from storage.sweep import End, Sweep, Tally
from tasks.settings import load_settings
from tests.contract.given_s3 import GivenS3
from tests.contract.stores import S3_SERVERS, Place, Server, open_blobs, open_gcs, open_s3
from tests.memory_blobs import MemoryBlobs

pytestmark = pytest.mark.timeout(900)  # versitygw may have to be built


ODD = ["r/ä ö/€.png", "r/a+b%20c&d=é", "r/-", "r/z\U0001f600", "r/a'b\"c<d>"]


def test_lists_a_prefix_in_pages_and_nothing_else(place: Place) -> None:
    keys = [f"r/{number:02}" for number in range(10)]
    place.put(*keys, "ra/x", "q/x", "s/x", body=b"12345")
    assert place.keys("r/") == keys
    blob = place.blobs.page("r/", limit=1).blobs[0]
    assert (blob.key, blob.size) == ("r/00", 5)
    assert place.keys("nothing/") == []


def test_goes_on_where_it_was_after_deletions(place: Place) -> None:
    place.put(*(f"r/{number:02}" for number in range(9)))
    first = place.blobs.page("r/", limit=5)
    assert [blob.key for blob in first.blobs][:4] == ["r/00", "r/01", "r/02", "r/03"]
    assert place.blobs.delete(first.blobs) == []
    second = place.blobs.page("r/", first.end, limit=9)
    left = [f"r/{number:02}" for number in range(len(first.blobs), 9)]
    assert place.keys("r/") == left
    keys = [blob.key for blob in second.blobs]
    # Behind a version that is gone, moto passes over one: that is what the last pass from the beginning is for.
    assert keys == left or (place.versions and keys == left[1:])


def test_deletes_what_was_listed_whatever_its_name(place: Place) -> None:
    place.put(*ODD, "ra/x")
    page = place.blobs.page("r/")
    assert sorted(blob.key for blob in page.blobs) == sorted(ODD)
    assert place.blobs.delete(page.blobs) == []
    assert place.keys("r/") == []
    assert place.keys("ra/") == ["ra/x"]
    assert place.blobs.delete(page.blobs) == [], "what is gone already is fine"


def test_deletes_keys_that_xml_cannot_carry(place: Place) -> None:
    if isinstance(place.blobs, S3Blobs) and (place.server is None or place.server.name != "moto" or place.versions):
        pytest.skip("this server's own answers cannot carry them")
    place.put("r/a\x01b", "r/plain")
    assert place.blobs.delete(place.blobs.find(["r/a\x01b", "r/plain"])) == []
    assert place.keys("r/") == []


def test_deletes_exactly_the_named_keys(place: Place) -> None:
    place.put("r/a", "r/ab", "r/b", "elsewhere/c")
    place.put("r/a", body=b"again")
    assert place.blobs.delete(place.blobs.find(["r/a", "elsewhere/c", "r/never"])) == []
    assert (place.keys("r/"), place.keys("elsewhere/")) == (["r/ab", "r/b"], [])


def test_a_sweep_leaves_nothing_of_a_run(place: Place) -> None:
    """More objects than one request of any store here deletes but S3's, and in pages of its own size."""
    place.put(*(f"r/{number:04}" for number in range(300)), "ra/x")
    tally = Tally()
    with Sweep(place.blobs, requests=2, check=lambda: None, note=lambda _: None, tally=tally) as sweep:
        assert sweep.delete_prefix("r/", deadline=float("inf")) is End.GONE
    assert (tally.objects, tally.bytes, tally.error) == (300, 1200, "")
    assert (place.keys("r/"), place.keys("ra/")) == ([], ["ra/x"])


def test_names_what_stands_before_the_first_slash(place: Place) -> None:
    for _ in range(1 + place.versions):  # moto passes over the first version behind a marker
        place.put("a/1", "a/2", "a-b/1", "b/1/2", "loose", "c.d/1", "loose2")
    found = [name for page in each_page(lambda after: place.blobs.names(after, limit=2), "it") for name in page.names]
    assert sorted(found) == ["a", "a-b", "b", "c.d"]


@pytest.mark.parametrize("server", S3_SERVERS)
def test_names_what_has_only_old_versions(server: str, request: pytest.FixtureRequest) -> None:
    running: S3Server | GivenS3 = request.getfixturevalue(server)
    bucket = f"test-{uuid4().hex[:12]}"
    running.make_bucket(bucket, versions=True)
    for number in range(3):
        running.put(["a/1", "b/1", "b/2", "c/1", "loose"], str(number).encode(), bucket)
    for key in ("a/1", "b/1", "b/2"):
        running.client.delete_object(Bucket=bucket, Key=key)
    blobs = open_s3(running, bucket, versions=True)
    found = {name for page in each_page(lambda after: blobs.names(after, limit=2), "it") for name in page.names}
    blobs.close()
    assert found == {"a", "b", "c"}


@pytest.mark.parametrize("server", ["moto", "gcs", "azurite"])
def test_an_empty_prefix_is_never_listed(server: str, request: pytest.FixtureRequest) -> None:
    blobs = open_blobs(request.getfixturevalue(server), "whatever")
    with pytest.raises(ValueError, match="every run's"):
        blobs.page("")
    blobs.close()


@pytest.mark.parametrize("server", S3_SERVERS)
def test_all_versions_and_markers_go(server: str, request: pytest.FixtureRequest) -> None:
    running: S3Server | GivenS3 = request.getfixturevalue(server)
    bucket = f"test-{uuid4().hex[:12]}"
    running.make_bucket(bucket, versions=True)
    for number in range(3):
        running.put(["r/a", "r/b", "ra/x"], str(number).encode(), bucket)
    running.client.delete_object(Bucket=bucket, Key="r/b")
    plain = open_s3(running, bucket)
    assert [blob.key for blob in plain.page("r/").blobs] == ["r/a"]
    blobs = open_s3(running, bucket, versions=True)
    found = True
    while found:  # passes, as `storage.sweep` makes them
        found, after, more = False, "", True
        while more:
            page = blobs.page("r/", after, limit=2)
            assert blobs.delete(page.blobs) == []
            found, more = found or bool(page.blobs), page.more
            after = after if page.cut else page.end
    answer = running.client.list_object_versions(Bucket=bucket)
    assert {item["Key"] for item in answer.get("Versions", [])} == {"ra/x"}
    assert not answer.get("DeleteMarkers")
    plain.close()
    blobs.close()


@pytest.mark.parametrize("server", S3_SERVERS)
def test_a_bucket_that_is_not_there_is_said(server: str, request: pytest.FixtureRequest) -> None:
    blobs = open_s3(request.getfixturevalue(server), "no-such-bucket")
    for ask in (lambda: blobs.page("r/"), lambda: blobs.delete([Blob("r/a")]), blobs.names):
        with pytest.raises(BlobsRefused, match="NoSuchBucket: there is no bucket 'no-such-bucket'"):
            ask()
    blobs.close()


def test_a_bucket_of_google_that_is_not_there_is_said(gcs: GcsServer) -> None:
    blobs = open_gcs(gcs.endpoint, "no-such-bucket")
    for ask in (lambda: blobs.page("r/"), lambda: blobs.delete([Blob("r/a")]), blobs.names):
        with pytest.raises(BlobsRefused, match=r"404.*: there is no bucket 'no-such-bucket'.*GCS_BUCKET"):
            ask()
    blobs.close()


def test_a_container_that_is_not_there_is_said(azurite: AzuriteServer) -> None:
    blobs = AzureBlobs("no-such-container", connection=azurite.connection())
    for ask in (lambda: blobs.page("r/"), lambda: blobs.delete([Blob("r/a")]), blobs.names):
        with pytest.raises(BlobsRefused, match=r"ContainerNotFound: .*'no-such-container'.*AZURE_CONTAINER"):
            ask()
    blobs.close()


def test_all_generations_go(gcs: GcsServer) -> None:
    bucket = f"test-{uuid4().hex[:12]}"
    gcs.make_bucket(bucket, versions=True)
    for number in range(3):
        gcs.put(["r/a", "r/b", "ra/x"], str(number).encode(), bucket)
    gcs.client.bucket(bucket).delete_blob("r/b")
    plain = open_gcs(gcs.endpoint, bucket)
    assert [blob.key for blob in plain.page("r/").blobs] == ["r/a"]
    blobs = open_gcs(gcs.endpoint, bucket, versions=True)
    assert len(blobs.find(["r/a"])) == 3
    found = True
    while found:  # passes, as `storage.sweep` makes them
        found, after, more = False, "", True
        while more:
            page = blobs.page("r/", after, limit=2)
            assert blobs.delete(page.blobs) == []
            found, more = found or bool(page.blobs), page.more
            after = after if page.cut else page.end
    assert {item.name for item in gcs.client.list_blobs(bucket, versions=True)} == {"ra/x"}
    plain.close()
    blobs.close()


def test_dot_segments_never_reach_another_key(azurite: AzuriteServer, gcs: GcsServer) -> None:
    """In a path they are folders: the container, the bucket, or another run's blob."""
    bucket = f"test-{uuid4().hex[:12]}"
    stores: list[tuple[Server, list[str]]] = [(azurite, ["r/../s/a", "..", "r/."]), (gcs, ["..", "."])]
    for server, keys in stores:
        server.make_bucket(bucket)
        server.put(["s/a"], b"blob", bucket)
        blobs = open_blobs(server, bucket)
        refused = blobs.delete([Blob(key) for key in keys])
        assert [(refusal.blob.key, refusal.passing) for refusal in refused] == [(key, False) for key in keys]
        assert [blob.key for blob in blobs.page("s/").blobs] == ["s/a"]
        blobs.close()


def test_a_wrong_key_of_azure_is_refused(azurite: AzuriteServer) -> None:
    blobs = AzureBlobs("any", connection=azurite.connection("d3Jvbmc="))
    for ask in (lambda: blobs.page("r/"), lambda: blobs.delete([Blob("r/a")])):
        with pytest.raises(BlobsRefused, match="AuthorizationFailure"):
            ask()
    blobs.close()


def test_a_wrong_secret_is_refused(versity: S3Server) -> None:
    blobs = S3Blobs("any", endpoint=versity.endpoint, key=KEY, secret="wrong", region="us-east-1")
    with pytest.raises(BlobsRefused, match="SignatureDoesNotMatch"):
        blobs.page("r/")
    blobs.close()


@pytest.mark.parametrize(
    ("name", "where"), [("moto", "S3 at"), ("gcs", "Google's bucket"), ("azurite", "Azure's container")]
)
def test_doctor_and_wait_ask_the_store_of_the_settings(
    name: str, where: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    server: Server = request.getfixturevalue(name)
    bucket = f"test-{uuid4().hex[:12]}"
    own = server.environment if isinstance(server, GcsServer) else {}
    for setting, value in {**server.settings(bucket), **own}.items():
        monkeypatch.setenv(setting, value)
    missing = check_blobs(load_settings(None))
    assert not missing.well
    assert f"there is no {'container' if name == 'azurite' else 'bucket'} '{bucket}'" in str(missing)
    server.make_bucket(bucket)
    found = check_blobs(load_settings(None))
    assert found.well
    assert found.sentence.startswith(where)
    probe, clock = look_at_blobs(load_settings(None))
    assert probe.well
    assert probe.sentence.startswith(where)
    assert probe.sentence.endswith("took and gave back a probe")
    assert clock.subject == "clock"
    assert clock.well


def test_a_probe_is_gone_without_a_trace(place: Place) -> None:
    """On a bucket with versions too, whether or not its versions are deleted with what is."""
    blob = place.blobs.write_probe("probe/1")
    assert place.keys("probe/") == ["probe/1"]
    assert place.blobs.delete([blob]) == []
    assert place.keys("probe/") == []


def test_a_store_that_keeps_what_it_should_delete_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    blobs = MemoryBlobs()
    monkeypatch.setattr("matyan_celery.checks.blobs.make_blobs", lambda settings: blobs)
    monkeypatch.setattr(
        blobs, "before_delete", lambda given: blobs.refused.update({one.key: ("AccessDenied", False) for one in given})
    )
    (finding,) = look_at_blobs(load_settings(None))
    assert not finding.well
    assert "does not let us delete it (AccessDenied" in finding.sentence
    (key,) = blobs.objects
    assert key in finding.remedy


def test_a_store_that_takes_no_probe_is_well(monkeypatch: pytest.MonkeyPatch) -> None:
    """The workers' credentials need not be allowed to write."""
    blobs = MemoryBlobs()

    def refuse(key: str) -> Blob:
        msg = f"AccessDenied: {key}"
        raise BlobsRefused(msg)

    monkeypatch.setattr(blobs, "write_probe", refuse)
    monkeypatch.setattr("matyan_celery.checks.blobs.make_blobs", lambda settings: blobs)
    (finding,) = look_at_blobs(load_settings(None))
    assert (finding.well, finding.remedy) == (True, "")
    assert "so deleting is not tried" in finding.sentence


@pytest.mark.parametrize("kind", ["s3", "gcs", "azure"])
def test_a_server_that_is_not_there_is_away(kind: str) -> None:
    blobs: BlobStore
    if kind == "s3":
        blobs = S3Blobs("any", endpoint="http://127.0.0.1:9", key=KEY, secret=SECRET, region="us-east-1")
    elif kind == "gcs":
        blobs = open_gcs("http://127.0.0.1:9", "any")
    else:
        blobs = AzureBlobs("any", connection="AccountName=a;AccountKey=d3Jvbmc=;BlobEndpoint=http://127.0.0.1:9/a;")
    for ask in (lambda: blobs.page("r/"), blobs.names, lambda: blobs.delete([Blob("r/a")])):
        with pytest.raises(BlobsAway):
            ask()
    blobs.close()
