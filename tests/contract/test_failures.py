"""What becomes of a transaction when its work fails, the store refuses it, or nobody answers."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest

from storage.engine import open_engine
from storage.errors import (
    Contended,
    Refused,
    StorageUnavailable,
    TransactionTooLarge,
    TransactionTooOld,
)
from tests.contract.actors import KEYS, start
from tests.engines import IN_ONE_PROCESS, double_database, make_space, open_kind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from storage.engine import Engine, Transaction
    from tests.engines import Space

DEADLINE = 60.0


class Mistake(Exception):
    """A bug in somebody's work."""


# -- any engine ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [Mistake("a bug"), KeyboardInterrupt(), Refused("no")])
def test_an_exception_of_the_work_rolls_back_and_passes_through(
    engine: Engine, space: Space, error: BaseException
) -> None:
    engine.transact(lambda transaction: transaction.set(space.key("a"), b"before"))
    runs = []

    def work(transaction: Transaction) -> None:
        runs.append(1)
        transaction.set(space.key("a"), b"during")
        transaction.get_range(*space.range).wait()  # what is kept back has gone to the store
        transaction.set(space.key("b"), b"during")
        raise error

    with pytest.raises(type(error)) as caught:
        engine.transact(work)
    assert caught.value is error
    assert runs == [1]
    stored = engine.read(lambda transaction: transaction.get_range(*space.range).wait())
    assert stored == [(space.key("a"), b"before")]
    engine.transact(lambda transaction: transaction.set(space.key("a"), b"after"))


def test_an_exception_of_reading_work_passes_through(engine: Engine, space: Space) -> None:
    def work(transaction: Transaction) -> None:
        transaction.get(space.key("a")).wait()
        raise Mistake

    with pytest.raises(Mistake):
        engine.read(work)
    assert engine.read(lambda transaction: transaction.get(space.key("a")).wait()) is None


def test_a_writer_that_is_killed_leaves_all_of_a_transaction_or_nothing(
    kind: str, engine: Engine, space: Space, tmp_path: Path
) -> None:
    if kind in IN_ONE_PROCESS:
        pytest.skip("the double's store dies with its process")
    key = space.key("k")
    for commits in (1, 2, 3, 5, 8, 13):
        with start("write", kind, tmp_path, key) as writer:
            assert writer.stdout is not None
            said = 0
            for line in writer.stdout:
                said = int(line)
                if said == commits:
                    break
            writer.kill()
            said = max([said, *map(int, writer.stdout.read().split())])  # told just before it died
        stored = engine.read(lambda transaction: transaction.get_range(key + b"/", key + b"0").wait())
        assert len(stored) == KEYS
        (number,) = {int(value) for _, value in stored}
        assert said <= number <= said + 1
    engine.transact(lambda transaction: transaction.set(key, b"goes on"))


# -- FoundationDB's errors, on the double ----------------------------------------------------------------------------


class Faulty:
    """A store whose faults are planned, and a piece of work that is idempotent by a cursor, as every task's is."""

    def __init__(self, folder: Path, timeout: float) -> None:
        self.engine = open_kind("double", folder, timeout=timeout)
        self.space = make_space(self.engine)
        database = double_database(folder)
        self.faults: Any = database.faults
        self.store: Any = database.store
        self.runs = 0

    def append(self, transaction: Transaction) -> str:
        self.runs += 1
        if transaction.get(self.space.key("cursor")).wait() is not None:
            return "duplicate"
        count = len(transaction.get_range(self.space.key("log/"), self.space.key("log0")).wait())
        transaction.set(self.space.key(f"log/{count}"), b"")
        transaction.set(self.space.key("cursor"), b"1")
        return "applied"

    def applied(self) -> int:
        rows = self.engine.read(
            lambda transaction: transaction.get_range(self.space.key("log/"), self.space.key("log0")).wait()
        )
        return len(rows)


@pytest.fixture
def make_faulty(tmp_path: Path) -> Iterator[Callable[..., Faulty]]:
    made: list[Faulty] = []

    def make(timeout: float = 10.0) -> Faulty:
        made.append(Faulty(tmp_path, timeout))
        return made[-1]

    yield make
    for faulty in made:
        faulty.engine.close()


