"""Metrics: what is declared, what an execution counts as, and sums over a worker's children."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest, values
from prometheus_client.parser import text_string_to_metric_families

from storage.apply import BatchApplier
from storage.cleaner import Cleaned
from storage.cleanup import Cleanup, CleanupState
from storage.meaning import CONTROL, INGEST
from storage.result import Result, State
from storage.store import assemble_store, open_store
from tasks.beat import show_ledgers
from tasks.children import VARIABLE, ChildMetrics, prepare_folder
from tasks.counting import count_batch, count_cleanup
from tasks.meter import Meter, Retries
from tasks.metrics import (
    CLEANUPS,
    INGESTION_BATCH_SIZE,
    INGESTION_CONSUMED,
    INGESTION_PROCESSED,
    LAG_RECORDS,
    METRICS,
    Kind,
    Role,
    metrics_of,
)
from tests.engines import open_kind
from tests.unit.test_apply import batch, message, metric, own

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
MESSAGES = {  # of the stock producers
    "create_run",
    "finish_run",
    "delete_run",
    "log_metric",
    "log_custom_object",
    "log_hparams",
    "log_terminal_line",
    "log_record",
    "blob_ref",
    "set_run_property",
    "add_tag",
    "remove_tag",
}
EVENTS = {"run_deleted", "run_archived", "run_unarchived", "experiment_deleted", "tag_deleted", "project_deleted"}
STOCK = {  # CONTRACT 8.2
    "matyan_ingestion_messages_consumed_total": (Kind.COUNTER, (), ()),
    "matyan_ingestion_messages_processed_total": (Kind.COUNTER, ("message_type",), ()),
    "matyan_ingestion_processing_errors_total": (Kind.COUNTER, ("error_type",), ()),
    "matyan_ingestion_batch_size": (Kind.HISTOGRAM, (), (1, 5, 10, 25, 50, 100, 200, 500)),
    "matyan_ingestion_batch_processing_seconds": (Kind.HISTOGRAM, (), SECONDS),
    "matyan_ingestion_txn_estimated_bytes": (Kind.HISTOGRAM, (), (1e5, 5e5, 1e6, 2e6, 4e6, 8e6, 1e7)),
    "matyan_ingestion_fdb_retries_total": (Kind.COUNTER, (), ()),
    "matyan_control_events_consumed_total": (Kind.COUNTER, (), ()),
    "matyan_control_events_processed_total": (Kind.COUNTER, ("event_type",), ()),
    "matyan_control_processing_errors_total": (Kind.COUNTER, ("error_type",), ()),
    "matyan_control_processing_duration_seconds": (Kind.HISTOGRAM, (), SECONDS),
}
CHILD = """
import os, sys
from tasks.meter import Meter
from tasks.metrics import INGESTION_BATCH_SIZE, INGESTION_PROCESSED, Role
meter = Meter()
meter.begin(Role.WORKER)
meter.count(INGESTION_PROCESSED, 3, "log_metric")
meter.observe(INGESTION_BATCH_SIZE, 7)
open(os.environ["PROMETHEUS_MULTIPROC_DIR"] + f"/gauge_liveall_{os.getpid()}.db", "wb").close()
print("counted", flush=True)
sys.stdin.read()
"""


def read(*collectors: object) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    registry = CollectorRegistry()
    for collector in collectors:
        registry.register(collector)  # type: ignore[arg-type]
    families = text_string_to_metric_families(generate_latest(registry).decode())
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
        if not sample.name.endswith("_created")
    }


def worker_meter() -> Meter:
    meter = Meter()
    meter.begin(Role.WORKER)
    return meter


def counts(meter: Meter) -> dict[tuple[str, str], float]:
    """Counters above 0, by name and label values."""
    return {
        (name, ",".join(value for _, value in labels)): value
        for (name, labels), value in read(meter.registry).items()
        if value and name.endswith("_total")
    }


class TestDeclarations:
    def test_the_stock_eleven_are_as_they_are(self) -> None:
        ours = {m.name: (m.kind, m.labels, m.buckets) for m in METRICS}
        assert {name: ours.get(name) for name in STOCK} == STOCK

    def test_names_are_unique_and_tell_the_kind(self) -> None:
        assert Counter(m.name for m in METRICS).most_common(1)[0][1] == 1
        for m in METRICS:
            assert m.name.endswith("_total") == (m.kind is Kind.COUNTER)
            assert m.meaning.endswith(".")
            assert bool(m.buckets) == (m.kind is Kind.HISTOGRAM)

    def test_every_counter_of_a_role_is_there_from_the_start(self) -> None:
        families = {family.name for family in worker_meter().registry.collect()}
        wanted = {m.name.removesuffix("_total") for m in metrics_of(Role.WORKER) if m.kind is not Kind.GAUGE}
        assert wanted <= families
        assert INGESTION_CONSUMED.name.removesuffix("_total") not in families  # the bridge's


class TestMeter:
    def test_shows_gauges_as_a_whole(self) -> None:
        meter = Meter()
        meter.show(LAG_RECORDS, {("a", "0"): 5, ("a", "1"): 6}, owner="a")
        meter.show(LAG_RECORDS, {("b", "0"): 7}, owner="b")
        meter.show(LAG_RECORDS, {("a", "1"): 8}, owner="a")
        shown = {tuple(value for _, value in labels): value for (_, labels), value in read(meter).items()}
        assert shown == {("1", "a"): 8, ("0", "b"): 7}

    def test_counts_nothing_before_it_has_begun(self) -> None:
        meter = Meter()
        meter.count(INGESTION_PROCESSED, 1, "log_metric")
        meter.begin(Role.WORKER)
        meter.begin(Role.WORKER)
        assert counts(meter) == {}

    def test_retries_are_each_threads_own(self) -> None:
        noted: list[int] = []
        retries = Retries(lambda: noted.append(1))
        retries.add()
        retries.add()
        assert (retries.mine(), len(noted)) == (2, 2)


class TestCounting:
    BATCH = batch(metric(1), metric(2), metric(3))

    def count(self, result: Result, *, route: str = INGEST, failure: str = "") -> Meter:
        meter = worker_meter()
        count_batch(meter, route, self.BATCH, result, seconds=0.6, retries=2, failure=failure)
        return meter

    def test_an_ingestion_batch(self) -> None:
        result = Result(
            applied=Counter(log_metric=5, add_tag=1),
            dropped=Counter(log_metric=2),
            dead=Counter(invalid=2, bug=1, unknown_type=4),
            transactions=2,
            sizes=[200_000, 10],
            splits=1,
        )
        meter = self.count(result)
        assert counts(meter) == {
            ("matyan_ingestion_messages_processed_total", "log_metric"): 7,
            ("matyan_ingestion_messages_processed_total", "add_tag"): 1,
            ("matyan_ingestion_messages_processed_total", "unknown"): 4,
            ("matyan_ingestion_processing_errors_total", "validation"): 2,
            ("matyan_ingestion_processing_errors_total", "unknown"): 1,
            ("matyan_ingestion_processing_errors_total", "txn_too_large_split"): 1,
            ("matyan_ingestion_fdb_retries_total", ""): 2,
            ("matyan_tasks_batches_total", "applied,data-ingestion"): 1,
            ("matyan_dead_letters_total", "invalid,data-ingestion"): 2,
            ("matyan_dead_letters_total", "bug,data-ingestion"): 1,
            ("matyan_dead_letters_total", "unknown_type,data-ingestion"): 4,
        }
        all_of_it = read(meter.registry)
        assert all_of_it["matyan_ingestion_batch_size_sum", ()] == 3
        assert all_of_it["matyan_ingestion_txn_estimated_bytes_count", ()] == 2
        assert all_of_it["matyan_ingestion_txn_estimated_bytes_sum", ()] == 200_010
        assert all_of_it["matyan_ingestion_batch_processing_seconds_sum", ()] == 0.6

    @pytest.mark.parametrize("kind", ["log_metrics_v2", "no such type\n", ""])
    def test_late_records_of_unknown_types_make_no_labels_of_their_own(self, kind: str, tmp_path: Path) -> None:
        """A deleted run's records are dropped before anybody looks at their type."""
        with assemble_store(open_kind("sqlite", tmp_path)) as store:
            own(store)
            records = batch(message("delete_run", {}), message(kind, {}), metric(1))
            result = BatchApplier(store.engine, store.ledger, store.applier).apply(records)
        found = counts(self.count(result))
        processed = {label: count for (name, label), count in found.items() if name == INGESTION_PROCESSED.name}
        assert processed == {"delete_run": 1, "unknown": 1, "log_metric": 1}

    @pytest.mark.parametrize(("route", "types"), [(INGEST, MESSAGES), (CONTROL, EVENTS)])
    def test_every_known_type_has_its_label(self, route: str, types: set[str]) -> None:
        found = counts(self.count(Result(applied=Counter(types)), route=route))
        assert {label for name, label in found if "processed" in name} == types

    def test_what_the_store_ended_counts_what_was_committed(self) -> None:
        meter = self.count(Result(applied=Counter(log_metric=1), transactions=1, sizes=[316]), failure="fdb")
        assert counts(meter) == {
            ("matyan_ingestion_messages_processed_total", "log_metric"): 1,
            ("matyan_ingestion_processing_errors_total", "fdb"): 1,
            ("matyan_ingestion_fdb_retries_total", ""): 2,
        }
        assert read(meter.registry)["matyan_ingestion_batch_size_count", ()] == 0

    @pytest.mark.parametrize("state", [State.DUPLICATE, State.EARLY, State.SUPERSEDED, State.UNFINISHED])
    def test_an_execution_that_did_nothing_is_no_batch(self, state: State) -> None:
        meter = self.count(Result(state=state))
        assert counts(meter).pop(("matyan_tasks_batches_total", f"{state.value},data-ingestion")) == 1
        assert read(meter.registry)["matyan_ingestion_batch_size_count", ()] == 0

    def test_control_events(self) -> None:
        meter = self.count(Result(applied=Counter(run_deleted=2), dead=Counter(unknown_type=1)), route=CONTROL)
        assert counts(meter) == {
            ("matyan_control_events_processed_total", "run_deleted"): 2,
            ("matyan_control_events_processed_total", "unknown"): 1,
            ("matyan_tasks_batches_total", "applied,data-ingestion"): 1,
            ("matyan_dead_letters_total", "unknown_type,data-ingestion"): 1,
        }
        all_of_it = read(meter.registry)
        assert all_of_it["matyan_control_processing_duration_seconds_count", ()] == 3
        assert all_of_it["matyan_control_processing_duration_seconds_sum", ()] == pytest.approx(0.6)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(VARIABLE, "restored")
    monkeypatch.setattr(values, "ValueClass", values.ValueClass)
    return prepare_folder(tmp_path / "workers")


