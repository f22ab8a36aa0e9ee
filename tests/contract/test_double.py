"""What the double says of errors is what the client library says of them."""

from __future__ import annotations

import pytest

from storage.foundationdb_client import load_client
from tests.fdb_double import load_double

RETRYABLE = 50_000  # fdb_error_predicate: on_error tries it again
CODES = range(1_000, 3_000)


@pytest.fixture(scope="module")
def library(foundationdb_server: object) -> object:
    return load_client().impl._capi


def test_descriptions_are_the_librarys(library: object) -> None:
    codes = load_double().impl.DESCRIPTIONS
    said = {code: library.fdb_get_error(code) for code in codes}  # type: ignore[attr-defined]
    assert codes == {code: text.decode() if isinstance(text, bytes) else text for code, text in said.items()}


def test_the_same_errors_are_tried_again(library: object) -> None:
    retried = {code for code in CODES if library.fdb_error_predicate(RETRYABLE, code)}  # type: ignore[attr-defined]
    assert retried == load_double().impl.RETRIED