def fault(code: int, *, committed: bool = False) -> Any:
    from tests.fdb_double import load_double

    return load_double().impl.Fault(code, committed)


@pytest.mark.parametrize("impatient", [False, True])
@pytest.mark.parametrize(("committed", "answer"), [(True, "duplicate"), (False, "applied")])
def test_maybe_committed_is_settled_by_the_retry(
    make_faulty: Callable[..., Faulty], committed: bool, answer: str, impatient: bool
) -> None:
    faulty = make_faulty()
    faulty.faults.commits.append(fault(1021, committed=committed))
    assert faulty.engine.transact(faulty.append, impatient=impatient) == answer
    assert faulty.runs == 2
    assert faulty.applied() == 1


@pytest.mark.parametrize(
    "codes", [[1007], [1020], [1020, 1020], [1007, 1021, 1020], [1037], [1038], [1039], [1078], [1213]]
)
def test_a_patient_transaction_tries_again(make_faulty: Callable[..., Faulty], codes: list[int]) -> None:
    faulty = make_faulty()
    faulty.faults.commits.extend(fault(code) for code in codes)
    assert faulty.engine.transact(faulty.append) == "applied"
    assert faulty.runs == len(codes) + 1
    assert faulty.applied() == 1


def test_an_impatient_one_gives_up_at_the_third_conflict(make_faulty: Callable[..., Faulty]) -> None:
    faulty = make_faulty()
    faulty.faults.commits.extend([fault(1020)] * 3)
    with pytest.raises(Contended, match="3 times on end"):
        faulty.engine.transact(faulty.append, impatient=True)
    assert faulty.runs == 3
    assert faulty.applied() == 0
    faulty.faults.commits.extend([fault(1020)] * 2)
    assert faulty.engine.transact(faulty.append, impatient=True) == "applied"


def test_an_impatient_one_gives_up_at_once_when_it_is_too_old(make_faulty: Callable[..., Faulty]) -> None:
    faulty = make_faulty()
    faulty.faults.commits.append(fault(1007))
    with pytest.raises(TransactionTooOld):
        faulty.engine.transact(faulty.append, impatient=True)
    assert faulty.runs == 1
    assert faulty.applied() == 0


def test_a_read_version_that_is_really_too_old_is_one(make_faulty: Callable[..., Faulty]) -> None:
    faulty = make_faulty()
    faulty.store.lifetime = -1.0  # every read is later than that
    with pytest.raises(TransactionTooOld):
        faulty.engine.transact(faulty.append, impatient=True)


@pytest.mark.parametrize("impatient", [False, True])
def test_too_large_is_never_tried_again(make_faulty: Callable[..., Faulty], impatient: bool) -> None:
    faulty = make_faulty()
    faulty.faults.commits.append(fault(2101))
    with pytest.raises(TransactionTooLarge):
        faulty.engine.transact(faulty.append, impatient=impatient)
    assert faulty.runs == 1
    assert faulty.applied() == 0


def test_a_timeout_of_a_store_that_answers_means_too_long(make_faulty: Callable[..., Faulty]) -> None:
    faulty = make_faulty()
    faulty.faults.reads.append(1031)
    with pytest.raises(TransactionTooOld, match="while the store answers"):
        faulty.engine.transact(faulty.append, impatient=True)
    faulty.faults.reads.append(1031)
    with pytest.raises(StorageUnavailable, match="while the store answers"):
        faulty.engine.transact(faulty.append)
    faulty.faults.commits.append(fault(1031, committed=True))
    with pytest.raises(TransactionTooOld):
        faulty.engine.transact(faulty.append, impatient=True)
    assert faulty.engine.transact(faulty.append) == "duplicate"
    assert faulty.applied() == 1


@pytest.mark.parametrize("impatient", [False, True])
def test_a_store_that_does_not_answer_is_unavailable(make_faulty: Callable[..., Faulty], impatient: bool) -> None:
    faulty = make_faulty(timeout=0.1)
    faulty.faults.leave()
    with pytest.raises(StorageUnavailable, match="is the cluster up"):
        faulty.engine.transact(faulty.append, impatient=impatient)
    with pytest.raises(StorageUnavailable, match="is the cluster up"):
        faulty.engine.read(lambda transaction: transaction.get(b"a").wait())
    with pytest.raises(StorageUnavailable, match="is the cluster up"):
        faulty.engine.directory("somewhere")
    faulty.faults.come_back()
    assert faulty.engine.transact(faulty.append) == "applied"


