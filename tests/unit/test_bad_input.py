"""Every kind of bad input becomes a dead letter that keeps the whole record, and its neighbours apply."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from storage.batch import Record
from storage.engine import VALUE_LIMIT
from storage.recorded import Recorded
from storage.replay import Replay
from storage.scan import Row, scan
from storage.store import Store, assemble_store
from tests.engines import open_kind

RUN = "0123456789abcdef0123456789abcdef"


@pytest.fixture(params=["sqlite", "double"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    with assemble_store(open_kind(str(request.param), tmp_path)) as opened:
        yield opened


def envelope(kind: str, payload: Any, **fields: Any) -> bytes:
    message = {"type": kind, "run_id": RUN, "timestamp": "2026-01-01T00:00:00Z", "payload": payload} | fields
    return json.dumps({name: value for name, value in message.items() if value is not ...}).encode()


def metric(**payload: Any) -> bytes:
    return envelope("log_metric", {"name": "loss", "value": 0.5, "step": 7} | payload)


def _deep(inner: int) -> bytes:
    """A metric whose context is so many objects deep, below the envelope and its payload."""
    context = b'{"a":' * inner + b"1" + b"}" * inner
    return metric(context="HERE").replace(b'"HERE"', context)


def without(kind: str, payload: dict[str, Any], field: str) -> bytes:
    return envelope(kind, {name: value for name, value in payload.items() if name != field})


BAD: dict[str, tuple[bytes | None, str]] = {
    "not JSON": (b"not json", "invalid"),
    "empty": (b"", "invalid"),
    "not UTF-8": (b'{"type":"log_metric","run_id":"\xff\xfe"}', "invalid"),
    "NUL bytes": (b"\x00\x00\x00", "invalid"),
    "a list": (b"[]", "invalid"),
    "no value": (None, "invalid"),
    "a number as run id": (metric().replace(f'"{RUN}"'.encode(), b"5"), "invalid"),
    "no type": (envelope("x", {}, type=...), "invalid"),
    "no run id": (envelope("log_metric", {}, run_id=...), "invalid"),
    "no timestamp": (envelope("log_metric", {}, timestamp=...), "invalid"),
    "no payload": (envelope("log_metric", ...), "invalid"),
    "null payload": (envelope("log_metric", None), "invalid"),
    "a list as payload": (envelope("log_metric", []), "invalid"),
    "a boolean as timestamp": (envelope("log_metric", {}, timestamp=True), "invalid"),
    "unknown type": (envelope("log_nothing", {}), "unknown_type"),
    "metric without name": (without("log_metric", {"value": 1}, "name"), "invalid"),
    "metric without value": (without("log_metric", {"name": "a"}, "value"), "invalid"),
    "metric with an object as name": (metric(name={"a": 1}), "invalid"),
    "metric with an object as step": (metric(step={"a": 1}), "invalid"),
    "object without name": (envelope("log_custom_object", {"value": {}}), "invalid"),
    "object without value": (envelope("log_custom_object", {"name": "a"}), "invalid"),
    "add_tag without name": (envelope("add_tag", {}), "invalid"),
    "add_tag with an object as name": (envelope("add_tag", {"tag_name": {"a": 1}}), "invalid"),
    "remove_tag without name": (envelope("remove_tag", {}), "invalid"),
    "line without line": (envelope("log_terminal_line", {"step": 0}), "invalid"),
    "line without step": (envelope("log_terminal_line", {"line": "a"}), "invalid"),
    "a number as line": (envelope("log_terminal_line", {"line": 5, "step": 0}), "invalid"),
    "record without message": (envelope("log_record", {"level": 10, "timestamp": 1.0}), "invalid"),
    "record without level": (envelope("log_record", {"message": "m", "timestamp": 1.0}), "invalid"),
    "record without timestamp": (envelope("log_record", {"message": "m", "level": 10}), "invalid"),
    "a value of 100,001 bytes": (metric(value="a" * (VALUE_LIMIT + 1)), "value_too_large"),
    "an over-long name": (metric(name="n" * 10_000), "key_too_large"),
    "an over-long tag": (envelope("add_tag", {"tag_name": "n" * 10_000}), "key_too_large"),
    "an over-long experiment": (envelope("set_run_property", {"experiment": "n" * 10_000}), "key_too_large"),
    "an over-long hparam": (
        envelope("log_hparams", {"value": {"hparams": {"n" * 10_000: 1, "b": 2}}}),
        "key_too_large",
    ),
    "an integer of 65 bits": (metric(value=2**64), "invalid"),
    "an integer of 65 bits as hparam": (envelope("log_hparams", {"value": {"hparams": {"a": 2**70}}}), "invalid"),
    "201 levels": (_deep(199), "invalid"),
    "9 MB": (metric(value="a" * 9_000_000), "value_too_large"),
    "12 MB of no JSON": (b"x" * 12_000_000, "invalid"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_record_is_kept_whole_and_alone(name: str, store: Store) -> None:
    value, reason = BAD[name]
    values: list[bytes | None] = [metric(step=1), value, metric(step=2)]
    records = [Recorded("data-ingestion", 3, Record(10 + i, 1_000 + i, RUN.encode(), v)) for i, v in enumerate(values)]
    replay = Replay(store)
    result = replay.apply(records)
    replay.finish()

    assert result.applied == {"log_metric": 2}
    assert dict(result.dead) == {reason: 1}
    (letter,) = store.dead_letters.each(store.engine)
    assert (letter.source.topic, letter.source.partition, letter.offset) == ("data-ingestion", 3, 11)
    assert letter.reason == reason
    assert letter.error
    kept = store.engine.read(lambda transaction: store.dead_letters.get(transaction, letter.source, 11))
    assert kept is not None
    assert kept[1] == records[1].record

    alone = [record for record in records if record.record.offset != 11]
    assert _data_of(store) == _data_after(alone, store)


def test_200_levels_are_taken(store: Store) -> None:
    replay = Replay(store)
    result = replay.apply([Recorded("data-ingestion", 0, Record(0, 0, RUN.encode(), _deep(198)))])
    replay.finish()
    assert result.applied == {"log_metric": 1}


def _data_of(store: Store) -> list[Row]:
    return [row for name in ("data/runs", "data/indexes", "system") for row in scan(store.engine, name)]


def _data_after(records: list[Recorded], store: Store) -> list[Row]:
    """What the good records alone leave, in the same store once it is emptied."""

    def clear(transaction: Any) -> None:
        for prefix in store.directories:
            transaction.clear_range(prefix, prefix + b"\xff")

    store.engine.transact(clear)
    replay = Replay(store)
    replay.apply(records)
    return _data_of(store)
