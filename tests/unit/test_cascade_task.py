"""The cascade task: goes on as another task when its time is up, and writes down what cannot be done."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from celery import Celery, Task

from storage.cascades import Cascade, CascadeKind, CascadeState
from storage.store import Store, open_store
from tasks.app import make_app
from tasks.cascade import register_cascade
from tasks.opened import OpenedStore
from tasks.settings import Settings, load_settings
from tests.unit.matyan import INDEXES, RUNS, SYSTEM, delete_experiment, id_of, mentions, put, send


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    return load_settings(None, storage_url=f"sqlite:///{tmp_path / 'store.db'}", cleanup_slice_seconds=0.000_001)


@pytest.fixture
def store(settings: Settings) -> Iterator[Store]:
    with open_store(settings.storage_url) as opened:
        yield opened


@pytest.fixture
def sent() -> list[tuple[str, tuple[str, ...]]]:
    return []


@pytest.fixture
def task(settings: Settings, sent: list[tuple[str, tuple[str, ...]]]) -> Iterator[Task]:
    app: Celery = make_app(settings)
    app.send_task = lambda name, args, **_: sent.append((name, args))
    opened = OpenedStore(settings)
    yield register_cascade(app, opened, settings)
    opened.close()


def ask(store: Store, uuid: str) -> None:
    store.engine.transact(lambda transaction: store.cascades.ask(transaction, "experiment", uuid, 10.0))


def entry_of(store: Store, uuid: str) -> Cascade:
    found = store.engine.read(lambda transaction: store.cascades.get(transaction, CascadeKind.EXPERIMENT, uuid))
    assert found is not None
    return found


def test_goes_on_as_another_task_until_it_is_done(
    store: Store, task: Task, sent: list[tuple[str, tuple[str, ...]]]
) -> None:
    send(store, "set_run_property", "run", experiment="dead")
    dead = id_of(store, "experiment", "dead")
    delete_experiment(store, dead)
    ask(store, dead)
    task("experiment", dead)
    for _ in range(10):
        if not sent:
            break
        name, arguments = sent.pop()
        assert (name, arguments) == ("matyan.cascade", ("experiment", dead))
        task(*arguments)
    assert entry_of(store, dead).state is CascadeState.DONE
    assert mentions(store, dead) == []
    task("experiment", dead)
    assert sent == [], "a task that comes twice does nothing"


def test_what_cannot_be_read_is_failed_after_some_tries(store: Store, task: Task) -> None:
    send(store, "create_run", "run")
    put(store, RUNS, "dead", "run", "meta", "experiment_id", "__leaf__")
    put(store, SYSTEM, b"\xc1", "run_experiment", "run")
    put(store, INDEXES, b"", "_rev", "run", "experiment", "name", "run")
    ask(store, "dead")
    tries = 0
    while entry_of(store, "dead").is_open and tries < 20:
        tries += 1
        try:
            task("experiment", "dead")
        except ValueError:  # called by hand, a retry is the error itself
            continue
    entry = entry_of(store, "dead")
    assert (entry.state, entry.attempts) == (CascadeState.FAILED, 5)
    assert "FormatError" in entry.error
    put(store, SYSTEM, "other", "run_experiment", "run")
    store.engine.transact(
        lambda transaction: store.cascades.requeue(transaction, CascadeKind.EXPERIMENT, "dead", now=20.0)
    )
    for _ in range(10):
        task("experiment", "dead")
    assert entry_of(store, "dead").state is CascadeState.DONE
    assert mentions(store, "dead") == []


def test_never_asked_for_is_no_error(task: Task) -> None:
    task("tag", "nothing")
