"""Bounds that the settings give: how much goes into one transaction, how often it is tried, how long a task waits."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bridge.route import ingest_route
from storage.apply import BatchApplier, Result, State
from storage.batch import Batch, pack_batch
from storage.engine import Tries
from storage.errors import StorageUnavailable
from storage.result import Portion
from storage.store import Store, assemble_store, open_store
from tasks.app import make_app
from tasks.batches import choose_wait, may_try_again, register_route, wait_for
from tasks.meter import Meter
from tasks.opened import OpenedStore
from tasks.settings import load_settings
from tests.engines import double_database, open_kind
from tests.fdb_double.fdb.faults import Fault
from tests.unit.test_apply import batch, cursor_of, mark, message, metric, own

CONFLICT = Fault(1020)
BATCH = batch(*(metric(step) for step in range(10)))


def applier(store: Store, portion: Portion) -> BatchApplier:
    return BatchApplier(store.engine, store.ledger, store.applier, portion=portion)


class TestPortion:
    @pytest.mark.parametrize(
        ("portion", "transactions"),
        [(Portion(), 1), (Portion(records=4), 3), (Portion(bytes=700), 5), (Portion(records=1, bytes=10), 10)],
    )
    def test_bounds_each_transaction(self, tmp_path: Path, portion: Portion, transactions: int) -> None:
        with assemble_store(open_kind("sqlite", tmp_path)) as store:
            own(store)
            result = applier(store, portion).apply(BATCH)
            assert result.state is State.APPLIED
            assert cursor_of(store) == 9
        assert result.transactions == transactions
        assert result.applied == {"log_metric": 10}
        assert len(result.sizes) == transactions
        assert sum(result.sizes) == 3_160
        if portion.bytes is not None:
            assert max(result.sizes) <= max(portion.bytes, 316)

    def test_what_was_committed_before_an_error_is_known(self, tmp_path: Path) -> None:
        with assemble_store(open_kind("double", tmp_path, tries=Tries(most=1))) as store:
            own(store)
            double_database(tmp_path).faults.commits.extend([None, CONFLICT])
            result = Result()
            with pytest.raises(StorageUnavailable, match="1020"):
                applier(store, Portion(records=3)).apply(BATCH, into=result)
            assert (result.transactions, result.applied) == (1, {"log_metric": 3})
            assert applier(store, Portion(records=3)).apply(BATCH).applied == {"log_metric": 7}

    def test_dropped_records_are_counted_by_type(self, tmp_path: Path) -> None:
        with assemble_store(open_kind("sqlite", tmp_path)) as store:
            own(store)
            result = applier(store, Portion()).apply(batch(message("delete_run", {}), metric(1), metric(2)))
        assert (result.applied, result.dropped) == ({"delete_run": 1}, {"log_metric": 2})


class TestTries:
    def test_are_bounded_and_counted(self, tmp_path: Path) -> None:
        counted: list[int] = []
        tries = Tries(most=3, longest_pause=0.01, counted=lambda: counted.append(1))
        with assemble_store(open_kind("double", tmp_path, tries=tries)) as store:
            faults = double_database(tmp_path).faults
            counted.clear()
            faults.commits.extend([CONFLICT, CONFLICT])
            store.engine.transact(lambda transaction: transaction.set(b"k", b"third try"))
            assert len(counted) == 2
            faults.commits.extend([CONFLICT] * 3)
            with pytest.raises(StorageUnavailable, match="1020"):
                store.engine.transact(lambda transaction: transaction.set(b"k", b"never"))
            assert len(counted) == 4
            assert store.engine.read(lambda transaction: transaction.get(b"k").wait()) == b"third try"


class TestWait:
    def test_doubles_up_to_its_bound(self) -> None:
        assert [choose_wait(retries, spread=1.0) for retries in (0, 1, 2, 10)] == [0.2, 0.4, 0.8, 15.0]
        assert [choose_wait(n, spread=1.0, first=0.05, longest=2.0) for n in (0, 1, 20)] == [0.05, 0.1, 2.0]
        assert choose_wait(0, spread=0.0) == 0.1
        assert choose_wait(99, spread=1.0, longest=600.0) == 15.0  # below Redis' visibility timeout

    def test_is_the_settings_where_they_are_set(self) -> None:
        settings = load_settings(None, fdb_retry_initial_delay_sec=3.0, fdb_retry_max_delay_sec=4.0)
        assert 1.5 <= wait_for(0, settings) <= 3.0
        assert 2.0 <= wait_for(5, settings) <= 4.0
        assert 0.1 <= wait_for(0, load_settings(None)) <= 0.2


class SlowlyOpened(OpenedStore):
    """Opening the store takes more than the time that an execution has (half of the hard limit)."""

    def store(self) -> Store:
        if self._opened is None:
            time.sleep(self.settings.task_time_limit_seconds / 2 + 0.1)
        return super().store()


class TestTriesOfATask:
    @staticmethod
    def count_retries(opened: OpenedStore, one: Batch) -> int:
        """How often a task asks for another try until it ends, which is no failure: the bridge sends again."""
        with make_app(opened.settings) as app:
            task = register_route(app, opened, Meter(), "try.ingest", "ingest", lambda _: None)
            asked, retry = [], task.retry

            def count(**options: Any) -> Any:
                asked.append(options["countdown"])
                return retry(**options)

            task.retry = count
            task.apply((pack_batch(one),)).get()
        opened.close()
        return len(asked)

    def test_end_where_nothing_gets_through(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        settings = load_settings(None, storage_url=f"sqlite:///{tmp_path}/file/store.db")
        assert self.count_retries(OpenedStore(settings), BATCH) == 20

    def test_end_where_the_turn_of_the_batch_does_not_come(self, tmp_path: Path) -> None:
        opened = OpenedStore(load_settings(None, storage_url=f"sqlite:///{tmp_path}/store.db"))
        own(opened.store())
        assert self.count_retries(opened, replace(BATCH, after=5)) == 20

    def test_end_where_somebody_else_is_at_the_record(self, tmp_path: Path) -> None:
        opened = OpenedStore(load_settings(None, storage_url=f"sqlite:///{tmp_path}/store.db"))
        own(opened.store())
        mark(opened.store(), 0, ("theirs", 0), time.time() + 60, 1)
        assert self.count_retries(opened, replace(BATCH, attempt=3)) == 20

    def test_the_time_of_a_try_begins_before_the_store_is_opened(self, tmp_path: Path) -> None:
        url = f"sqlite:///{tmp_path}/store.db"
        settings = load_settings(None, storage_url=url, task_time_limit_seconds=5.0, storage_timeout_seconds=2.0)
        with open_store(url) as store:
            own(store)
            assert self.count_retries(SlowlyOpened(settings), BATCH) == 1
            assert cursor_of(store) == 9

    def test_go_on_while_they_get_something_done(self) -> None:
        assert may_try_again(19, Result())
        assert not may_try_again(20, Result())
        assert may_try_again(500, Result(transactions=1))


def test_the_stock_names_bound_the_bridges_batches() -> None:
    limits = ingest_route(load_settings(None, batch_records=200, linger_ms=100)).limits
    assert (limits.batch_records, limits.linger) == (200, 0.1)