class TestChildren:
    def start(self) -> subprocess.Popen[str]:
        child = subprocess.Popen(
            [sys.executable, "-c", CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert child.stdout is not None
        assert child.stdout.readline() == "counted\n"
        return child

    def end(self, child: subprocess.Popen[str], number: int) -> None:
        child.send_signal(number)
        child.communicate()

    def test_counts_outlive_a_killed_child_and_gauges_do_not(self, folder: Path) -> None:
        first, second = self.start(), self.start()
        self.end(first, signal.SIGKILL)
        got = read(ChildMetrics(folder))
        assert got["matyan_ingestion_messages_processed_total", (("message_type", "log_metric"),)] == 6
        assert got["matyan_ingestion_batch_size_count", ()] == 2
        assert got["matyan_ingestion_batch_size_bucket", (("le", "10.0"),)] == 2
        (folder / f"gauge_liveall_{second.pid}.db").write_bytes(b"x")  # the living one's stays
        (folder / f"gauge_liveall_{first.pid}.db").write_bytes(b"x")
        ChildMetrics(folder)._bury()
        assert [file.name for file in folder.glob("gauge*")] == [f"gauge_liveall_{second.pid}.db"]
        self.end(second, signal.SIGTERM)

    def test_files_of_many_dead_children_become_one(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("tasks.children._MERGE_AT", 2)
        collector = ChildMetrics(folder)
        for count in (1, 2, 3):
            self.end(self.start(), signal.SIGKILL)
            before = read(collector)
            assert before["matyan_ingestion_messages_processed_total", (("message_type", "log_metric"),)] == 3 * count
            assert before["matyan_ingestion_batch_size_bucket", (("le", "+Inf"),)] == count
            assert before["matyan_ingestion_batch_size_sum", ()] == 7 * count
        names = {file.name for file in folder.glob("counter_*")}
        assert "counter_all.db" in names
        assert len(names) == 2  # and the third child's
        assert read(collector) == before

    def test_a_new_worker_clears_what_dead_ones_have_left(self, tmp_path: Path, folder: Path) -> None:
        left = tmp_path / "workers" / "999999999"
        left.mkdir()
        (folder / "counter_1.db").write_bytes(b"old")
        alive = tmp_path / "workers" / str(os.getppid())
        alive.mkdir()
        assert prepare_folder(tmp_path / "workers") == folder
        assert (left.exists(), alive.exists(), list(folder.iterdir())) == (False, True, [])


def test_the_beat_shows_what_the_store_holds() -> None:
    assert CLEANUPS.roles == (Role.BEAT,)
    assert INGESTION_BATCH_SIZE.roles == (Role.WORKER, Role.CLEANER, Role.JOBS)


def test_the_beat_shows_cascades_by_state(tmp_path: Path) -> None:
    meter = Meter()
    meter.begin(Role.BEAT)
    with open_store(f"sqlite:///{tmp_path / 'store.db'}") as store:
        for kind, uuid in (("project", "p"), ("tag", "t"), ("experiment", "e")):
            store.engine.transact(partial(store.cascades.ask, kind=kind, uuid=uuid, now=1.0))
        show_ledgers(store, meter)
    shown = {labels: value for (name, labels), value in read(meter).items() if name == "matyan_cascades"}
    assert shown == {
        (("state", "pending"),): 2,
        (("state", "running"),): 0,
        (("state", "failed"),): 0,
        (("state", "held"),): 1,
    }


class TestCleanups:
    ENTRY = Cleanup("run", CleanupState.PENDING, "event", 1.0, 1.0, 1.0)

    def count(self, cleaned: Cleaned) -> dict[tuple[str, str], float]:
        meter = worker_meter()
        count_cleanup(meter, cleaned)
        return counts(meter)

    def test_what_was_deleted_counts_and_an_end_by_its_state(self) -> None:
        done = replace(self.ENTRY, state=CleanupState.DONE)
        assert self.count(Cleaned(done, worked=True, again=None, objects=3, bytes=30)) == {
            ("matyan_blobs_deleted_total", ""): 3,
            ("matyan_blob_bytes_deleted_total", ""): 30,
            ("matyan_cleanups_finished_total", "done"): 1,
        }
        assert self.count(Cleaned(done, worked=False, again=None)) == {}
        assert self.count(Cleaned(self.ENTRY, worked=True, again=0.0)) == {}  # gave way, goes on

    def test_a_try_that_failed_is_an_error_of_the_blob_store(self) -> None:
        again = replace(self.ENTRY, error="SlowDown")
        failed = replace(again, state=CleanupState.FAILED)
        error = ("matyan_control_processing_errors_total", "blob_storage")
        assert self.count(Cleaned(again, worked=True, again=1.0)) == {error: 1}
        assert self.count(Cleaned(failed, worked=True, again=None)) == {
            error: 1,
            ("matyan_cleanups_finished_total", "failed"): 1,
        }
