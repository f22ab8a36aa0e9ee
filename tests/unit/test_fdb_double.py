"""The double does what FoundationDB's client does, where the engine does not show it: its codes and its conflicts."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

import pytest

from storage.engine import open_engine
from tests.fdb_double import load_double

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture
def fdb() -> Any:
    return load_double()


@pytest.fixture(params=["memory", "file"])
def database(request: pytest.FixtureRequest, fdb: Any, tmp_path: Path) -> Iterator[Any]:
    cluster_file = tmp_path / "fdb.cluster"
    if request.param == "file":
        open_engine(f"sqlite:///{tmp_path / 'store.db'}").close()
        cluster_file.write_text(f"sqlite:///{tmp_path / 'store.db'}\n")
    else:
        cluster_file.write_text("double:double@127.0.0.1:4500\n")
    opened = fdb.open(str(cluster_file))
    yield opened
    if request.param == "file":
        opened.store.close()


def code(fdb: Any, work: Callable[[], object]) -> int:
    with pytest.raises(fdb.FDBError) as caught:
        work()
    number: int = caught.value.code
    return number


def test_the_real_package_is_left_alone(fdb: Any) -> None:
    import fdb as real

    assert real is not fdb
    assert real.__file__ != fdb.__file__


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [(b"k" * 10_001, b"", 2102), (b"k", b"v" * 100_001, 2103), (b"\xff", b"", 2004)],
)
def test_what_is_too_large_shows_at_the_commit_or_the_next_read(
    fdb: Any, database: Any, key: bytes, value: bytes, expected: int
) -> None:
    transaction = database.create_transaction()
    transaction.set(key, value)
    assert code(fdb, transaction.get(b"other").wait) == expected
    assert code(fdb, transaction.commit().wait) == expected
    transaction.reset()
    transaction.set(b"k", b"v")
    transaction.commit().wait()
    assert database[b"k"] == b"v"


def test_a_transaction_over_the_limit_is_2101(fdb: Any, database: Any) -> None:
    transaction = database.create_transaction()
    for number in range(101):
        transaction[b"%d" % number] = b"v" * 100_000
    assert transaction.get_approximate_size().wait() > 10_000_000
    assert code(fdb, transaction.commit().wait) == 2101
    assert code(fdb, transaction.on_error(fdb.FDBError(2101)).wait) == 2101
    assert database[:] == []


def test_a_range_that_ends_before_it_begins_cannot_be_cleared(fdb: Any, database: Any) -> None:
    transaction = database.create_transaction()
    transaction.clear_range(b"b", b"a")
    assert code(fdb, transaction.commit().wait) == 2005


def test_two_that_read_and_write_one_key_conflict(fdb: Any, database: Any) -> None:
    first, second = database.create_transaction(), database.create_transaction()
    for transaction in (first, second):
        assert transaction[b"a"] == None  # noqa: E711 - as the client's directory layer asks
        transaction[b"a"] = b"1"
    first.commit().wait()
    assert code(fdb, second.commit().wait) == 1020
    second.on_error(1020).wait()
    assert bytes(second[b"a"]) == b"1"


def test_a_read_only_transaction_never_conflicts(database: Any) -> None:
    reader = database.create_transaction()
    assert not reader[b"a"].present()
    database[b"a"] = b"1"
    assert not reader[b"a"].present()
    reader.commit().wait()
    assert reader[b"a"].present()  # a new one since the commit


def test_blind_writes_do_not_conflict(database: Any) -> None:
    first, second = database.create_transaction(), database.create_transaction()
    first[b"a"] = b"1"
    second[b"a"] = b"2"
    second.commit().wait()
    first.commit().wait()
    assert database[b"a"] == b"1"


def test_snapshot_reads_do_not_conflict_in_memory(fdb: Any, tmp_path: Path) -> None:
    (tmp_path / "fdb.cluster").write_text("double:double@127.0.0.1:4500\n")
    database = fdb.open(str(tmp_path / "fdb.cluster"))
    transaction = database.create_transaction()
    assert not transaction.snapshot[b"a"].present()
    assert list(transaction.snapshot[b"a":b"z"]) == []
    transaction[b"b"] = b"1"
    database[b"a"] = b"2"
    transaction.commit().wait()
    assert database[b"b"] == b"1"


def test_additions_are_made_at_the_commit(database: Any) -> None:
    one = struct.pack("<q", 1)
    database[b"n"] = struct.pack("<q", 40)
    first, second = database.create_transaction(), database.create_transaction()
    for transaction in (first, second):
        transaction.add(b"n", one)
        transaction.add(b"fresh", one)
    first.commit().wait()
    second.commit().wait()
    assert database[b"n"] == struct.pack("<q", 42)
    assert database[b"fresh"] == struct.pack("<q", 2)
    third = database.create_transaction()
    third.add(b"n", one)
    assert bytes(third[b"n"]) == struct.pack("<q", 43)
    third.clear_range(b"a", b"z")
    third.add(b"n", one)
    assert [(key, value) for key, value in third[b"a":b"z"]] == [(b"n", one)]
    third.commit().wait()
    assert [(key, value) for key, value in database[b"a":b"z"]] == [(b"n", one)]


def test_a_later_page_sees_what_was_written_after_the_first(fdb: Any, database: Any) -> None:
    """As with the client; which is why the engine reads ranges to their end before it writes."""
    for number in range(300):
        database[b"%03d" % number] = b"v" * 1_000
    transaction = database.create_transaction()
    pages = transaction.get_range(b"", b"\xff", streaming_mode=fdb.StreamingMode.want_all)
    transaction.clear_range(b"", b"\xff")
    assert 50 < len(list(pages)) < 300


@pytest.mark.parametrize("number", [1021, 1007, 1020, 1031])
def test_a_planned_fault_meets_one_commit(fdb: Any, database: Any, number: int) -> None:
    database.faults.commits.extend([None, fdb.impl.Fault(number, committed=number == 1021)])
    for value in (b"1", b"2"):
        transaction = database.create_transaction()
        transaction[b"a"] = value
        if value == b"1":
            transaction.commit().wait()
        else:
            assert code(fdb, transaction.commit().wait) == number
    assert database[b"a"] == (b"2" if number == 1021 else b"1")
    database[b"a"] = b"3"
    assert database.faults.commits_begun == 3


def test_a_transaction_without_a_timeout_would_wait_for_ever(database: Any) -> None:
    database.faults.leave()
    with pytest.raises(AssertionError, match="no timeout"):
        database.create_transaction().get(b"a")
    database.faults.come_back()


def test_the_clients_own_decorator_retries(fdb: Any, database: Any) -> None:
    tries = []

    @fdb.transactional  # type: ignore[untyped-decorator]
    def add_one(tr: Any) -> None:
        tries.append(1)
        tr[b"n"] = b"%d" % (int(bytes(tr[b"n"])) + 1 if tr[b"n"].present() else 1)

    database.faults.commits.extend([fdb.impl.Fault(1020), fdb.impl.Fault(1007)])
    add_one(database)
    transaction = database.create_transaction()
    add_one(transaction)
    transaction.commit().wait()
    assert database[b"n"] == b"2"
    assert len(tries) == 4
