"""What Google's and Azure's stores answer when they have trouble, over real HTTP in the form of their protocols."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import pytest

from storage import azure, gcs
from storage.azure import AzureBlobs
from storage.blobs import Blob, BlobStore
from storage.errors import BlobsAway, BlobsRefused
from storage.gcs import GcsBlobs
from storage.listing import each_page, has_any
from storage.sweep import End, Sweep, Tally
from tests.contract.trouble import Answer, Trouble


@pytest.fixture
def trouble() -> Iterator[Trouble]:
    server = Trouble()
    yield server
    server.close()


@pytest.fixture(params=["gcs", "azure"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def blobs(trouble: Trouble, kind: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[BlobStore]:
    store: BlobStore
    if kind == "gcs":
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", trouble.endpoint)
        store = GcsBlobs("bucket", requests=2)
    else:
        store = AzureBlobs("bucket", connection=f"AccountName=a;AccountKey=c2VjcmV0;BlobEndpoint={trouble.endpoint}/a;")
    yield store
    store.close()


def error(kind: str, status: int, code: str) -> Answer:
    if kind == "gcs":
        body = {"error": {"code": status, "message": "as you asked", "errors": [{"reason": code}]}}
        return status, json.dumps(body), {"Content-Type": "application/json"}
    return (
        status,
        f'<?xml version="1.0"?><Error><Code>{code}</Code><Message>as you asked</Message></Error>',
        {"Content-Type": "application/xml", "x-ms-error-code": code},
    )


def listing(kind: str, *keys: str, marker: str = "") -> Answer:
    if kind == "gcs":
        items = [{"name": key, "size": "4", "timeCreated": "2026-01-01T00:00:00Z"} for key in keys]
        body = {"items": items, **({"nextPageToken": marker} if marker else {})}
        return 200, json.dumps(body), {"Content-Type": "application/json"}
    blobs = "".join(
        f"<Blob><Name>{key}</Name><Properties><Content-Length>4</Content-Length>"
        "<BlobType>BlockBlob</BlobType></Properties></Blob>"
        for key in keys
    )
    return (
        200,
        (
            f'<?xml version="1.0"?><EnumerationResults ContainerName="bucket"><Blobs>{blobs}</Blobs>'
            f"<NextMarker>{marker}</NextMarker></EnumerationResults>"
        ),
        {"Content-Type": "application/xml"},
    )


def names_listing(kind: str, *names: str) -> Answer:
    if kind == "gcs":
        return 200, json.dumps({"prefixes": [f"{name}/" for name in names]}), {"Content-Type": "application/json"}
    blobs = "".join(f"<BlobPrefix><Name>{name}/</Name></BlobPrefix>" for name in names)
    body = f"<Delimiter>/</Delimiter><Blobs>{blobs}</Blobs><NextMarker/>"
    body = f'<?xml version="1.0"?><EnumerationResults ContainerName="bucket">{body}</EnumerationResults>'
    return 200, body, {"Content-Type": "application/xml"}


def sweep(blobs: BlobStore) -> tuple[End, Tally]:
    tally = Tally()
    with Sweep(blobs, requests=1, check=lambda: None, note=lambda _: None, tally=tally) as running:
        return running.delete_prefix("r/", deadline=float("inf")), tally


def deleted(*answers: tuple[int, str]) -> Answer:
    """Azure's answer to a batch: a status and a code for each deletion."""
    parts = "".join(
        f"--edge\r\nContent-Type: application/http\r\nContent-ID: {number}\r\n\r\nHTTP/1.1 {status} Whatever\r\n"
        + (f"x-ms-error-code: {code}\r\n" if code else "")
        + "Content-Type: application/xml\r\n\r\n"
        + (f"<Error><Code>{code}</Code><Message>as you asked\nRequestId:1</Message></Error>\r\n" if code else "\r\n")
        for number, (status, code) in enumerate(answers)
    )
    return 202, f"{parts}--edge--\r\n", {"Content-Type": "multipart/mixed; boundary=edge"}


PASSING = [
    ("gcs", 429, "rateLimitExceeded"),
    ("gcs", 403, "userRateLimitExceeded"),
    ("gcs", 503, "backendError"),
    ("gcs", 500, "internalError"),
    ("azure", 503, "ServerBusy"),
    ("azure", 500, "OperationTimedOut"),
    ("azure", 429, "TooManyRequests"),
]


