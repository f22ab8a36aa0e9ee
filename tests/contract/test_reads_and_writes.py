"""What a transaction sees: the store, its own writes, and nothing that was written after it asked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

if TYPE_CHECKING:
    from storage.engine import Engine, KeyValue, Read, Transaction
    from tests.engines import Space


def fill(engine: Engine, space: Space, names: str) -> None:
    def work(transaction: Transaction) -> None:
        transaction.clear_range(*space.range)
        for name in names:
            transaction.set(space.key(name), name.encode())

    engine.transact(work)


def values(engine: Engine, space: Space) -> str:
    pairs = engine.read(lambda transaction: transaction.get_range(*space.range).wait())
    return b"".join(value for _, value in pairs).decode()


def test_a_value_comes_back_as_it_was_written(engine: Engine, space: Space) -> None:
    every_byte = bytes(range(256))
    engine.transact(lambda transaction: transaction.set(space.key("a" + "\0"), every_byte))
    engine.transact(lambda transaction: transaction.set(space.key("empty"), b""))
    assert engine.read(lambda transaction: transaction.get(space.key("a" + "\0")).wait()) == every_byte
    assert engine.read(lambda transaction: transaction.get(space.key("empty")).wait()) == b""
    assert engine.read(lambda transaction: transaction.get(space.key("a")).wait()) is None


def test_keys_are_in_byte_order(engine: Engine, space: Space) -> None:
    names = [b"\x01", b"\x01\x00", b"\x01\x00\xff", b"\x01\x01", b"A", b"a", b"a\x00", b"a\xff", b"b", b"\x7f", b"\x80"]

    def work(transaction: Transaction) -> None:
        for name in reversed(names):
            transaction.set(space.key(name), b"")

    engine.transact(work)
    pairs = engine.read(lambda transaction: transaction.get_range(*space.range).wait())
    assert [key for key, _ in pairs] == sorted(space.key(name) for name in names)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("limit", [0, 1, 2, 5, 6])
def test_a_range_has_a_begin_an_end_a_limit_and_a_direction(
    engine: Engine, space: Space, limit: int, reverse: bool
) -> None:
    fill(engine, space, "abcdefg")
    pairs = engine.read(
        lambda transaction: transaction.get_range(space.key("b"), space.key("g"), limit=limit, reverse=reverse).wait()
    )
    names = "fedcb" if reverse else "bcdef"
    assert pairs == [(space.key(name), name.encode()) for name in (names[:limit] if limit else names)]


@pytest.mark.parametrize(("begin", "end"), [("c", "c"), ("d", "b"), ("x", "z"), ("bb", "c")])
def test_a_range_with_nothing_in_it_is_empty(engine: Engine, space: Space, begin: str, end: str) -> None:
    fill(engine, space, "abcd")
    for reverse in (False, True):
        pairs = engine.read(
            lambda transaction, reverse=reverse: transaction.get_range(  # type: ignore[misc]
                space.key(begin), space.key(end), reverse=reverse
            ).wait()
        )
        assert pairs == []


def test_clears_remove_what_they_name_and_nothing_else(engine: Engine, space: Space) -> None:
    fill(engine, space, "abcdef")

    def work(transaction: Transaction) -> None:
        transaction.clear(space.key("a"))
        transaction.clear(space.key("not there"))
        transaction.clear_range(space.key("c"), space.key("e"))
        transaction.clear_range(space.key("f"), space.key("f"))

    engine.transact(work)
    assert values(engine, space) == "bef"


def test_reads_are_answered_as_of_the_moment_they_were_asked(engine: Engine, space: Space) -> None:
    fill(engine, space, "abc")

    def work(transaction: Transaction) -> tuple[list[bytes | None], list[list[KeyValue]]]:
        singles = [transaction.get(space.key("b"))]
        ranges = [transaction.get_range(*space.range)]
        transaction.set(space.key("b"), b"B")
        singles.append(transaction.get(space.key("b")))
        ranges.append(transaction.get_range(*space.range))
        transaction.clear_range(*space.range)
        singles.append(transaction.get(space.key("b")))
        ranges.append(transaction.get_range(*space.range))
        transaction.set(space.key("b"), b"last")
        return [read.wait() for read in singles], [read.wait() for read in ranges]

    singles, ranges = engine.transact(work)
    assert singles == [b"b", b"B", None]
    assert [b"".join(value for _, value in pairs) for pairs in ranges] == [b"abc", b"aBc", b""]
    assert values(engine, space) == "last"


def test_a_range_of_many_pages_does_not_see_later_writes(engine: Engine, space: Space) -> None:
    names = [f"{number:04}" for number in range(400)]

    def write(transaction: Transaction) -> None:
        for name in names:
            transaction.set(space.key(name), b"x" * 1_000)

    engine.transact(write)

    def work(transaction: Transaction) -> tuple[list[KeyValue], list[KeyValue]]:
        forth = transaction.get_range(*space.range)
        back = transaction.get_range(*space.range, reverse=True)
        transaction.clear_range(space.key("0100"), space.key("0300"))
        transaction.set(space.key("0350"), b"new")
        transaction.set(space.key("0000"), b"new")
        transaction.set(space.key("0350x"), b"new")
        return forth.wait(), back.wait()

    forth, back = engine.transact(work)
    assert forth == [(space.key(name), b"x" * 1_000) for name in names]
    assert back == forth[::-1]


def test_a_read_can_be_waited_for_twice(engine: Engine, space: Space) -> None:
    fill(engine, space, "ab")

    def work(transaction: Transaction) -> bool:
        value, pairs = transaction.get(space.key("a")), transaction.get_range(*space.range)
        return value.wait() == value.wait() == b"a" and pairs.wait() == pairs.wait() != []

    assert engine.transact(work)
    assert engine.read(work)


def test_a_read_only_transaction_sees_one_state(engine: Engine, space: Space) -> None:
    fill(engine, space, "abc")

    def work(transaction: Transaction) -> tuple[bytes | None, list[KeyValue]]:
        before = transaction.get(space.key("a")).wait()
        fill(engine, space, "xyz")  # another transaction, committed meanwhile
        assert values(engine, space) == "xyz"
        return before, transaction.get_range(*space.range).wait()

    before, pairs = engine.read(work)
    assert before == b"a"
    assert b"".join(value for _, value in pairs) == b"abc"


def test_a_read_only_transaction_refuses_to_write(engine: Engine, space: Space) -> None:
    fill(engine, space, "a")
    writes = (
        lambda transaction: transaction.set(space.key("a"), b"no"),
        lambda transaction: transaction.set_all({space.key("a"): b"no"}),
        lambda transaction: transaction.clear(space.key("a")),
        lambda transaction: transaction.clear_range(*space.range),
    )
    for write in writes:
        with pytest.raises(TypeError, match=r"Engine\.transact"):
            engine.read(write)
    assert values(engine, space) == "a"


def test_a_transaction_that_is_over_refuses_everything(engine: Engine, space: Space) -> None:
    for run in (engine.transact, engine.read):
        old: Transaction = run(lambda transaction: transaction)
        with pytest.raises(RuntimeError, match="is over"):
            old.get(space.key("a"))
        with pytest.raises(RuntimeError, match="is over"):
            old.get_range(*space.range)
    old = engine.transact(lambda transaction: transaction)
    with pytest.raises(RuntimeError, match="is over"):
        old.set(space.key("a"), b"late")
    with pytest.raises(RuntimeError, match="is over"):
        old.set_all({space.key("a"): b"late"})
    assert values(engine, space) == ""


# -- any mix of operations, against a dictionary ---------------------------------------------------------------------

NAMES = st.binary(max_size=2).map(lambda name: b"k" + name)


@dataclass(frozen=True)
class Step:
    verb: str
    first: bytes
    second: bytes = b""
    limit: int = 0
    reverse: bool = False


STEPS = st.lists(
    st.one_of(
        st.builds(Step, st.just("set"), NAMES, st.binary(max_size=3)),
        st.builds(Step, st.just("set_all"), NAMES, NAMES),
        st.builds(Step, st.just("clear"), NAMES),
        st.builds(Step, st.just("clear_range"), NAMES, NAMES),
        st.builds(Step, st.just("get"), NAMES),
        st.builds(Step, st.just("get_range"), NAMES, NAMES, st.integers(0, 3), st.booleans()),
    ),
    max_size=25,
)


class Model:
    """What a transaction has to do, on a dictionary."""

    def __init__(self, pairs: dict[bytes, bytes]) -> None:
        self.pairs = pairs

    def take(self, step: Step) -> bytes | list[KeyValue] | None:
        low, high = sorted((step.first, step.second))
        if step.verb == "set":
            self.pairs[step.first] = step.second
        elif step.verb == "set_all":
            self.pairs |= {low: high, high: low}
        elif step.verb == "clear":
            self.pairs.pop(step.first, None)
        elif step.verb == "clear_range":
            for name in [name for name in self.pairs if low <= name < high]:
                del self.pairs[name]
        elif step.verb == "get":
            return self.pairs.get(step.first)
        else:
            found = sorted((pair for pair in self.pairs.items() if low <= pair[0] < high), reverse=step.reverse)
            return found[: step.limit] if step.limit else found
        return None


def take(transaction: Transaction, space: Space, step: Step) -> Read[object] | None:
    low, high = sorted((step.first, step.second))
    if step.verb == "set":
        transaction.set(space.key(step.first), step.second)
    elif step.verb == "set_all":
        transaction.set_all({space.key(low): high, space.key(high): low})
    elif step.verb == "clear":
        transaction.clear(space.key(step.first))
    elif step.verb == "clear_range":
        transaction.clear_range(space.key(low), space.key(high))
    elif step.verb == "get":
        return transaction.get(space.key(step.first))
    else:
        return transaction.get_range(space.key(low), space.key(high), limit=step.limit, reverse=step.reverse)
    return None


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(before=st.dictionaries(NAMES, st.binary(max_size=3), max_size=8), steps=STEPS)
def test_any_mix_of_operations_does_what_a_dictionary_does(
    engine: Engine, space: Space, before: dict[bytes, bytes], steps: list[Step]
) -> None:
    def lay(transaction: Transaction) -> None:
        transaction.clear_range(*space.range)
        for name, value in before.items():
            transaction.set(space.key(name), value)

    engine.transact(lay)
    model = Model(dict(before))
    expected = [model.take(step) for step in steps]

    def work(transaction: Transaction) -> list[object]:
        reads = [take(transaction, space, step) for step in steps]
        return [None if read is None else read.wait() for read in reads]

    def relative(answer: object) -> object:
        if isinstance(answer, list):
            return [(key.removeprefix(space.prefix), value) for key, value in answer]
        return answer

    assert [relative(answer) for answer in engine.transact(work)] == expected
    stored = engine.read(lambda transaction: transaction.get_range(*space.range).wait())
    assert dict(stored) == {space.key(name): value for name, value in model.pairs.items()}
