"""A range that is read by snapshot: of the same state as every other read, and no reason for a conflict."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from concurrent.futures import Future

    from storage.engine import Engine, KeyValue, Transaction
    from tests.engines import Space

DEADLINE = 30.0


def put(engine: Engine, key: bytes, value: bytes) -> None:
    engine.transact(lambda transaction: transaction.set(key, value))


def test_it_sees_the_transactions_own_writes(engine: Engine, space: Space) -> None:
    for name in "abc":
        put(engine, space.key(name), b"old")

    def work(transaction: Transaction) -> list[list[KeyValue]]:
        transaction.set(space.key("b"), b"new")
        transaction.clear(space.key("a"))
        transaction.set(space.key("d"), b"new")
        forward = transaction.get_range(*space.range, limit=2, snapshot=True)
        back = transaction.get_range(*space.range, limit=2, reverse=True, snapshot=True)
        transaction.set(space.key("c"), b"too late to be seen")
        return [forward.wait(), back.wait()]

    b, c, d = (space.key("b"), b"new"), (space.key("c"), b"old"), (space.key("d"), b"new")
    assert engine.transact(work) == [[b, c], [d, c]]


def test_it_works_where_nothing_is_written(engine: Engine, space: Space) -> None:
    put(engine, space.key("a"), b"1")
    seen = engine.read(lambda transaction: transaction.get_range(*space.range, snapshot=True).wait())
    assert seen == [(space.key("a"), b"1")]


@pytest.mark.parametrize("snapshot", [True, False])
def test_what_others_write_in_the_range_is_no_conflict(
    kind: str, engine: Engine, space: Space, *, snapshot: bool
) -> None:
    """With a plain read it is one. The embedded store lets nobody else write meanwhile, so it has neither."""
    put(engine, space.key("read/a"), b"1")
    span = space.key("read/"), space.key("read0")
    tries: list[list[KeyValue]] = []

    with ThreadPoolExecutor(1) as pool:
        others: list[Future[None]] = []

        def work(transaction: Transaction) -> None:
            tries.append(transaction.get_range(*span, snapshot=snapshot).wait())
            if not others:
                others.append(pool.submit(put, engine, space.key("read/a"), b"2"))
                if kind != "sqlite":
                    others[0].result(DEADLINE)
            # The state is one, whatever is committed meanwhile.
            assert transaction.get_range(*span, snapshot=snapshot).wait() == tries[-1]
            assert transaction.get_range(*span, snapshot=True).wait() == tries[-1]
            transaction.set(space.key("written"), b"%d" % len(tries))

        engine.transact(work)
        others[0].result(DEADLINE)
    values = [pairs[0][1] for pairs in tries]
    assert values == ([b"1"] if snapshot or kind == "sqlite" else [b"1", b"2"])
    assert engine.read(lambda transaction: transaction.get(space.key("read/a")).wait()) == b"2"


def test_a_plain_read_beside_it_still_conflicts(kind: str, engine: Engine, space: Space) -> None:
    if kind == "sqlite":
        pytest.skip("one writer at a time: nothing conflicts")
    put(engine, space.key("plain"), b"1")
    seen: list[bytes | None] = []

    def work(transaction: Transaction) -> None:
        plain = transaction.get(space.key("plain"))
        transaction.get_range(*space.range, snapshot=True).wait()  # has the key in it, too
        seen.append(plain.wait())
        if len(seen) == 1:
            put(engine, space.key("plain"), b"2")
        transaction.set(space.key("written"), b"")

    engine.transact(work)
    assert seen == [b"1", b"2"]
