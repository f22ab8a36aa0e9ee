"""What is said of a FoundationDB cluster that does not answer."""

from __future__ import annotations

import json
from typing import Any

import pytest

from storage.foundationdb_silence import describe_connections, explain_silence, release_line

OWN = "7.3.80,,fdb00b073000000"


def status(**connection: Any) -> bytes:
    return json.dumps({"Connections": [{"Address": "10.0.0.1:4500", **connection}]}).encode()


@pytest.mark.parametrize(
    ("protocol", "words"),
    [
        ("fdb00b074000000", "release line 7.4, newer than our client library libfdb_c (7.3)"),
        ("fdb00b080000000", "release line 8.0, newer than our client library libfdb_c (7.3)"),
        ("fdb00b071010000", "release line 7.1, older than our client library libfdb_c (7.3)"),
    ],
)
def test_a_cluster_of_another_release_line_is_named(protocol: str, words: str) -> None:
    said = describe_connections(status(Compatible=False, Status="connected", ProtocolVersion=protocol), OWN)
    assert said.startswith("the cluster at 10.0.0.1:4500 is of ")
    assert words in said
    assert said.count(". ") == 0  # one sentence


def test_one_that_tells_no_version_is_another_line() -> None:
    assert "release line another line" not in describe_connections(status(Compatible=False, Status="connected"), None)


def test_no_connection_names_the_addresses() -> None:
    assert "no connection to 10.0.0.1:4500" in describe_connections(status(Compatible=True, Status="failed"), OWN)


def test_connected_without_an_answer_points_to_the_status() -> None:
    said = describe_connections(status(Compatible=True, Status="connected"), OWN)
    assert said.startswith("connected to 10.0.0.1:4500, but")
    assert "fdbcli --exec status" in said


@pytest.mark.parametrize("told", [None, b"", b"{}", b"[]", b"no JSON", b'{"Connections":[{}]}', b'{"Connections":7}'])
def test_a_client_that_says_nothing_leaves_the_question(told: bytes | None) -> None:
    assert describe_connections(told, None) == "is the cluster up, reachable, and of the client's release line?"


def test_a_lock_is_named_without_asking_anybody() -> None:
    assert "the database is locked" in explain_silence(None, None, 1038, seconds=1.0)


@pytest.mark.parametrize(
    ("text", "line"),
    [("fdb00b073000000", (7, 3)), ("0fdb00b073000000", (7, 3)), ("fdb00b080000000", (8, 0)), ("", None), ("73", None)],
)
def test_protocols_and_lines(text: str, line: tuple[int, int] | None) -> None:
    assert release_line(text) == line
