"""A record's headers and time travel with it, and stay in its dead letter; what has none looks as it ever did."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgpack
import pytest
from click.testing import CliRunner
from confluent_kafka import Message
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bridge.headers import read_headers
from matyan_celery.__main__ import cli
from storage.batch import NO_TIME, Batch, Epoch, Headers, Record, Source, pack_batch, unpack_batch
from storage.dead_letters import CHUNK, STAGED, DeadLetter
from storage.ledger import order_source
from storage.recorded import Recorded, format_recorded, parse_recorded
from storage.store import Store, assemble_store
from tests.engines import open_kind

SOURCE = Source("cluster", "data-ingestion", "topic-1", 2)
HEADERS: Headers = (
    ("a", b"1"),
    ("a", b"2"),
    ("größe", "Maß".encode()),
    ("raw", b"\xff\x00"),
    ("none", None),
    ("", b""),
)

# The first text of a process takes a second.
UNHURRIED: dict[str, Any] = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
contents = st.none() | st.binary(max_size=8) | texts.map(str.encode)
records = st.builds(
    Record,
    st.integers(0, 2**63 - 1),
    st.integers(-(2**63), 2**63 - 1) | st.just(NO_TIME),
    contents,
    contents,
    st.lists(st.tuples(texts, contents), max_size=4).map(tuple),
)


@pytest.fixture(params=["sqlite", "double"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    with assemble_store(open_kind(request.param, tmp_path)) as opened:
        yield opened


def batch(*carried: Record) -> Batch:
    return Batch(SOURCE, 3, Epoch(2, "e2"), 1, 9, carried)


def letter(of: Record) -> DeadLetter:
    return DeadLetter(SOURCE, 3, of.offset, "invalid", "bad", 1.0, "run", "", of.size)


# -- batches ---------------------------------------------------------------------------------------------------------


@settings(max_examples=100, **UNHURRIED)
@given(st.lists(records, min_size=1, max_size=5))
def test_a_batch_arrives_as_it_was_sent(sent: list[Record]) -> None:
    assert unpack_batch(pack_batch(batch(*sent))) == batch(*sent)


def test_a_batch_without_headers_is_what_every_release_sends_and_reads() -> None:
    """Bridge and workers are not replaced in one moment: these are the bytes of the releases before headers."""
    plain = (Record(10, 1_000, b"k", b"v"), Record(12, NO_TIME, None, None))
    packed: bytes = msgpack.packb(
        (
            ("cluster", "data-ingestion", "topic-1", 2),
            3,
            (2, "e2"),
            1,
            9,
            [(10, 1_000, b"k", b"v"), (12, -1, None, None)],
        )
    )
    assert pack_batch(batch(*plain)) == packed
    assert unpack_batch(packed) == batch(*plain)


def test_of_a_mixed_batch_only_the_records_with_headers_are_longer() -> None:
    packed = pack_batch(batch(Record(10, 1, b"k", b"v"), Record(11, 1, b"k", b"v", HEADERS)))
    assert [len(record) for record in msgpack.unpackb(packed)[-1]] == [4, 5]


def test_headers_count_in_a_records_size() -> None:
    bare = Record(1, 1, b"key", b"value")
    assert (bare.size, bare._replace(headers=HEADERS).size) == (8, 8 + 2 + 2 + 7 + 4 + 3 + 2 + 4)


class Told(Exception):
    """What the fake message was asked once too often."""


class FakeMessage:
    """A message whose headers were read already, or have a name that confluent-kafka cannot give."""

    def __init__(self, headers: Any) -> None:
        self._headers = [headers]

    def headers(self) -> Any:
        if not self._headers:
            raise Told
        headers = self._headers.pop()
        if isinstance(headers, Exception):
            raise headers
        return headers


@pytest.mark.parametrize(
    ("given_headers", "read"),
    [
        (None, ()),
        ([], ()),
        (list(HEADERS), HEADERS),
        (SystemError("returned a result with an exception set"), None),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"), None),
    ],
)
def test_headers_are_asked_for_once(given_headers: Any, read: Headers | None) -> None:
    message: Message = FakeMessage(given_headers)  # type: ignore[assignment]
    assert read_headers(message) == read


# -- dead letters ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("headers", [(), HEADERS, (("many", b"x" * 3 * CHUNK),)], ids=["none", "some", "large"])
@pytest.mark.parametrize(
    "value", [None, b"", b"{}", b"v" * (STAGED + 1)], ids=["tombstone", "empty", "short", "staged"]
)
@pytest.mark.parametrize("key", [None, b"", b"run"])
def test_a_dead_letter_keeps_the_whole_record(
    key: bytes | None, value: bytes | None, headers: Headers, store: Store
) -> None:
    kept, letters = Record(7, NO_TIME, key, value, headers), store.dead_letters
    if kept.size > STAGED:
        letters.stage(store.engine, SOURCE, 7, kept)
        store.engine.transact(lambda transaction: letters.keep_staged(transaction, letter(kept), kept))
    else:
        store.engine.transact(lambda transaction: letters.keep(transaction, letter(kept), kept))
    assert store.engine.read(lambda transaction: letters.get(transaction, SOURCE, 7)) == (letter(kept), kept)


def test_dead_letters_of_older_releases_are_read_and_those_without_headers_are_written_as_theirs(store: Store) -> None:
    kept, letters = Record(7, 1_000, b"run", b"\xff"), store.dead_letters
    place = store.ledger.key("dead_record", *order_source(SOURCE), 7, 0)
    older: bytes = msgpack.packb((1_000, b"run", b"\xff"))
    store.engine.transact(lambda transaction: letters.keep(transaction, letter(kept), kept))
    assert store.engine.read(lambda transaction: transaction.get(place).wait()) == older
    store.engine.transact(lambda transaction: transaction.set(place, older))
    assert store.engine.read(lambda transaction: letters.get(transaction, SOURCE, 7)) == (letter(kept), kept)


# -- recorded lines --------------------------------------------------------------------------------------------------


@settings(max_examples=300, **UNHURRIED)
@given(records, st.integers(0, 2**31 - 1))
def test_a_recorded_line_says_all(record: Record, partition: int) -> None:
    recorded = Recorded("topic", partition, record)
    assert parse_recorded(format_recorded(recorded)) == recorded


def test_the_line_of_an_ordinary_record_has_the_fields_it_ever_had() -> None:
    line = json.loads(format_recorded(Recorded("t", 1, Record(5, 1_000, b"k", b"v"))))
    assert line == {"topic": "t", "partition": 1, "offset": 5, "timestamp_ms": 1_000, "key": "k", "value": "v"}


LINE = {"topic": "t", "partition": 1, "offset": 5, "timestamp_ms": None, "key": "k", "value": "v"}


@pytest.mark.parametrize(
    ("fields", "headers", "time"),
    [
        ({}, (), NO_TIME),
        ({"timestamp_ms": -1}, (), NO_TIME),  # as older releases write it
        ({"timestamp_ms": -5, "headers": None}, (), -5),  # a broker takes it
        ({"headers": [{"name": "a", "value": None}, {"name": "a", "value": "b"}]}, (("a", None), ("a", b"b")), NO_TIME),
        ({"headers": [{"name": "a", "value_base64": "/w=="}]}, (("a", b"\xff"),), NO_TIME),
    ],
)
def test_lines_with_headers_and_without_times(fields: dict[str, Any], headers: Headers, time: int) -> None:
    record = parse_recorded(json.dumps(LINE | fields)).record
    assert (record.headers, record.timestamp_ms) == (headers, time)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"timestamp_ms": 1.5}, "timestamp_ms must be a whole number of at most 64 bits, or null for none, it is 1.5"),
        ({"timestamp_ms": 2**63}, "timestamp_ms must be a whole number of at most 64 bits"),
        ({"timestamp_ms": True}, "timestamp_ms must be a whole number of at most 64 bits"),
        ({"headers": {"a": "b"}}, 'headers must be a list of {"name", "value"}'),
        ({"headers": ["a"]}, 'headers must be a list of {"name", "value"}'),
        ({"headers": [{"name": "a", "value": "b"}, {"value": "b"}]}, "headers[1]: name is missing"),
        ({"headers": [{"name": "a"}]}, "headers[0]: value is missing"),
        ({"headers": [{"name": None, "value": "b"}]}, "headers[0]: name must be text, it is null"),
        ({"headers": [{"name": "a", "value": 1}]}, "headers[0]: value must be text or null, it is 1"),
        ({"headers": [{"name": "a", "value_base64": "?"}]}, "headers[0]: value_base64 is no base64"),
        ({"headers": [{"name": "\ud800", "value": "b"}]}, "headers[0]: name has half a surrogate pair"),
    ],
)
def test_wrong_lines_say_what_is_wrong(fields: dict[str, Any], words: str) -> None:
    with pytest.raises((TypeError, ValueError)) as raised:
        parse_recorded(json.dumps(LINE | fields))
    assert words in str(raised.value)


# -- commands --------------------------------------------------------------------------------------------------------


def run(*arguments: str, store: str, given_lines: str | None = None) -> str:
    done = CliRunner().invoke(cli, arguments, input=given_lines, env={"STORAGE_URL": f"sqlite:///{store}"})
    assert done.exit_code == 0, done.output
    return done.stdout


@pytest.mark.parametrize("key", [None, b"", b"\xfe", b"run"])
@pytest.mark.parametrize("value", [None, b"", b"\xff", b"no JSON"])
def test_what_show_prints_as_json_is_replayed_into_the_same_letters(
    key: bytes | None, value: bytes | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    sent = [Record(0, NO_TIME, key, value), Record(1, -7, key, value, HEADERS)]
    lines = "".join(format_recorded(Recorded("data-ingestion", 1, record)) + "\n" for record in sent)
    run("replay", "-", store="one.db", given_lines=lines)
    shown = run("dead-letters", "show", "--json", store="one.db")
    assert [parse_recorded(line).record for line in shown.splitlines()] == sent
    run("replay", "-", store="two.db", given_lines=shown)
    assert run("dead-letters", "show", "--json", store="two.db") == shown


def test_show_prints_headers_and_a_missing_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    nasty: Headers = (*HEADERS, ("\x1b[31m\nname", b"\x1b[2J"))
    lines = format_recorded(Recorded("data-ingestion", 1, Record(0, NO_TIME, None, b"no JSON", nasty)))
    run("replay", "-", store="one.db", given_lines=lines)
    shown = run("dead-letters", "show", store="one.db")
    assert "  sent    (no time)\n" in shown
    assert "  headers a: 1\n          a: 2\n          größe: Maß\n          raw: b'\\xff\\x00' (not UTF-8)\n" in shown
    assert "          none: (none)\n" in shown
    assert "          \\x1b[31m\\nname: \\x1b[2J\n" in shown
