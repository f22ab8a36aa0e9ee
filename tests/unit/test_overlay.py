"""Writes held back are seen by every later read, and leave what writing at once would have left."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from storage.overlay import Draft, View
from tests.engines import make_space, open_kind

KEYS = st.sampled_from([b"a", b"aa", b"ab", b"b", b"ba", b"c"])
SPANS = st.tuples(KEYS, st.one_of(KEYS, st.just(b"d"))).map(lambda ends: (min(ends), max(ends)))
CHANGES = st.one_of(
    st.tuples(st.just("set"), KEYS, st.sampled_from([b"1", b"2"])),
    st.tuples(st.just("clear"), KEYS, st.none()),
    st.tuples(st.just("clear range"), SPANS, st.none()),
)
DRAFTS = st.tuples(st.lists(st.tuples(CHANGES, SPANS, KEYS), max_size=6), st.booleans())


def change(values: dict[bytes, bytes], draft: Draft, prefix: bytes, step: Any) -> None:
    """The same to a dictionary and to a draft."""
    what, where, value = step
    if what == "set":
        values[where] = value
        draft.set(prefix + where, value)
    elif what == "clear":
        values.pop(where, None)
        draft.clear(prefix + where)
    else:
        for key in [key for key in values if where[0] <= key < where[1]]:
            del values[key]
        draft.clear_range(prefix + where[0], prefix + where[1])


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(KEYS, st.just(b"0")), st.lists(DRAFTS, max_size=4))
def test_reads_see_what_was_written(before: dict[bytes, bytes], drafts: list[Any]) -> None:
    with TemporaryDirectory() as folder:
        engine = open_kind("double", Path(folder))
        space = make_space(engine)
        prefix = space.key("")

        def fill(transaction: Any) -> None:
            for key, value in before.items():
                transaction.set(prefix + key, value)

        def work(transaction: Any) -> dict[bytes, bytes]:
            view, values = View(transaction), dict(before)
            for steps, good in drafts:
                draft, kept = Draft(view), dict(values)
                for step, (begin, end), key in steps:
                    change(values, draft, prefix, step)
                    pairs = sorted((prefix + k, v) for k, v in values.items() if begin <= k < end)
                    assert draft.get_range(prefix + begin, prefix + end) == pairs
                    assert draft.get(prefix + key) == values.get(key)
                if good:
                    draft.keep()
                else:
                    values = kept
            view.flush()
            return values

        engine.transact(fill)
        values = engine.transact(work)
        pairs = engine.read(lambda transaction: transaction.get_range(prefix, prefix + b"\xff").wait())
        assert pairs == sorted((prefix + key, value) for key, value in values.items())
        engine.close()


def test_what_a_record_has_cleared_is_not_read_again() -> None:
    nothing: Any = None  # to read of it would fail
    draft = Draft(View(nothing))
    draft.clear_range(b"a", b"c")
    draft.set(b"b", b"1")
    draft.clear(b"ba")
    assert draft.get_range(b"a", b"bb") == [(b"b", b"1")]
