"""The two layers over a transaction do what a dictionary does, whatever is kept and dropped."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from storage.engine import KEY_LIMIT
from storage.errors import KeyTooLarge
from storage.overlay import Draft, View
from tests.engines import open_kind

if TYPE_CHECKING:
    from pathlib import Path

    from storage.engine import Transaction

KEYS = st.text("ab", max_size=4).map(lambda name: b"\x02k" + name.encode())
STEPS = st.lists(st.tuples(st.sampled_from(["set", "set", "clear", "clear_range"]), KEYS, KEYS), max_size=12)
RECORDS = st.lists(st.tuples(STEPS, st.booleans()), max_size=12)
ALL = (b"\x02k", b"\x02l")


def write(draft: Draft, model: dict[bytes, bytes], steps: list[tuple[str, bytes, bytes]]) -> None:
    for verb, first, second in steps:
        low, high = sorted((first, second))
        if verb == "set":
            draft.set_all({low: high, high: low})
            model |= {low: high, high: low}
        elif verb == "clear":
            draft.clear(first)
            model.pop(first, None)
        else:
            draft.clear_range(low, high)
            for key in [key for key in model if low <= key < high]:
                del model[key]


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    before=st.dictionaries(KEYS, st.just(b"before"), max_size=8),
    started=st.lists(KEYS, max_size=3),
    records=RECORDS,
    asked=st.tuples(KEYS, KEYS),
)
def test_layers_do_what_a_dictionary_does(
    tmp_path: Path,
    before: dict[bytes, bytes],
    started: list[bytes],
    records: list[tuple[list[tuple[str, bytes, bytes]], bool]],
    asked: tuple[bytes, bytes],
) -> None:
    low, high = sorted(asked)
    engine = open_kind("double", tmp_path)

    def work(transaction: Transaction) -> dict[bytes, bytes]:
        transaction.clear_range(*ALL)
        transaction.set_all(before)
        view, stored = View(transaction), dict(before)
        for key in started:
            view.start(key)
            view.start_range(key)
        for steps, good in records:
            draft, model = Draft(view), dict(stored)
            write(draft, model, steps)
            for layer, expected in ((draft, model), (view, stored)):
                assert layer.get_range(*ALL) == sorted(expected.items())
                assert layer.get_range(low, high) == sorted(p for p in expected.items() if low <= p[0] < high)
                assert layer.get(low) == expected.get(low)
            if good:
                draft.keep()
                stored = model
        view.flush()
        return stored

    stored = engine.transact(work)
    assert dict(engine.read(lambda transaction: transaction.get_range(*ALL).wait())) == stored
    engine.close()


def test_of_keys_that_are_too_long_the_first_is_told_of_and_none_is_written(tmp_path: Path) -> None:
    engine = open_kind("double", tmp_path)

    def work(transaction: Transaction) -> None:
        draft = Draft(View(transaction))
        keys = [b"\x02k", b"\x02" + b"k" * KEY_LIMIT, b"\x02" + b"k" * (KEY_LIMIT + 1)]
        with pytest.raises(KeyTooLarge, match=f"{KEY_LIMIT + 1}"):
            draft.set_all(dict.fromkeys(keys, b""))
        assert draft.get_range(*ALL) == []

    engine.transact(work)
    engine.close()


def test_what_a_record_has_cleared_is_not_read_again() -> None:
    nothing: Any = None  # to read of it would fail
    draft = Draft(View(nothing))
    draft.clear_range(b"a", b"c")
    draft.set(b"b", b"1")
    draft.clear(b"ba")
    assert draft.get_range(b"a", b"bb") == [(b"b", b"1")]
