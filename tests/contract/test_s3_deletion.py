"""How deletions in S3 are put into requests, by what a server answers to them."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import parse_qs, urlsplit

import pytest

from storage.blobs import Blob
from storage.errors import BlobsAway, BlobsRefused
from storage.s3_client import S3Client
from storage.s3_deletion import SINGLY_SECONDS, Deletion
from tests.contract.trouble import Trouble

LISTING = "<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>"
BLOBS = [Blob(f"r/{key}", 4) for key in "abcd"]


class Desk:
    """A deletion whose clock stands still."""

    def __init__(self, trouble: Trouble) -> None:
        self.trouble = trouble
        self.now = 0.0
        self.client = S3Client("bucket", endpoint=trouble.endpoint, key="k", secret="s", region="us-east-1")
        self.deletion = Deletion(self.client, requests=2, clock=lambda: self.now)

    def bulks(self) -> int:
        return sum("delete" in parse_qs(urlsplit(path).query, True) for path, _, _ in self.trouble.requests)

    def singles(self) -> list[str]:
        return sorted(path for path, _, _ in self.trouble.requests if path.startswith("/bucket/r/"))


@pytest.fixture
def desk() -> Iterator[Desk]:
    trouble = Trouble()
    opened = Desk(trouble)
    yield opened
    opened.deletion.close()
    opened.deletion.close()
    opened.client.close()
    trouble.close()


def error(code: str) -> str:
    return f"<Error><Code>{code}</Code><Message>as you asked</Message></Error>"


FORMS = [
    (501, error("NotImplemented")),
    (501, ""),
    (405, error("MethodNotAllowed")),
    (400, error("MissingContentMD5")),
    (400, error("InvalidRequest")),  # Missing required header for this request: Content-MD5
    (400, error("InvalidArgument")),
    (400, error("MalformedXML")),
    (403, "<html>This kind of request is not let through</html>"),
    (404, error("NoSuchKey")),  # it takes the bucket for a key
]


@pytest.mark.parametrize(("status", "text"), FORMS)
def test_single_deletions_where_the_form_is_refused(desk: Desk, status: int, text: str) -> None:
    desk.trouble.at = {"/bucket?delete": (status, text)}
    desk.trouble.answers = [(204, "")]
    assert desk.deletion.delete(BLOBS) == []
    assert desk.singles() == ["/bucket/r/a", "/bucket/r/b", "/bucket/r/c", "/bucket/r/d"]
    assert desk.deletion.delete(BLOBS) == []
    assert (desk.bulks(), len(desk.singles())) == (1, 8), "it is remembered"
    desk.now = SINGLY_SECONDS + 1
    assert desk.deletion.delete(BLOBS) == []
    assert desk.bulks() == 2, "and looked at again"


def test_versions_are_named_in_single_deletions(desk: Desk) -> None:
    desk.trouble.at = {"/bucket?delete": (501, error("NotImplemented"))}
    desk.trouble.answers = [(204, "")]
    assert desk.deletion.delete([Blob("r/a", 4, "v1"), Blob("r/a", 4, "v2")]) == []
    assert desk.singles() == ["/bucket/r/a?versionId=v1", "/bucket/r/a?versionId=v2"]


@pytest.mark.parametrize(("status", "code"), [(501, "NotImplemented"), (403, "AccessDenied"), (400, "InvalidRequest")])
def test_what_refuses_single_deletions_too_is_no_matter_of_form(desk: Desk, status: int, code: str) -> None:
    desk.trouble.answers = [(status, error(code))]
    for count in (1, 2):
        with pytest.raises(BlobsRefused, match=rf"{code}: as you asked \(DeleteObjects"):
            desk.deletion.delete(BLOBS)
        assert (desk.bulks(), len(desk.singles())) == (count, count), "one is enough to see it, and nothing is kept"


def test_single_keys_are_refused_by_themselves(desk: Desk) -> None:
    desk.trouble.at = {
        "/bucket?delete": (501, error("NotImplemented")),
        "/r/a": (403, error("AccessDenied")),
        "/r/b": (503, error("SlowDown")),
        "/r/c": (404, error("NoSuchKey")),
    }
    desk.trouble.answers = [(204, "")]
    refusals = desk.deletion.delete(BLOBS)
    assert [(refusal.blob.key, refusal.code, refusal.passing) for refusal in refusals] == [
        ("r/a", "AccessDenied", False),
        ("r/b", "SlowDown", True),
    ]


@pytest.mark.parametrize("code", ["NoSuchKey", "NoSuchVersion", "NotFound", "404"])
def test_a_missing_key_is_gone_whatever_it_is_called(desk: Desk, code: str) -> None:
    named = "".join(f"<Error><Key>{blob.key}</Key><Code>{code}</Code></Error>" for blob in BLOBS)
    desk.trouble.answers = [(200, f"<DeleteResult>{named}</DeleteResult>")]
    assert desk.deletion.delete(BLOBS) == []
    desk.trouble.at = {"/bucket?delete": (501, error("NotImplemented")), "list-type=2": (200, LISTING)}
    desk.trouble.answers = [(404, error(code))]
    assert desk.deletion.delete(BLOBS) == []


def test_a_missing_bucket_is_not_taken_for_missing_keys(desk: Desk) -> None:
    """A bare 404 is either."""
    desk.trouble.at = {"/bucket?delete": (501, ""), "list-type=2": (404, error("NoSuchBucket"))}
    desk.trouble.answers = [(404, "")]
    with pytest.raises(BlobsRefused, match="there is no bucket 'bucket'"):
        desk.deletion.delete(BLOBS)


@pytest.mark.parametrize(("status", "code"), [(503, "SlowDown"), (500, "InternalError")])
def test_what_passes_is_no_matter_of_form(desk: Desk, status: int, code: str) -> None:
    desk.trouble.answers = [(status, error(code))]
    with pytest.raises(BlobsAway, match=code):
        desk.deletion.delete(BLOBS)
    assert desk.singles() == []
