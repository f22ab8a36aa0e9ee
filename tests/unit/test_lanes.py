"""Which id orders a record: its run's, or its event's, however odd the record is. None of them stops the bridge."""

from __future__ import annotations

import json

import pytest

from bridge.lanes import find_run, find_subject
from storage.batch import Record


def event(**payload: object) -> bytes:
    return json.dumps({"type": "any", "timestamp": "2026-01-01T00:00:00Z", "payload": payload}).encode()


@pytest.mark.parametrize(
    ("value", "subject"),
    [
        (event(run_id="r", blob_keys=["a"]), b"r"),
        (event(project_id="p", tag_id="t", experiment_id="e", run_id="r"), b"r"),
        (event(experiment_id="e"), b"e"),
        (event(tag_id="t"), b"t"),
        (event(project_id="p"), b"p"),
        (event(run_id="", tag_id="t"), b"t"),
        (event(run_id=5, experiment_id="e"), b"e"),
        (event(run_id="läuft"), "läuft".encode()),
        (event(run_id="\ud800"), b"\xed\xa0\x80"),
        (event(), b"key"),
        (b'{"payload": null}', b"key"),
        (b'{"payload": [1]}', b"key"),
        (b"[]", b"key"),
        (b"nonsense", b"key"),
        (b"\xff\xfe", b"key"),
        (b"[" * 100_000, b"key"),
        (None, b"key"),
    ],
)
def test_the_subject_of_a_control_event(value: bytes | None, subject: bytes) -> None:
    assert find_subject(Record(0, 0, b"key", value)) == subject
    if subject == b"key":
        assert find_subject(Record(0, 0, None, value)) == b""


@pytest.mark.parametrize(
    ("value", "run"),
    [
        (b'{"run_id": "r"}', b"r"),
        (b'{"run_id": "\\ud800"}', b"\xed\xa0\x80"),
        (b'{"run_id": null}', b"key"),
        (b'{"type": "log_metric"}', b"key"),
        (b"[]", b"key"),
        (b"null", b"key"),
        (b"nonsense", b"key"),
        (b"\xff\xfe", b"key"),
        (b"[" * 100_000, b"key"),
        (None, b"key"),
    ],
)
def test_the_run_of_a_record(value: bytes | None, run: bytes) -> None:
    assert find_run(Record(0, 0, b"key", value)) == run
    if run == b"key":
        assert find_run(Record(0, 0, None, value)) == b""


@pytest.mark.parametrize(
    ("key", "value", "run"),
    [
        (b'a","x":"', b'{"run_id":"a","x":""}', b"a"),
        (b"a\\n", b'{"run_id":"a\\n"}', b"a\n"),
    ],
)
def test_a_key_that_looks_like_the_text_of_an_envelope_is_not_believed(key: bytes, value: bytes, run: bytes) -> None:
    assert find_run(Record(0, 0, key, value)) == run
