"""FoundationDB's limits hold on every engine, and a transaction that has met one can go on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from storage.engine import KEY_LIMIT, VALUE_LIMIT
from storage.errors import KeyTooLarge, TransactionTooLarge, ValueTooLarge

if TYPE_CHECKING:
    from storage.engine import Engine, Transaction
    from tests.engines import Space


def test_the_largest_key_and_value_fit(engine: Engine, space: Space) -> None:
    key, value = space.key("k" * (KEY_LIMIT - len(space.prefix))), b"v" * VALUE_LIMIT
    assert len(key) == KEY_LIMIT
    engine.transact(lambda transaction: transaction.set(key, value))
    assert engine.read(lambda transaction: transaction.get(key).wait()) == value
    assert engine.read(lambda transaction: transaction.get_range(*space.range).wait()) == [(key, value)]


def test_one_byte_more_is_refused_at_once_and_the_transaction_goes_on(engine: Engine, space: Space) -> None:
    long_key = space.key("k" * (KEY_LIMIT + 1 - len(space.prefix)))

    def work(transaction: Transaction) -> None:
        transaction.set(space.key("before"), b"1")
        with pytest.raises(KeyTooLarge, match="10,001 bytes"):
            transaction.set(long_key, b"")
        with pytest.raises(ValueTooLarge, match="100,001 bytes"):
            transaction.set(space.key("value"), b"v" * (VALUE_LIMIT + 1))
        assert transaction.get(space.key("value")).wait() is None
        transaction.set(space.key("after"), b"2")

    engine.transact(work)
    stored = engine.read(lambda transaction: transaction.get_range(*space.range).wait())
    assert stored == [(space.key("after"), b"2"), (space.key("before"), b"1")]


@pytest.mark.parametrize(
    ("key", "value", "error"),
    [
        ("k" * (KEY_LIMIT + 1), b"", KeyTooLarge),
        ("k", b"v" * (VALUE_LIMIT + 1), ValueTooLarge),
        ("k", "text", TypeError),
    ],
)
def test_many_keys_are_written_all_or_not_at_all(
    engine: Engine, space: Space, key: str, value: bytes, error: type[Exception]
) -> None:
    def work(transaction: Transaction) -> None:
        with pytest.raises(error):
            transaction.set_all({space.key("a"): b"1", space.key(key): value, space.key("z"): b"2"})
        with pytest.raises(ValueError, match="begin with ff"):
            transaction.set_all({space.key("a"): b"1", b"\xff/x": b""})
        assert transaction.get_range(*space.range).wait() == []
        transaction.set_all({})
        transaction.set_all({space.key("b"): b"3", space.key("c"): b"v" * VALUE_LIMIT})

    engine.transact(work)
    stored = engine.read(lambda transaction: transaction.get_range(*space.range).wait())
    assert stored == [(space.key("b"), b"3"), (space.key("c"), b"v" * VALUE_LIMIT)]


def write_values(count: int, space: Space) -> object:
    def work(transaction: Transaction) -> None:
        transaction.set(space.key("first"), b"")
        for number in range(count):
            transaction.set(space.key(f"{number:03}"), b"v" * VALUE_LIMIT)

    return work


def test_a_transaction_just_below_the_limit_fits(engine: Engine, space: Space) -> None:
    engine.transact(write_values(99, space))  # type: ignore[arg-type]
    keys = engine.read(lambda transaction: transaction.get_range(*space.range).wait())
    assert len(keys) == 100


def test_a_transaction_beyond_the_limit_leaves_nothing(engine: Engine, space: Space) -> None:
    with pytest.raises(TransactionTooLarge):
        engine.transact(write_values(101, space))  # type: ignore[arg-type]
    assert engine.read(lambda transaction: transaction.get_range(*space.range).wait()) == []
    engine.transact(lambda transaction: transaction.set(space.key("a"), b"goes on"))


def test_small_keys_count_with_what_the_client_adds(engine: Engine, space: Space) -> None:
    """9 MB of keys and values; each write has some bytes of its own and a conflict range beside them."""

    def work(transaction: Transaction) -> None:
        for number in range(90_000):
            transaction.set(space.key(b"%090d" % number), b"12345678")

    with pytest.raises(TransactionTooLarge):
        engine.transact(work)
    assert engine.read(lambda transaction: transaction.get_range(*space.range, limit=1).wait()) == []


@pytest.mark.parametrize("key", ["text", None, 1, bytearray(b"k")])
def test_a_key_is_bytes(engine: Engine, space: Space, key: object) -> None:
    def work(transaction: Transaction) -> None:
        with pytest.raises(TypeError, match="bytes"):
            transaction.set(key, b"")  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="bytes"):
            transaction.get(key)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="bytes"):
            transaction.clear(key)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="bytes"):
            transaction.get_range(space.prefix, key)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="bytes"):
            transaction.clear_range(key, space.prefix)  # type: ignore[arg-type]

    engine.transact(work)


@pytest.mark.parametrize("value", ["text", None, 1.0])
def test_a_value_is_bytes(engine: Engine, space: Space, value: object) -> None:
    def work(transaction: Transaction) -> None:
        with pytest.raises(TypeError, match="bytes"):
            transaction.set(space.key("a"), value)  # type: ignore[arg-type]

    engine.transact(work)
    assert engine.read(lambda transaction: transaction.get(space.key("a")).wait()) is None


def test_the_stores_own_keys_are_out_of_reach(engine: Engine, space: Space) -> None:
    def work(transaction: Transaction) -> None:
        for touch in (
            lambda: transaction.set(b"\xff/x", b""),
            lambda: transaction.get(b"\xff"),
            lambda: transaction.clear(b"\xff\xff"),
            lambda: transaction.get_range(b"", b"\xff\x00"),
            lambda: transaction.clear_range(b"\xff\x00", b"\xff\x01"),
        ):
            with pytest.raises(ValueError, match="begin with ff"):
                touch()

    engine.transact(work)


def test_a_range_to_clear_must_not_end_before_it_begins(engine: Engine, space: Space) -> None:
    def work(transaction: Transaction) -> None:
        transaction.set(space.key("b"), b"stays")
        with pytest.raises(ValueError, match="ends before it begins"):
            transaction.clear_range(space.key("c"), space.key("a"))

    engine.transact(work)
    assert engine.read(lambda transaction: transaction.get(space.key("b")).wait()) == b"stays"


def test_a_limit_below_zero_is_refused(engine: Engine, space: Space) -> None:
    with pytest.raises(ValueError, match="limit of a range is -1"):
        engine.read(lambda transaction: transaction.get_range(*space.range, limit=-1))
