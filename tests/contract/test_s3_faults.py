"""What S3 answers when it has trouble, over real HTTP: throttling, errors of single keys, silence."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from urllib.parse import parse_qs, urlsplit

import pytest

from storage import s3_client
from storage.blobs import Blob
from storage.errors import BlobsAway, BlobsRefused
from storage.listing import each_page
from storage.s3 import S3Blobs
from storage.sweep import End, Sweep, Tally
from tests.contract.trouble import Trouble


@pytest.fixture
def trouble() -> Iterator[Trouble]:
    server = Trouble()
    yield server
    server.close()


def open_blobs(trouble: Trouble, *, versions: bool = False) -> S3Blobs:
    return S3Blobs("bucket", endpoint=trouble.endpoint, key="k", secret="s", region="us-east-1", versions=versions)


def error(code: str) -> str:
    return f"<Error><Code>{code}</Code><Message>as you asked</Message></Error>"


def listing(*keys: str) -> str:
    items = "".join(f"<Contents><Key>{key}</Key><Size>4</Size></Contents>" for key in keys)
    return f"<ListBucketResult><IsTruncated>false</IsTruncated>{items}</ListBucketResult>"


def truncated(*keys: str, mark: str = "") -> str:
    marks = f"<NextContinuationToken>{mark}</NextContinuationToken>" if mark else ""
    return listing(*keys).replace("<IsTruncated>false", f"{marks}<IsTruncated>true")


def sweep(blobs: S3Blobs) -> tuple[End, Tally]:
    tally = Tally()
    with Sweep(blobs, requests=1, check=lambda: None, note=lambda _: None, tally=tally) as running:
        return running.delete_prefix("r/", deadline=float("inf")), tally


def deleted(**codes: str) -> str:
    errors = "".join(
        f"<Error><Key>r/{key}</Key><Code>{code}</Code><Message>no</Message></Error>" for key, code in codes.items()
    )
    return f"<DeleteResult>{errors}</DeleteResult>"


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (503, "SlowDown"),
        (429, "TooManyRequests"),
        (503, "ServiceUnavailable"),
        (500, "InternalError"),
        (400, "RequestTimeout"),
        (503, "Whatever"),
    ],
)
def test_what_asks_for_patience_passes(trouble: Trouble, status: int, code: str) -> None:
    trouble.answers = [(status, error(code))]
    blobs = open_blobs(trouble)
    asks: tuple[Callable[[], object], ...] = (
        lambda: blobs.page("r/"),
        blobs.names,
        lambda: blobs.delete([Blob("r/a")]),
    )
    for ask in asks:
        with pytest.raises(BlobsAway, match=code):
            ask()
    assert len(trouble.requests) == 3, "each was made once: who asks decides what is tried again"
    blobs.close()


@pytest.mark.parametrize(("status", "code"), [(403, "AccessDenied"), (404, "NoSuchBucket"), (501, "NotImplemented")])
def test_what_says_no_is_refused(trouble: Trouble, status: int, code: str) -> None:
    trouble.answers = [(status, error(code))]
    blobs = open_blobs(trouble)
    with pytest.raises(BlobsRefused, match=code):
        blobs.page("r/")
    with pytest.raises(BlobsRefused, match=code):
        blobs.delete([Blob("r/a")])
    blobs.close()


def test_errors_of_single_keys_are_read(trouble: Trouble) -> None:
    trouble.answers = [(200, deleted(a="AccessDenied", b="SlowDown", c="NoSuchKey"))]
    blobs = open_blobs(trouble)
    refusals = blobs.delete([Blob(f"r/{key}", 4) for key in "abcd"])
    assert [(refusal.blob, refusal.code, refusal.passing) for refusal in refusals] == [
        (Blob("r/a", 4), "AccessDenied", False),
        (Blob("r/b", 4), "SlowDown", True),
    ]
    assert "Content-Md5" in {name.title() for name in trouble.requests[0][1]}, "older servers ask for it"
    blobs.close()


def test_silence_has_an_end(trouble: Trouble, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3_client, "READ_SECONDS", 0.3)
    blobs = open_blobs(trouble)
    with pytest.raises(BlobsAway, match="ReadTimeout"):
        blobs.page("r/")
    blobs.close()


def test_a_sweep_comes_through_throttling(trouble: Trouble) -> None:
    """Twice at a listing, once for a whole page, once for one key; the key that stays is sent again alone."""
    trouble.answers = [
        (503, error("SlowDown")),
        (429, error("TooManyRequests")),
        (200, listing("r/a", "r/b")),
        (503, error("SlowDown")),
        (200, deleted(b="SlowDown")),
        (200, deleted()),
        (200, listing()),
    ]
    blobs = open_blobs(trouble)
    end, tally = sweep(blobs)
    assert end is End.GONE
    assert (tally.objects, tally.bytes, tally.refused) == (2, 8, 0)
    assert len(trouble.requests) == 7
    again = trouble.requests[5][2]
    assert b"r/b" in again
    assert b"r/a" not in again
    blobs.close()


def test_names_ask_for_versions_where_there_are_any(trouble: Trouble) -> None:
    first_page = (
        "<ListVersionsResult><IsTruncated>true</IsTruncated><NextKeyMarker>b/</NextKeyMarker>"
        "<DeleteMarker><Key>a</Key><VersionId>1</VersionId></DeleteMarker>"
        "<CommonPrefixes><Prefix>b/</Prefix></CommonPrefixes></ListVersionsResult>"
    )
    trouble.answers = [
        (200, first_page),
        (200, "<ListVersionsResult><IsTruncated>false</IsTruncated></ListVersionsResult>"),
    ]
    blobs = open_blobs(trouble, versions=True)
    page = blobs.names(limit=2)
    assert (page.names, page.more) == (["b"], True)
    assert blobs.names(page.end).names == []
    blobs.close()
    first, second = (parse_qs(urlsplit(path).query, keep_blank_values=True) for path, _, _ in trouble.requests)
    assert ("versions" in first, first["delimiter"]) == (True, ["/"])
    assert second["key-marker"] == ["b/\U0010ffff"], "all under the last name is passed over"


def test_empty_keys_are_the_clouds_own_identity(trouble: Trouble, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "found-by-botocore")  # as a role's, in a cloud
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    trouble.answers = [(200, listing("r/a"))]
    blobs = S3Blobs("bucket", endpoint=trouble.endpoint, key="", secret="", region="us-east-1")
    assert [blob.key for blob in blobs.page("r/").blobs] == ["r/a"]
    blobs.close()
    assert "Credential=found-by-botocore/" in trouble.requests[0][1]["Authorization"]


def test_names_go_on_behind_old_versions_and_markers_of_keys_in_no_folder(trouble: Trouble) -> None:
    pages = (
        "<Version><Key>a</Key><VersionId>1</VersionId></Version>",
        "<DeleteMarker><Key>b</Key><VersionId>1</VersionId></DeleteMarker>",
        "<CommonPrefixes><Prefix>c/</Prefix></CommonPrefixes>",
    )
    trouble.answers = [
        (200, f"<ListVersionsResult><IsTruncated>true</IsTruncated>{page}</ListVersionsResult>") for page in pages
    ]
    blobs = open_blobs(trouble, versions=True)
    after, found = "", list[str]()
    for end in ("a", "b", "c/\U0010ffff"):
        page = blobs.names(after, limit=1)
        assert (page.end, page.more) == (end, True)
        after, found = page.end, found + page.names
    assert found == ["c"]
    blobs.close()


def test_names_of_a_server_that_repeats_itself_are_an_error(trouble: Trouble) -> None:
    same = "<CommonPrefixes><Prefix>c/</Prefix></CommonPrefixes>"
    trouble.answers = [(200, f"<ListVersionsResult><IsTruncated>true</IsTruncated>{same}</ListVersionsResult>")]
    blobs = open_blobs(trouble, versions=True)
    page = blobs.names(limit=1)
    assert (page.names, page.more) == (["c"], True)
    with pytest.raises(BlobsRefused, match=r"more of the listing follows, and neither .* says where"):
        blobs.names(page.end, limit=1)
    blobs.close()


def empty(mark: str, *, versions: bool) -> str:
    if versions:
        marks = f"<NextKeyMarker>r/{mark}</NextKeyMarker>" if mark else ""
        return f"<ListVersionsResult><IsTruncated>true</IsTruncated>{marks}</ListVersionsResult>"
    marks = f"<NextContinuationToken>{mark}</NextContinuationToken>" if mark else ""
    return f"<ListBucketResult><IsTruncated>true</IsTruncated>{marks}</ListBucketResult>"


@pytest.mark.parametrize("versions", [False, True])
def test_a_page_that_is_empty_and_truncated_and_has_no_mark_is_an_error(trouble: Trouble, versions: bool) -> None:
    trouble.answers = [(200, empty("", versions=versions))]
    blobs = open_blobs(trouble, versions=versions)
    for ask in (lambda: blobs.page("r/"), blobs.names):
        with pytest.raises(BlobsRefused, match=r"more of the listing follows.*not taken for the end"):
            ask()
    blobs.close()


@pytest.mark.parametrize("versions", [False, True])
def test_a_mark_that_leads_back_is_an_error(trouble: Trouble, versions: bool) -> None:
    blobs = open_blobs(trouble, versions=versions)
    asks: list[Callable[[], object]] = [lambda: list(each_page(lambda after: blobs.page("r/", after), "it"))]
    asks += [lambda: list(each_page(blobs.names, "it")), lambda: sweep(blobs)]
    asks += [lambda: blobs.find(["r/a"])] if versions else []
    for ask in asks:
        trouble.answers = [(200, empty(mark, versions=versions)) for mark in ("1", "2", "3", "2", "3", "2", "3")]
        with pytest.raises(BlobsRefused, match="does not move on"):
            ask()
    blobs.close()


def test_a_mark_that_is_taken_no_more_is_passed_by_the_key(trouble: Trouble) -> None:
    """A cleanup may go on days later, or the server be another."""
    blobs = open_blobs(trouble)
    trouble.answers = [(200, truncated("r/a", mark="old"))]
    page = blobs.page("r/")
    trouble.answers = [(400, error("InvalidArgument")), (200, listing("r/b"))]
    second = blobs.page("r/", page.end)
    assert ([blob.key for blob in second.blobs], second.more) == (["r/b"], False)
    marked, by_key = (parse_qs(urlsplit(path).query) for path, _, _ in trouble.requests[1:])
    assert (marked["continuation-token"], by_key["start-after"]) == (["old"], ["r/a"])
    assert "continuation-token" not in by_key
    trouble.answers = [(503, error("SlowDown"))]
    with pytest.raises(BlobsAway):
        blobs.page("r/", page.end)
    blobs.close()


def test_a_server_without_marks_is_gone_through_by_keys(trouble: Trouble) -> None:
    blobs = open_blobs(trouble)
    trouble.answers = [(200, truncated("r/a")), (200, listing("r/b"))]
    pages = list(each_page(lambda after: blobs.page("r/", after), "it"))
    assert [blob.key for page in pages for blob in page.blobs] == ["r/a", "r/b"]
    assert parse_qs(urlsplit(trouble.requests[1][0]).query)["start-after"] == ["r/a"]
    trouble.answers = [(200, truncated("r/a"))]
    with pytest.raises(BlobsRefused, match="does not move on"):
        list(each_page(lambda after: blobs.page("r/", after), "it"))
    blobs.close()


def test_a_position_of_an_older_version_is_taken(trouble: Trouble) -> None:
    """It is a key: cleanups that were under way go on behind it."""
    blobs = open_blobs(trouble)
    trouble.answers = [(200, listing("r/b"))]
    assert [blob.key for blob in blobs.page("r/", "r/a").blobs] == ["r/b"]
    assert parse_qs(urlsplit(trouble.requests[0][0]).query)["start-after"] == ["r/a"]
    blobs.close()


@pytest.mark.parametrize("versions", [False, True])
@pytest.mark.parametrize("text", ["", "<html><body>Sign in</body></html>", "<html><p>Sign in", "moved, see there"])
def test_what_is_no_listing_ends_none(trouble: Trouble, text: str, versions: bool) -> None:
    """A guard, a login page or another server that answers in place of the store: nothing is done by that."""
    trouble.answers = [(200, text)]
    blobs = open_blobs(trouble, versions=versions)
    # What cannot be read at all is a broken answer, which botocore makes a 500 of.
    broken = text in {"<html><p>Sign in", "moved, see there"}
    asks: tuple[Callable[[], object], ...] = (lambda: blobs.page("r/"), blobs.names)
    for ask in asks:
        with pytest.raises(BlobsAway if broken else BlobsRefused, match="500" if broken else "S3_ENDPOINT is no S3"):
            ask()
    blobs.close()
