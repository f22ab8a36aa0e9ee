"""What an S3 does where servers differ, asked of one that runs: ``python -m tests.contract.survey``.

The server is named as for the contract (see `tests.contract.given_s3`). Prints a line a question, for the table in
docs/explanation/blob-stores.md.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final
from uuid import uuid4

from botocore.exceptions import BotoCoreError, ClientError

from tests.contract.given_s3 import ENDPOINT_VARIABLE, GivenS3, find_given

_ORDER: Final = ["a-b/1", "a.b", "a/1", "a0", "b\u00e9/1", "b\uffee", "b\U0001f600"]


class Survey:
    """The questions, and a bucket for each.

    Args:
        server: whom they are put to.
    """

    def __init__(self, server: GivenS3) -> None:
        self._server = server
        self._s3: Any = server.client
        self._bucket = ""

    def each(self) -> Iterator[tuple[str, str]]:
        """Question and answer."""
        for question, ask, versions in (
            ("order of a listing", self._order, False),
            ("a key and keys below it", self._nested, False),
            ("longest key", self._longest, False),
            ("a key with a control character", self._control, False),
            ("DeleteObjects of a missing key", self._missing_bulk, False),
            ("single deletion of a missing key", self._missing_single, False),
            ("mark of a page after its key is gone", self._token, False),
            ("pages of names", self._names, False),
            ("an unknown mark", self._unknown_token, False),
            ("versions", self._versions, True),
            ("KeyMarker alone", self._key_marker, True),
            ("KeyMarker and VersionIdMarker", self._version_marker, True),
            ("VersionIdMarker of a version that is gone", self._gone_marker, True),
            ("DeleteObjects of a missing version", self._missing_version, True),
            ("single deletions of one key's versions together", self._together, True),
            ("listing over delete markers", self._over_markers, True),
        ):
            self._bucket = f"survey-{uuid4().hex[:12]}"
            try:
                self._s3.create_bucket(Bucket=self._bucket)
                if versions:
                    state = {"Status": "Enabled"}
                    self._s3.put_bucket_versioning(Bucket=self._bucket, VersioningConfiguration=state)
                yield question, ask()
            except ClientError as error:
                yield question, _words(error)
            finally:
                try:
                    self._server.drop_bucket(self._bucket)
                except (ClientError, BotoCoreError) as error:
                    print(f"{self._bucket} is left: {error}", file=sys.stderr)

    def _put(self, *keys: str) -> None:
        for key in keys:
            self._s3.put_object(Bucket=self._bucket, Key=key, Body=b"blob")

    def _list(self, **what: Any) -> Any:
        return self._s3.list_objects_v2(Bucket=self._bucket, **what)

    def _list_versions(self, **what: Any) -> Any:
        return self._s3.list_object_versions(Bucket=self._bucket, **what)

    def _order(self) -> str:
        self._put(*_ORDER)
        pages, token = list[list[str]](), dict[str, str]()
        while True:
            answer = self._list(MaxKeys=2, **token)
            pages.append([item["Key"] for item in answer.get("Contents", ())])
            if not answer["IsTruncated"]:
                break
            token = {"ContinuationToken": answer["NextContinuationToken"]}
        keys = [key for page in pages for key in page]
        order = "by bytes" if keys == sorted(_ORDER, key=str.encode) else f"another: {keys}"
        return order + (
            f"; pages of {[len(page) for page in pages]}" if any(len(page) != 2 for page in pages[:-1]) else ""
        )

    def _nested(self) -> str:
        self._put("x/y")
        return _try(lambda: self._put("x")) + f", listed {[item['Key'] for item in self._list()['Contents']]}"

    def _longest(self) -> str:
        flat = _try(lambda: self._put("k" * 1_024))
        parts = _try(lambda: self._put("/".join(["p" * 200] * 5)[:1_024]))
        return f"1,024 bytes {flat}; in parts of 200 {parts}; 1,025 {_try(lambda: self._put('k' * 1_025))}"

    def _control(self) -> str:
        put = _try(lambda: self._put("c\x01d"))
        return f"{put}, listed {[item['Key'] for item in self._list().get('Contents', ())]}"

    def _delete(self, *objects: dict[str, str]) -> str:
        what = {"Objects": list(objects), "Quiet": False}
        answer = self._s3.delete_objects(Bucket=self._bucket, Delete=what)
        errors = [f"{error['Code']}: {error.get('Message')}" for error in answer.get("Errors", ())]
        return f"named as an error ({errors[0]})" if errors else f"{len(answer.get('Deleted', ()))} named as deleted"

    def _missing_bulk(self) -> str:
        return self._delete({"Key": "never"})

    def _missing_single(self) -> str:
        return _try(lambda: self._s3.delete_object(Bucket=self._bucket, Key="never"))

    def _token(self) -> str:
        self._put("a", "b", "c")
        first = self._list(MaxKeys=1)
        self._s3.delete_object(Bucket=self._bucket, Key="a")
        second = self._list(ContinuationToken=first["NextContinuationToken"])
        found = [item["Key"] for item in second.get("Contents", ())]
        return "goes on" if found == ["b", "c"] else f"gives {found}"

    def _unknown_token(self) -> str:
        self._put("a", "b")
        return _try(lambda: self._list(ContinuationToken="bm9uc2Vuc2U"))

    def _names(self) -> str:
        self._put("a-b/1", "a/1", "a/2", "b/1", "c", "d/1")
        pages, token = list[list[str]](), dict[str, str]()
        while len(pages) < 20:
            answer = self._list(Delimiter="/", MaxKeys=2, **token)
            pages.append([item["Prefix"] for item in answer.get("CommonPrefixes", ())])
            pages[-1] += [item["Key"] for item in answer.get("Contents", ())]
            if not answer["IsTruncated"]:
                break
            token = {"ContinuationToken": answer["NextContinuationToken"]}
        return str(pages)

    def _fill_versions(self) -> list[tuple[str, str]]:
        for _ in range(3):
            self._put("a", "b")
        return _versions(self._list_versions())

    def _versions(self) -> str:
        listed = self._fill_versions()
        return f"{len(listed)} of 6 listed"

    def _key_marker(self) -> str:
        listed = self._fill_versions()
        found = _versions(self._list_versions(KeyMarker="a"))
        if found == listed[3:]:
            return "begins behind the key"
        return f"begins with {found[:1]} of {listed}"

    def _version_marker(self) -> str:
        listed = self._fill_versions()
        answer = self._list_versions(MaxKeys=2)
        next_ = (answer.get("NextKeyMarker"), answer.get("NextVersionIdMarker"))
        at = "the last one listed" if next_ == listed[1] else "the first one left" if next_ == listed[2] else str(next_)
        found = _versions(self._list_versions(KeyMarker=next_[0], VersionIdMarker=next_[1]))
        goes = {2: "goes on", 1: "repeats the last one"}.get(listed.index(found[0]) if found else -1, f"gives {found}")
        own = _versions(self._list_versions(KeyMarker=listed[1][0], VersionIdMarker=listed[1][1]))
        behind = "behind it" if own == listed[2:] else "at it" if own == listed[1:] else str(own)
        return f"the server's is {at}, and {goes}; a version's own begins {behind}"

    def _gone_marker(self) -> str:
        listed = self._fill_versions()
        self._s3.delete_object(Bucket=self._bucket, Key="a", VersionId=listed[0][1])
        found = _versions(self._list_versions(KeyMarker="a", VersionIdMarker=listed[0][1]))
        return "goes on" if found == listed[1:] else f"passes over {len(listed) - 1 - len(found)} versions"

    def _missing_version(self) -> str:
        listed = self._fill_versions()
        self._s3.delete_object(Bucket=self._bucket, Key="a", VersionId=listed[0][1])
        return self._delete({"Key": "a", "VersionId": listed[0][1]})

    def _together(self) -> str:
        for _ in range(30):
            self._put("a")
        listed, left = _versions(self._list_versions()), []

        def delete(version: tuple[str, str]) -> str:
            key, number = version
            return _try(lambda: self._s3.delete_object(Bucket=self._bucket, Key=key, VersionId=number))

        with ThreadPoolExecutor(8) as pool:
            answers = set(pool.map(delete, listed))
        left = _versions(self._list_versions())
        return f"{', '.join(sorted(answers))}; {len(left)} of {len(listed)} are left"

    def _over_markers(self) -> str:
        keys = [f"k{number:02}" for number in range(30)]
        self._put(*keys)
        for key in keys:
            self._s3.delete_object(Bucket=self._bucket, Key=key)
        self._put("z")
        pages, token = list[int](), dict[str, str]()
        while len(pages) < 100:
            answer = self._list(MaxKeys=3, **token)
            pages.append(len(answer.get("Contents", ())))
            if not answer["IsTruncated"]:
                break
            token = {"ContinuationToken": answer["NextContinuationToken"]}
        return f"{pages.count(0)} empty pages that are truncated" if len(pages) > 1 else "no empty page"


def _versions(answer: Any) -> list[tuple[str, str]]:
    return [(item["Key"], item["VersionId"]) for item in answer.get("Versions", ())]


def _words(error: ClientError) -> str:
    what = error.response["Error"]
    return f"{what.get('Code')}: {what.get('Message')}"


def _try(ask: Callable[[], object]) -> str:
    try:
        ask()
    except ClientError as error:
        return f"refused ({_words(error)})"
    except BotoCoreError as error:
        return f"failed ({error})"
    return "taken"


def main() -> None:
    """Ask, and print."""
    server = find_given()
    if server is None:
        sys.exit(f"name the server by {ENDPOINT_VARIABLE} (see docs/explanation/blob-stores.md)")
    for question, answer in Survey(server).each():
        print(f"{question}: {answer}", flush=True)


if __name__ == "__main__":
    main()
