"""Transactions that run at once leave what some order of them, one after the other, would have left."""

from __future__ import annotations

import contextlib
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from tests.contract.actors import count_up, start
from tests.engines import IN_ONE_PROCESS

if TYPE_CHECKING:
    from pathlib import Path

    from storage.engine import Engine, Transaction
    from tests.engines import Space

DEADLINE = 60.0


def meet(meeting: threading.Barrier) -> None:
    """Wait until both have read. An engine that lets only one begin lets it go on alone."""
    with contextlib.suppress(threading.BrokenBarrierError):
        meeting.wait(0.5)


def number(engine: Engine, key: bytes) -> int:
    return int(engine.read(lambda transaction: transaction.get(key).wait()) or b"0")


def test_no_update_is_lost_between_threads(engine: Engine, space: Space) -> None:
    threads, times = 4, 25
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(lambda _: count_up(engine, space.key("n"), times), range(threads)))
    assert number(engine, space.key("n")) == threads * times


def test_no_update_is_lost_between_processes(kind: str, engine: Engine, space: Space, tmp_path: Path) -> None:
    if kind in IN_ONE_PROCESS:
        pytest.skip("the double's store lives in one process")
    processes, times = 3, 25
    with ExitStack() as stack:
        actors = [stack.enter_context(start("count", kind, tmp_path, space.key("n"), times)) for _ in range(processes)]
        assert [actor.communicate(timeout=DEADLINE)[0] for actor in actors] == ["done\n"] * processes
    assert number(engine, space.key("n")) == processes * times


@pytest.mark.parametrize("asked_as", ["value", "range"])
def test_two_transactions_that_read_what_the_other_writes_do_not_both_win(
    engine: Engine, space: Space, asked_as: str
) -> None:
    """Write skew: each sees the other's key absent, and writes its own. A store that lets both through is no use."""
    meeting = threading.Barrier(2)
    seen: list[tuple[str, bool]] = []

    def take_if_free(mine: str, other: str) -> None:
        first_try = threading.Event()

        def work(transaction: Transaction) -> bool:
            if asked_as == "value":
                free = transaction.get(space.key(other)).wait() is None
            else:
                free = not transaction.get_range(space.key(other), space.key(other + "z"), limit=3).wait()
            if not first_try.is_set():
                first_try.set()
                meet(meeting)
            if free:
                transaction.set(space.key(mine), b"taken")
            return free

        seen.append((mine, engine.transact(work)))

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(take_if_free, "ab", "ba"))
    assert sorted(took for _, took in seen) == [False, True]
    stored = engine.read(lambda transaction: transaction.get_range(*space.range).wait())
    assert [key for key, _ in stored] == [space.key(name) for name, took in seen if took]


def test_a_range_read_conflicts_with_a_key_that_appears_in_it(kind: str, engine: Engine, space: Space) -> None:
    """The case of automatic steps: two tasks read the last step of a sequence and both write the next one."""
    meeting = threading.Barrier(2)

    def append(name: str) -> None:
        tries = iter([True])

        def work(transaction: Transaction) -> None:
            last = transaction.get_range(*space.range, limit=1, reverse=True).wait()
            if next(tries, False):
                meet(meeting)
            step = int(last[0][0][-4:]) + 1 if last else 0
            transaction.set(space.key(f"{step:04}"), name.encode())

        engine.transact(work)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(append, "ab"))
    stored = engine.read(lambda transaction: transaction.get_range(*space.range).wait())
    assert [key[-4:] for key, _ in stored] == [b"0000", b"0001"]
    assert {value for _, value in stored} == {b"a", b"b"}


def test_a_range_clear_conflicts_with_a_read_of_an_absent_key(engine: Engine, space: Space) -> None:
    """Nothing is left behind of a run that is deleted while a task writes it."""
    meeting = threading.Barrier(2)

    def once(wait: list[bool]) -> None:
        if wait.pop() if wait else False:
            meet(meeting)

    def write() -> bool:
        wait = [True]

        def work(transaction: Transaction) -> bool:
            deleted = transaction.get(space.key("deleted")).wait() is not None
            once(wait)
            if not deleted:
                transaction.set(space.key("run/meta"), b"alive")
            return deleted

        return engine.transact(work)

    def delete() -> None:
        wait = [True]

        def work(transaction: Transaction) -> None:
            transaction.get_range(space.key("run/"), space.key("run0")).wait()
            once(wait)
            transaction.clear_range(space.key("run/"), space.key("run0"))
            transaction.set(space.key("deleted"), b"")

        engine.transact(work)

    with ThreadPoolExecutor(2) as pool:
        writing, deleting = pool.submit(write), pool.submit(delete)
        writing.result(DEADLINE)
        deleting.result(DEADLINE)
    assert engine.read(lambda transaction: transaction.get(space.key("run/meta")).wait()) is None