@pytest.mark.parametrize(("kind", "status", "code"), PASSING)
def test_what_asks_for_patience_passes(trouble: Trouble, blobs: BlobStore, kind: str, status: int, code: str) -> None:
    trouble.answers = [error(kind, status, code)]
    asks: tuple[Callable[[], object], ...] = (lambda: blobs.page("r/"), blobs.names)
    for ask in asks:
        with pytest.raises(BlobsAway, match=f"{code}: .*as you asked"):
            ask()
    assert len(trouble.requests) == 2, "each was made once: who asks decides what is tried again"


@pytest.mark.parametrize(
    ("kind", "status", "code", "words"),
    [
        ("gcs", 403, "forbidden", "403 forbidden: .*as you asked"),
        ("gcs", 404, "notFound", "404 notFound: there is no bucket 'bucket'"),
        ("azure", 403, "AuthorizationPermissionMismatch", "AuthorizationPermissionMismatch: .*as you asked"),
        ("azure", 404, "ContainerNotFound", "ContainerNotFound: there is no container 'bucket'"),
        ("azure", 409, "ContainerBeingDeleted", "ContainerBeingDeleted: there is no container 'bucket'"),
        ("azure", 400, "OutOfRangeInput", "OutOfRangeInput: .*as you asked"),
    ],
)
def test_what_says_no_is_refused(
    trouble: Trouble, blobs: BlobStore, kind: str, status: int, code: str, words: str
) -> None:
    trouble.answers = [error(kind, status, code)]
    for ask in (lambda: blobs.page("r/"), blobs.names):
        with pytest.raises(BlobsRefused, match=words):
            ask()
    assert len(trouble.requests) == 2