def test_a_database_that_stays_locked_is_unavailable_and_says_so(make_faulty: Callable[..., Faulty]) -> None:
    faulty = make_faulty(timeout=0.3)
    faulty.faults.reads.extend([1038] * 100_000)
    with pytest.raises(StorageUnavailable, match="the database is locked, by an operator or by a restore"):
        faulty.engine.transact(faulty.append, impatient=True)
    faulty.faults.reads.clear()
    assert faulty.engine.transact(faulty.append) == "applied"


def test_a_store_that_comes_back_in_time_is_waited_for(make_faulty: Callable[..., Faulty]) -> None:
    faulty = make_faulty(timeout=DEADLINE)
    faulty.faults.leave()
    back = threading.Timer(0.1, faulty.faults.come_back)
    back.start()
    assert faulty.engine.transact(faulty.append) == "applied"
    back.join()


def test_conflicts_without_end_end_with_the_timeout(make_faulty: Callable[..., Faulty]) -> None:
    faulty = make_faulty(timeout=0.2)
    faulty.faults.commits.extend([fault(1020)] * 100_000)
    with pytest.raises(StorageUnavailable, match=r"while the store answers, the last try: .*\(1020\)"):
        faulty.engine.transact(faulty.append)
    assert faulty.runs > 1
    faulty.faults.commits.clear()
    assert faulty.applied() == 0


def test_a_read_is_tried_again(make_faulty: Callable[..., Faulty]) -> None:
    faulty = make_faulty()
    faulty.engine.transact(faulty.append)
    faulty.faults.reads.extend([1007, 1037, None, 1009])

    def work(transaction: Transaction) -> int:
        transaction.get(faulty.space.key("cursor")).wait()
        return len(transaction.get_range(faulty.space.key("log/"), faulty.space.key("log0")).wait())

    assert faulty.engine.read(work) == 1


def test_an_error_that_nobody_retries_names_its_code(make_faulty: Callable[..., Faulty]) -> None:
    faulty = make_faulty()
    faulty.faults.commits.append(fault(1025))
    with pytest.raises(StorageUnavailable, match="1025"):
        faulty.engine.transact(faulty.append)
    faulty.faults.commits.append(fault(2000))
    with pytest.raises(Refused, match="2000"):
        faulty.engine.transact(faulty.append)
    faulty.faults.reads.append(6000)
    with pytest.raises(Refused, match="does not let us in"):
        faulty.engine.read(lambda transaction: transaction.get(b"a").wait())


# -- each engine's own way of being away -----------------------------------------------------------------------------


def test_a_write_lock_that_somebody_keeps_makes_an_embedded_store_unavailable(tmp_path: Path) -> None:
    engine = open_kind("sqlite", tmp_path, timeout=0.2)
    engine.transact(lambda transaction: transaction.set(b"a", b"1"))
    with start("hold", "sqlite", tmp_path, b"") as holder:
        assert holder.stdout is not None
        assert holder.stdin is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(StorageUnavailable, match=r"write lock for 0\.2 s"):
            engine.transact(lambda transaction: transaction.set(b"a", b"2"))
        assert engine.read(lambda transaction: transaction.get(b"a").wait()) == b"1"  # reading goes on beside it
        another = open_kind("sqlite", tmp_path, timeout=0.2)  # so does opening
        another.close()
        holder.stdin.close()
        holder.wait(DEADLINE)
    engine.transact(lambda transaction: transaction.set(b"a", b"3"))
    assert engine.read(lambda transaction: transaction.get(b"a").wait()) == b"3"
    engine.close()


@pytest.mark.usefixtures("foundationdb_server")
def test_a_cluster_that_is_not_there_is_unavailable(tmp_path: Path) -> None:
    cluster_file = tmp_path / "nobody.cluster"
    cluster_file.write_text("nobody:nobody@127.0.0.1:1\n")
    engine = open_engine(f"fdb://{cluster_file}", timeout=1.0)
    with pytest.raises(StorageUnavailable, match="is the cluster up"):
        engine.transact(lambda transaction: transaction.set(b"a", b"1"))
    engine.close()
