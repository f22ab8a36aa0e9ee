"""Keys are those of FoundationDB's tuple layer, also where we pack them ourselves."""

from __future__ import annotations

import math
import struct
from typing import Any

import fdb.tuple
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from storage.encoding import first_element, pack_element, pack_step, unpack_key
from storage.errors import InvalidRecord

NUMBERS = st.one_of(st.integers(-(2**64), 2**64), st.integers(-300, 300), st.floats(), st.booleans(), st.none())
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=300)


@given(NUMBERS)
@example(-0.0)
@example(math.nan)
@example(struct.unpack(">d", b"\xff\xf8\x00\x00\x00\x00\x00\x01")[0])
@example(math.inf)
@example(-math.inf)
@example(2**64 - 1)
@example(-(2**64) + 1)
def test_numbers_are_packed_as_the_tuple_layer_packs_them(number: Any) -> None:
    assert pack_step(number) == pack_element(number) == fdb.tuple.pack((number,))


@given(TEXTS)
@example("a\x00b\x00")
def test_text_is_packed_as_the_tuple_layer_packs_it(text: str) -> None:
    assert pack_element(text) == fdb.tuple.pack((text,))


@given(st.lists(st.one_of(NUMBERS, TEXTS), min_size=1, max_size=3))
def test_the_first_element_is_cut_off_whole(elements: list[Any]) -> None:
    packed = b"".join(pack_element(element) for element in elements)
    assert packed == fdb.tuple.pack(tuple(elements))
    assert first_element(packed) == pack_element(elements[0])
    assert len(unpack_key(packed)) == len(elements)


@pytest.mark.parametrize("element", [{"a": 1}, object()])
def test_what_is_no_key_is_a_bad_record(element: object) -> None:
    with pytest.raises(InvalidRecord, match="cannot be part of a key"):
        pack_element(element)