def test_errors_of_single_keys_are_read_from_google(trouble: Trouble, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", trouble.endpoint)
    blobs = GcsBlobs("bucket", versions=True)
    trouble.at = {
        "/o/r%2Fa?": error("gcs", 403, "retentionPolicyNotMet"),
        "/o/r%2Fb?": error("gcs", 429, "rateLimitExceeded"),
        "/o/r%2Fc?": error("gcs", 404, "notFound"),
        "/o/r%2Fd?": (204, ""),
        "/o?": listing("gcs"),  # the bucket is there
    }
    refusals = blobs.delete([Blob(f"r/{key}", 4, "17") for key in "abcd"])
    assert [(refusal.blob, refusal.code, refusal.passing) for refusal in refusals] == [
        (Blob("r/a", 4, "17"), "403 retentionPolicyNotMet", False),
        (Blob("r/b", 4, "17"), "429 rateLimitExceeded", True),
    ]
    assert all("generation=17" in path for path, _, _ in trouble.requests if "/o/r%2F" in path)
    blobs.close()


@pytest.mark.parametrize("kind", ["azure"])
def test_errors_of_single_keys_are_read_from_azure(trouble: Trouble, blobs: BlobStore, kind: str) -> None:
    trouble.answers = [
        deleted((409, "BlobImmutableDueToPolicy"), (503, "ServerBusy"), (404, "BlobNotFound"), (202, ""))
    ]
    refusals = blobs.delete([Blob(f"r/{key}", 4) for key in "abcd"])
    assert [(*refusal[:3], refusal.passing) for refusal in refusals] == [
        (Blob("r/a", 4), "BlobImmutableDueToPolicy", "as you asked", False),
        (Blob("r/b", 4), "ServerBusy", "as you asked", True),
    ]
    trouble.answers = [deleted((404, "ContainerNotFound"))]
    with pytest.raises(BlobsRefused, match="ContainerNotFound: there is no container"):
        blobs.delete([Blob("r/a")])
    trouble.answers = [deleted((202, ""))]
    with pytest.raises(BlobsAway, match="1 answers came to 2 deletions"):
        blobs.delete([Blob("r/a"), Blob("r/b")])
    trouble.answers = [error("azure", 503, "ServerBusy")]
    with pytest.raises(BlobsAway, match="ServerBusy"):
        blobs.delete([Blob("r/a")])


def test_silence_has_an_end(trouble: Trouble, blobs: BlobStore, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gcs, "READ_SECONDS", 0.3)
    monkeypatch.setattr(azure, "READ_SECONDS", 0.3)
    if kind == "azure":  # reads it when it is made
        impatient = AzureBlobs("b", connection=f"AccountName=a;AccountKey=c2Vj;BlobEndpoint={trouble.endpoint}/a;")
    else:
        impatient = GcsBlobs("b", requests=1)  # type: ignore[assignment]
    for ask in (lambda: impatient.page("r/"), lambda: impatient.delete([Blob("r/a")])):
        with pytest.raises(BlobsAway, match=r"[Tt]imed? ?out"):
            ask()
    impatient.close()


def test_empty_pages_do_not_end_a_listing(trouble: Trouble, blobs: BlobStore, kind: str) -> None:
    """Both services may answer with nothing but a marker."""
    empty = [listing(kind, marker="m1"), listing(kind, marker="m2")]
    trouble.answers = [*empty, listing(kind, "r/a")]
    page = blobs.page("r/")
    assert (page.blobs, page.more) == ([], True)
    pages = list(each_page(lambda after: blobs.page("r/", after or page.end), "it"))
    assert [blob.key for page in pages for blob in page.blobs] == ["r/a"]
    assert "m2" in trouble.requests[2][0]
    trouble.answers = [*empty, listing(kind, "r/a")]
    assert has_any(blobs, "r/")
    trouble.answers = [*empty, names_listing(kind, "a", "b")]
    assert [name for page in each_page(blobs.names, "it") for name in page.names] == ["a", "b"]


def test_a_marker_that_leads_back_is_an_error(trouble: Trouble, blobs: BlobStore, kind: str) -> None:
    """And no listing without an end, nor one that is taken for done."""
    trouble.answers = [listing(kind, marker="m1")]
    asks: tuple[Callable[[], object], ...] = (
        lambda: has_any(blobs, "r/"),
        lambda: list(each_page(blobs.names, "it")),
        lambda: sweep(blobs),
    )
    for ask in asks:
        with pytest.raises(BlobsRefused, match=r"does not move on.*m1"):
            ask()


def test_generations_of_a_key_are_found_behind_empty_pages(trouble: Trouble, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", trouble.endpoint)
    blobs = GcsBlobs("bucket", versions=True)
    trouble.answers = [listing("gcs", marker="m1"), listing("gcs", "r/a"), listing("gcs", marker="m1")]
    assert [blob.key for blob in blobs.find(["r/a"])] == ["r/a"]
    with pytest.raises(BlobsRefused, match="does not move on"):
        blobs.find(["r/a"])
    blobs.close()


def test_what_is_no_listing_ends_none(trouble: Trouble, blobs: BlobStore) -> None:
    """A guard or a login page that answers in place of the service."""
    trouble.answers = [(200, "<html><body>Sign in</body></html>", {"Content-Type": "text/html"})]
    asks: tuple[Callable[[], object], ...] = (lambda: blobs.page("r/"), blobs.names)
    for ask in asks:
        with pytest.raises((BlobsAway, BlobsRefused)):
            ask()


def test_a_sweep_comes_through_throttling(trouble: Trouble, blobs: BlobStore, kind: str) -> None:
    busy = error(kind, 503, "ServerBusy" if kind == "azure" else "backendError")
    gone: Answer = (204, "")
    trouble.answers = (
        [busy, busy, listing(kind, "r/a"), busy, gone, listing(kind)]
        if kind == "gcs"
        else [busy, busy, listing(kind, "r/a"), busy, deleted((503, "ServerBusy")), deleted((202, "")), listing(kind)]
    )
    expected = len(trouble.answers)
    end, tally = sweep(blobs)
    assert end is End.GONE
    assert (tally.objects, tally.bytes, tally.refused) == (1, 4, 0)
    assert len(trouble.requests) == expected


@pytest.mark.parametrize("connection", ["nonsense", "AccountKey=", "AccountKey=hunter2;x=y"])
def test_a_wrong_connection_string_is_refused_and_not_shown(connection: str) -> None:
    with pytest.raises(BlobsRefused, match="AZURE_CONN_STR is no connection string") as caught:
        AzureBlobs("any", connection=connection)
    assert "hunter2" not in str(caught.value)


def test_azure_without_an_account_is_refused() -> None:
    with pytest.raises(BlobsRefused, match="AZURE_CONN_STR and AZURE_ACCOUNT_URL are both empty"):
        AzureBlobs("any")


def test_azure_without_credentials_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_TOKEN_CREDENTIALS", "EnvironmentCredential")
    for name in ("AZURE_CLIENT_ID", "AZURE_TENANT_ID", "AZURE_CLIENT_SECRET"):
        monkeypatch.delenv(name, raising=False)
    blobs = AzureBlobs("any", account="https://127.0.0.1:9")
    with pytest.raises(BlobsRefused, match="EnvironmentCredential"):
        blobs.page("r/")
    blobs.close()


def test_google_without_credentials_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", "/nowhere/key.json")
    monkeypatch.delenv("STORAGE_EMULATOR_HOST", raising=False)
    with pytest.raises(BlobsRefused, match=r"/nowhere/key\.json"):
        GcsBlobs("any")
