"""Cascades clear what points to a deleted entity, all of it and nothing else, however often they are interrupted."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from storage.batch import Record
from storage.cascade_steps import CascadeSteps
from storage.cascades import Cascade, CascadeKind, CascadeState
from storage.control import decode_event
from storage.errors import InvalidRecord
from storage.store import Store, assemble_store
from tests.conformance.vectors import dump
from tests.engines import open_kind
from tests.unit.matyan import (
    INDEXES,
    RUNS,
    SYSTEM,
    delete_experiment,
    delete_tag,
    id_of,
    mentions,
    put,
    read,
    relink_as_stock,
    rename_tag,
    send,
)

EXPERIMENT, TAG, PROJECT = CascadeKind.EXPERIMENT, CascadeKind.TAG, CascadeKind.PROJECT


@pytest.fixture(params=["sqlite", "double"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    with assemble_store(open_kind(str(request.param), tmp_path, timeout=5.0)) as opened:
        yield opened


def ask(store: Store, kind: CascadeKind, uuid: str, now: float = 10.0) -> Cascade:
    return store.engine.transact(lambda transaction: store.cascades.ask(transaction, kind, uuid, now))


def get(store: Store, kind: CascadeKind, uuid: str) -> Cascade | None:
    return store.engine.read(lambda transaction: store.cascades.get(transaction, kind, uuid))


def steps_of(store: Store, page: int = 1_000) -> CascadeSteps:
    """Made anew: all that a worker that was killed leaves behind is in the store."""
    return CascadeSteps(store.engine, store.directories, store.cascades, page=page)


def run_to_end(store: Store, kind: CascadeKind, uuid: str, page: int = 1_000) -> tuple[Cascade, int]:
    """The cascade at its end, and the number of steps that it took."""
    for count in range(1, 200):
        entry = steps_of(store, page).advance(kind, uuid, now=20.0, task_id="task")
        assert entry is not None
        assert [entry] == [
            other for other in store.cascades.each(store.engine) if (other.kind, other.uuid) == (kind, uuid)
        ], "the index has exactly the state of the entry"
        if not entry.is_open:
            return entry, count
    pytest.fail("it never ends")


def step_until(store: Store, experiment: str, reached: Callable[[Cascade], bool]) -> None:
    """Take steps of one key each."""
    for _ in range(100):
        entry = steps_of(store, 1).advance(EXPERIMENT, experiment, now=20.0)
        assert entry is not None
        if reached(entry):
            return
    pytest.fail("never reached")


def cascade(store: Store, kind: CascadeKind, uuid: str, page: int = 1_000) -> Cascade:
    ask(store, kind, uuid)
    return run_to_end(store, kind, uuid, page)[0]


def make_experiment(store: Store, name: str, *runs: str) -> str:
    for run in runs:
        send(store, "set_run_property", run, experiment=name)
    return id_of(store, "experiment", name)


def make_tag(store: Store, name: str, *runs: str) -> str:
    for run in runs:
        send(store, "add_tag", run, tag_name=name)
    return id_of(store, "tag", name)


@pytest.mark.parametrize("page", [1, 2, 1_000])
def test_experiment_clears_all_that_points_there(store: Store, page: int) -> None:
    runs = [f"run-{number}" for number in range(5)]
    for run in runs:
        send(store, "create_run", run)
    send(store, "create_run", "bystander")
    kept = make_experiment(store, "kept", "bystander")
    before = dump(store)
    dead = make_experiment(store, "dead", *runs)
    delete_experiment(store, dead)
    put(store, SYSTEM, 0, "experiments", dead, "run_count")  # what a stock worker leaves of a dead experiment
    assert mentions(store, dead)
    entry = cascade(store, EXPERIMENT, dead, page)
    assert (entry.state, entry.changed, entry.error) == (CascadeState.DONE, 5, "")
    assert mentions(store, dead) == []
    after = dump(store)
    for run in runs:
        assert read(store, RUNS, run, "meta", "experiment_id", "__leaf__") is None
        assert mentions(store, "experiment", run) == []
    assert after == before
    assert read(store, SYSTEM, "run_experiment", "bystander") == kept


def test_experiment_finds_runs_that_only_their_list_names(store: Store) -> None:
    send(store, "create_run", "run")
    put(store, SYSTEM, True, "experiment_runs", "dead", "run")
    put(store, SYSTEM, True, "experiment_runs", "dead", "never-known")
    assert cascade(store, EXPERIMENT, "dead").changed == 2
    assert mentions(store, "dead") == []


def test_experiment_finds_runs_that_only_their_meta_names(store: Store) -> None:
    send(store, "create_run", "run")
    put(store, RUNS, "dead", "run", "meta", "experiment_id", "__leaf__")
    assert cascade(store, EXPERIMENT, "dead").changed == 1
    assert read(store, RUNS, "run", "meta", "experiment_id", "__leaf__") is None


@pytest.mark.parametrize("again", ["by a message", "by stock software"])
def test_experiment_leaves_a_newer_one_alone(store: Store, again: str) -> None:
    dead = make_experiment(store, "dead", "run", "other")
    newer = make_experiment(store, "newer", "somebody")
    delete_experiment(store, dead)
    if again == "by a message":
        send(store, "set_run_property", "run", experiment="newer")
    else:
        relink_as_stock(store, "run", newer, "newer")
    assert mentions(store, "experiment", "dead", "run"), "the old entry is still there"
    cascade(store, EXPERIMENT, dead)
    assert mentions(store, dead) == []
    assert mentions(store, "dead") == []
    assert read(store, SYSTEM, "run_experiment", "run") == newer
    assert read(store, SYSTEM, "experiment_runs", newer, "run") is True
    assert read(store, RUNS, "run", "meta", "experiment_id", "__leaf__") == newer
    assert read(store, INDEXES, "experiment", "newer", "run") == b""
    assert read(store, INDEXES, "_rev", "run", "experiment", "newer", "run") == b""


def test_experiment_made_again_under_the_same_name_keeps_its_runs(store: Store) -> None:
    dead = make_experiment(store, "name", "old", "both")
    delete_experiment(store, dead)
    newer = make_experiment(store, "name", "both", "new")
    assert newer != dead
    cascade(store, EXPERIMENT, dead)
    assert mentions(store, dead) == []
    assert [key[2] for where, key in mentions(store, "experiment", "name") if key[0] == "experiment"] == ["both", "new"]
    assert read(store, RUNS, "both", "meta", "experiment_id", "__leaf__") == newer


def test_run_relinked_between_two_steps_is_left_alone(store: Store) -> None:
    dead = make_experiment(store, "dead", "a", "b", "c")
    delete_experiment(store, dead)
    ask(store, EXPERIMENT, dead)
    step_until(store, dead, lambda entry: entry.changed == 1)
    send(store, "set_run_property", "b", experiment="newer")
    run_to_end(store, EXPERIMENT, dead, 1)
    assert mentions(store, dead) == []
    assert read(store, SYSTEM, "run_experiment", "b") == id_of(store, "experiment", "newer")
    assert [key[1] for where, key in mentions(store, "experiment", "b") if key[0] == "experiment"] == ["newer"]


@pytest.mark.parametrize("kind", [EXPERIMENT, TAG])
def test_entity_that_is_there_is_held_and_nothing_touched(store: Store, kind: CascadeKind) -> None:
    make = make_experiment if kind is EXPERIMENT else make_tag
    uuid = make(store, "alive", "run")
    before = dump(store)
    entry = cascade(store, kind, uuid)
    assert entry.state is CascadeState.HELD
    assert "is there" in entry.error
    assert dump(store) == before
    (delete_experiment if kind is EXPERIMENT else delete_tag)(store, uuid)
    requeued = store.engine.transact(lambda transaction: store.cascades.requeue(transaction, kind, uuid, now=30.0))
    assert requeued is not None
    assert (requeued.state, requeued.error) == (CascadeState.PENDING, "")
    assert run_to_end(store, kind, uuid)[0].state is CascadeState.DONE
    assert mentions(store, uuid) == []


@pytest.mark.parametrize("page", [1, 2, 1_000])
def test_tag_clears_all_that_points_there(store: Store, page: int) -> None:
    for run in ("a", "b", "c"):
        send(store, "create_run", run)
    kept = make_tag(store, "kept", "b", "c")
    before = dump(store)
    dead = make_tag(store, "dead", "a", "b")
    delete_tag(store, dead)
    assert mentions(store, dead), "the runs' own keys are left"
    entry = cascade(store, TAG, dead, page)
    assert (entry.state, entry.changed) == (CascadeState.DONE, 2)
    assert dump(store) == before
    assert read(store, RUNS, "b", "tags", kept) is True


def test_tag_finds_runs_by_each_link_alone(store: Store) -> None:
    put(store, SYSTEM, True, "tag_runs", "dead", "a")
    put(store, SYSTEM, True, "run_tags", "b", "dead")
    put(store, SYSTEM, True, "run_tags", "b", "other")
    assert cascade(store, TAG, "dead").changed == 2
    assert mentions(store, "dead") == []
    assert read(store, SYSTEM, "run_tags", "b", "other") is True


def test_tag_renamed_before_it_was_deleted_leaves_no_entry(store: Store) -> None:
    kept = make_tag(store, "kept", "run")
    dead = make_tag(store, "before", "run", "other")
    rename_tag(store, dead, "after")
    delete_tag(store, dead)
    assert mentions(store, "tag", "before"), "the API looks for entries of the present name"
    make_tag(store, "before", "third")  # somebody uses the name again
    cascade(store, TAG, dead)
    assert [key[2] for _, key in mentions(store, "tag", "before") if key[0] == "tag"] == ["third"]
    assert read(store, INDEXES, "tag", "kept", "run") == b""
    assert read(store, SYSTEM, "run_tags", "run", kept) is True


def test_entry_that_may_be_of_a_renamed_living_tag_is_kept(store: Store) -> None:
    living = make_tag(store, "before", "run")
    rename_tag(store, living, "after")
    dead = make_tag(store, "dead", "run")
    delete_tag(store, dead)
    cascade(store, TAG, dead)
    assert mentions(store, dead) == []
    assert read(store, INDEXES, "tag", "before", "run") == b""


def test_project_is_recorded_and_held_for_a_person(store: Store) -> None:
    entry = ask(store, PROJECT, "0123abcd")
    assert entry.state is CascadeState.HELD
    assert "by hand" in entry.error
    assert steps_of(store).advance(PROJECT, "0123abcd", now=20.0) == entry
    requeued = store.engine.transact(lambda tx: store.cascades.requeue(tx, PROJECT, "0123abcd", now=30.0))
    assert requeued == entry
    assert store.engine.transact(lambda tx: store.cascades.purge(tx, PROJECT, "0123abcd"))
    assert list(store.cascades.each(store.engine)) == []
    assert not store.engine.transact(lambda tx: store.cascades.purge(tx, PROJECT, "0123abcd"))


def test_asked_again_begins_anew(store: Store) -> None:
    dead = make_experiment(store, "dead", "a")
    delete_experiment(store, dead)
    first = cascade(store, EXPERIMENT, dead)
    put(store, SYSTEM, True, "experiment_runs", dead, "late")
    again = ask(store, EXPERIMENT, dead, now=40.0)
    assert (again.round, again.state, again.created, again.changed) == (2, CascadeState.PENDING, first.created, 1)
    assert run_to_end(store, EXPERIMENT, dead)[0].changed == 2
    assert mentions(store, dead) == []


def test_asked_again_in_the_middle_begins_anew(store: Store) -> None:
    dead = make_experiment(store, "dead", "a", "b", "c")
    delete_experiment(store, dead)
    ask(store, EXPERIMENT, dead)
    step_until(store, dead, lambda entry: entry.walk == 3)
    put(store, SYSTEM, True, "experiment_runs", dead, "a")  # behind the walk
    ask(store, EXPERIMENT, dead)
    run_to_end(store, EXPERIMENT, dead, 1)
    assert mentions(store, dead) == []


def test_two_workers_do_each_step_once(store: Store) -> None:
    dead = make_experiment(store, "dead", *[f"run-{number}" for number in range(6)])
    delete_experiment(store, dead)
    ask(store, EXPERIMENT, dead)
    one, other = steps_of(store, 2), steps_of(store, 2)
    seen = one._look
    racing: list[Cascade | None] = []

    def look_and_lose(*given: object) -> object:
        """The other worker does the same step between our look and our transaction."""
        found = seen(*given)  # type: ignore[arg-type]
        if len(racing) < 3:
            racing.append(other.advance(EXPERIMENT, dead, now=20.0))
        return found

    one._look = look_and_lose  # type: ignore[assignment,method-assign]
    entry: Cascade | None = None
    for _ in range(3):
        entry = one.advance(EXPERIMENT, dead, now=20.0)
        assert entry == racing[-1], "the step was done already"
    last, _ = run_to_end(store, EXPERIMENT, dead)
    assert last.changed == 6
    assert mentions(store, dead) == []


def test_failed_steps_end_as_failed_and_can_be_requeued(store: Store) -> None:
    ask(store, TAG, "dead")

    def fail(entry: Cascade, now: float) -> Cascade | None:
        return store.engine.transact(
            lambda transaction: store.cascades.fail(transaction, entry, error="broken", tries=2, due=now + 5, now=now)
        )

    once = fail(ask(store, TAG, "dead"), 20.0)
    assert once is not None
    assert (once.state, once.attempts, once.due) == (CascadeState.PENDING, 1, 25.0)
    assert fail(ask(store, TAG, "dead"), 20.0) is not None, "each round has its own tries"
    second = get(store, TAG, "dead")
    assert second is not None
    assert fail(once, 21.0) is None, "of an earlier round"
    last = fail(second, 22.0)
    assert last is not None
    assert (last.state, last.error) == (CascadeState.FAILED, "broken")
    assert store.cascades.count(store.engine)[CascadeState.FAILED] == 1
    store.engine.transact(lambda transaction: store.cascades.requeue(transaction, TAG, "dead", now=30.0))
    assert run_to_end(store, TAG, "dead")[0].state is CascadeState.DONE


@pytest.mark.parametrize("uuid", ["", "x" * 1_001])
def test_what_is_no_id_is_refused(store: Store, uuid: str) -> None:
    with pytest.raises(InvalidRecord, match="no id of a tag"):
        ask(store, TAG, uuid)


def test_control_event_asks(store: Store) -> None:
    dead = make_experiment(store, "dead", "run")
    delete_experiment(store, dead)
    for kind, name in (("experiment", dead), ("tag", "t"), ("project", "p")):
        event = {"type": f"{kind}_deleted", "timestamp": "2026-01-01T00:00:00Z", "payload": {f"{kind}_id": name}}
        envelope = decode_event(Record(0, 0, None, json.dumps(event).encode()))
        outcomes = store.engine.transact(
            lambda transaction: store.control.begin(transaction, [envelope]).finish()  # noqa: B023 - run at once
        )
        assert [outcome.kind for outcome in outcomes] == ["applied"]
    assert [(entry.kind, entry.state) for entry in store.cascades.each(store.engine)] == [
        (EXPERIMENT, CascadeState.PENDING),
        (TAG, CascadeState.PENDING),
        (PROJECT, CascadeState.HELD),
    ]
    run_to_end(store, EXPERIMENT, dead)
    assert mentions(store, dead) == []


def test_never_asked_for(store: Store) -> None:
    assert get(store, TAG, "x") is None
    assert steps_of(store).advance(TAG, "x", now=1.0) is None


def test_lists_any_number_in_pages(store: Store) -> None:
    for number in range(25):
        ask(store, TAG, f"tag-{number:02}")
        ask(store, PROJECT, f"project-{number:02}")
    listed = [entry.uuid for entry in store.cascades.each(store.engine, states=[CascadeState.PENDING], page=4)]
    assert listed == [f"tag-{number:02}" for number in range(25)]
    assert store.cascades.count(store.engine) == {
        CascadeState.PENDING: 25,
        CascadeState.HELD: 25,
        CascadeState.DONE: 0,
        CascadeState.FAILED: 0,
        CascadeState.RUNNING: 0,
    }


def test_long_run_ids_do_no_harm(store: Store) -> None:
    run = "r" * 9_950  # its links fit, its reverse index range does not
    put(store, SYSTEM, "dead", "run_experiment", run)
    put(store, SYSTEM, True, "run_tags", run, "tag")
    assert cascade(store, EXPERIMENT, "dead").changed == 1
    assert cascade(store, TAG, "tag").changed == 1
    assert mentions(store, run) == []
