"""Requeueing by command and by task: the same code, safe twice, honest about what became of it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from click.testing import CliRunner, Result
from redis import Redis

from demo.servers.redis import RedisServer
from matyan_celery.__main__ import cli
from storage.batch import Epoch, Record, Source
from storage.choices import CleanupChoice, LetterChoice
from storage.cleanups import CleanupState
from storage.dead_letters import DeadLetter
from storage.ledger import Owner
from storage.meaning import CONTROL, INGEST
from storage.store import Store, open_store
from tasks.app import make_app
from tasks.opened import OpenedStore
from tasks.queues import (
    CLEANUP_QUEUE,
    JOBS_QUEUE,
    REQUEUE_CLEANUP_TASK,
    REQUEUE_DEAD_LETTER_TASK,
    REQUEUE_MANY_TASK,
    REQUEUE_TASKS,
)
from tasks.requeue import Requeuer
from tasks.requeue_tasks import read_choice, register_requeues
from tasks.settings import Settings, load_settings

SOURCE = Source("cluster", "data-ingestion", "topic-1", 2)
CONTROL_SOURCE = Source("cluster", "control-events", "topic-2", 0)
NOW = "2026-01-01T00:00:00Z"


pytestmark = pytest.mark.integration


@pytest.fixture
def settings(tmp_path: Path, redis: RedisServer) -> Settings:
    return load_settings(None, storage_url=f"sqlite:///{tmp_path / 'store.db'}", redis_url=redis.url)


def sent(redis: RedisServer, queue: str) -> int:
    """How many tasks wait in a queue."""
    with Redis.from_url(redis.url) as client:
        return int(client.llen(queue))


@pytest.fixture
def store(settings: Settings) -> Iterator[Store]:
    with open_store(settings.storage_url) as opened:
        yield opened


@pytest.fixture
def app(settings: Settings) -> Iterator[Celery]:
    opened = OpenedStore(settings)
    with make_app(settings) as made:
        register_requeues(made, opened, settings)
        yield made
    opened.close()


@pytest.fixture
def run(settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STORAGE_URL", settings.storage_url)
    monkeypatch.setenv("REDIS_URL", settings.redis_url)

    def command(*arguments: str, code: int = 0) -> Result:
        result = CliRunner().invoke(cli, ["cleanups", *arguments])
        assert result.exit_code == code, result.output
        return result

    return command


def fail(store: Store, *runs: str, error: str = "AccessDenied") -> None:
    def work(transaction: Any) -> None:
        for name in runs:
            store.cleanups.ask(transaction, name, source="event", now=1.0)
            store.cleanups.begin(transaction, name, task_id="t-1", token="token", now=1.0, lease=9.0)
            store.cleanups.fail(transaction, name, token="token", error=error, tries=1, due=2.0, now=2.0)

    store.engine.transact(work)


def hold(store: Store, *runs: str) -> None:
    fail(store, *runs)
    for name in runs:
        store.engine.transact(lambda transaction: store.cleanups.hold(transaction, name, reason="it lives", now=3.0))  # noqa: B023


def live(store: Store, name: str) -> None:
    """Held by a worker."""

    def work(transaction: Any) -> None:
        store.cleanups.ask(transaction, name, source="event", now=1.0)
        store.cleanups.begin(transaction, name, task_id="t-1", token="token", now=1.0, lease=9.0)
        store.cleanups.hold(transaction, name, reason="it lives", token="token", now=3.0)

    store.engine.transact(work)


def states(store: Store) -> dict[str, str]:
    return {entry.run: str(entry.state) for entry in store.cleanups.each(store.engine)}


def keep(store: Store, offset: int, value: object, *, source: Source = SOURCE, route: str = INGEST) -> DeadLetter:
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    letter = DeadLetter(source, 0, offset, "bug", "boom", 1.0, "a" * 32, "finish_run", len(data), 0, route)

    def work(transaction: Any) -> None:
        store.ledger.write_owner(transaction, source, Owner(Epoch(1, "e"), "group", 1))
        store.dead_letters.keep(transaction, letter, Record(offset, 0, None, data))

    store.engine.transact(work)
    return letter


def finish(name: str = "a" * 32) -> dict[str, Any]:
    return {"type": "finish_run", "run_id": name, "timestamp": NOW, "payload": {}}


def offsets(store: Store) -> list[int]:
    return [letter.offset for letter in store.dead_letters.each(store.engine)]


class TestCommand:
    def test_lists_what_is_not_done(self, run: Any, store: Store) -> None:
        assert run("list").output == "no cleanups\n"
        fail(store, "run-a", "run-b")
        hold(store, "run-c")
        store.engine.transact(lambda transaction: store.cleanups.ask(transaction, "run-d", source="orphans", now=1.0))
        lines = run("list").output.splitlines()
        assert [line.split()[:2] for line in lines[1:-1]] == [
            ["run-a", "failed"],
            ["run-b", "failed"],
            ["run-c", "held"],
            ["run-d", "pending"],
        ]
        assert lines[-1] == "4 cleanups: 2 failed, 1 held, 1 pending"
        found = [
            json.loads(line)
            for line in run("list", "--state", "failed", "--run", "run-b", "--json").output.splitlines()
        ]
        assert [(entry["run"], entry["state"], entry["error"]) for entry in found] == [
            ("run-b", "failed", "AccessDenied")
        ]

    def test_shows_the_error_in_full(self, run: Any, store: Store) -> None:
        fail(store, "run-a", error="first line\nsecond \x1b[31mline")
        shown = run("show").output
        assert "first line\n            second \\x1b[31mline" in shown
        run("show", "--run", "nobody", code=1)

    def test_requeues_by_run_by_state_and_all(self, run: Any, store: Store, redis: RedisServer) -> None:
        fail(store, "run-a", "run-b", "run-c")
        hold(store, "run-d")
        run("requeue", code=2)
        run("requeue", "--all", "--run", "run-a", code=2)
        assert run("requeue", "--run", "run-a").output == "run-a: requeued\n1 requeued\n"
        assert sent(redis, CLEANUP_QUEUE) == 1
        assert states(store) == {"run-a": "pending", "run-b": "failed", "run-c": "failed", "run-d": "held"}
        assert "there is no cleanup" in run("requeue", "--run", "nobody", code=1).output
        assert run("requeue", "--run", "run-b", "--state", "held").output == "no cleanup passes these\n"
        assert "1 requeued" in run("requeue", "--state", "failed", "--run", "run-b").output
        assert "1 left as held by a person, 1 requeued" in run("requeue", "--all").output
        run("requeue", "--run", "run-d")
        assert set(states(store).values()) == {"pending"}
        assert sent(redis, CLEANUP_QUEUE) == 4

    def test_what_a_person_holds_is_reopened_by_its_name_alone(
        self, run: Any, store: Store, redis: RedisServer
    ) -> None:
        fail(store, "run-a")
        run("hold", "--run", "run-a", "--reason", "legal asked")
        for choice in (("--all",), ("--state", "held")):
            left = run("requeue", *choice).output
            assert left.startswith("run-a: left: a person holds it")
            assert left.endswith("\n1 left as held by a person\n")
        assert (states(store), sent(redis, CLEANUP_QUEUE)) == ({"run-a": "held"}, 0)
        run("requeue", "--run", "run-a")
        assert (states(store), sent(redis, CLEANUP_QUEUE)) == ({"run-a": "pending"}, 1)

    def test_forces_by_name_alone(self, run: Any, store: Store) -> None:
        hold(store, "run-a", "run-b")
        run("requeue", "--force", "run-a", "--all", code=2)
        run("requeue", "--force", "run-a")
        forced = {entry.run: (str(entry.state), entry.forced) for entry in store.cleanups.each(store.engine)}
        assert forced == {"run-a": ("pending", True), "run-b": ("held", False)}

    def test_holds_until_a_person_requeues(self, run: Any, store: Store) -> None:
        fail(store, "run-a", "run-b")
        run("hold", "--reason", "why", code=2)
        run("hold", "--run", "run-a", code=2)
        run("hold", "--run", "run-a", "--run", "nobody", "--reason", "legal asked", code=1)
        assert states(store) == {"run-a": "held", "run-b": "failed"}
        store.engine.transact(lambda transaction: store.cleanups.ask(transaction, "run-a", source="event", now=4.0))
        assert states(store)["run-a"] == "held"
        assert "legal asked" in run("list", "--state", "held").output

    def test_forgets(self, run: Any, store: Store) -> None:
        fail(store, "run-a", "run-b")
        hold(store, "run-c")
        run("purge", code=2)
        assert run("purge", "--state", "failed").output == "2 forgotten\n"
        assert states(store) == {"run-c": "held"}
        assert run("purge", "--all").output == "1 forgotten\n"
        assert states(store) == {}

    def test_says_that_there_is_no_store(self, run: Any) -> None:
        assert "there is no store at" in run("list", "--store", "sqlite:///nowhere.db", code=1).output


class TestTasks:
    def call(self, app: Celery, name: str, *arguments: Any) -> Any:
        return app.tasks[name].apply(args=arguments).get(propagate=True)

    def test_they_go_to_the_queue_of_jobs(self, app: Celery) -> None:
        for name in REQUEUE_TASKS:
            assert app.amqp.router.route({}, name)["queue"].name == JOBS_QUEUE

    def test_a_cleanup(self, app: Celery, store: Store) -> None:
        hold(store, "run-a")
        assert "run-a: requeued" in self.call(app, REQUEUE_CLEANUP_TASK, "run-a", True)
        assert states(store) == {"run-a": "pending"}
        assert "there is no cleanup" in self.call(app, REQUEUE_CLEANUP_TASK, "nobody")

    def test_a_dead_letter_once(self, app: Celery, store: Store) -> None:
        keep(store, 5, finish())
        place = ("data-ingestion", 2, 5)
        assert self.call(app, REQUEUE_DEAD_LETTER_TASK, *place) == "data-ingestion[2] offset 5: applied (finish_run)"
        assert "no such dead letter" in self.call(app, REQUEUE_DEAD_LETTER_TASK, *place)
        assert offsets(store) == []

    def test_a_control_letter_asks_for_its_cleanup(self, app: Celery, store: Store) -> None:
        event = {"type": "run_deleted", "timestamp": NOW, "payload": {"run_id": "run-a"}}
        keep(store, 1, event, source=CONTROL_SOURCE, route=CONTROL)
        assert "applied" in self.call(app, REQUEUE_DEAD_LETTER_TASK, "control-events", 0, 1)
        assert states(store) == {"run-a": "pending"}

    @pytest.mark.parametrize("arguments", [(1,), ("run", "yes"), ("run", 1), ([],)])
    def test_wrong_arguments_of_a_cleanup_are_named(self, app: Celery, arguments: tuple[Any, ...]) -> None:
        with pytest.raises(TypeError, match=r"give (str|bool), not"):
            self.call(app, REQUEUE_CLEANUP_TASK, *arguments)

    @pytest.mark.parametrize("arguments", [("t", "1", 2), ("t", True, 2), ("t", 1, None), (1, 1, 1)])
    def test_wrong_arguments_of_a_letter_are_named(self, app: Celery, arguments: tuple[Any, ...]) -> None:
        with pytest.raises(TypeError, match=r"give (str|int), not"):
            self.call(app, REQUEUE_DEAD_LETTER_TASK, *arguments)

    def test_many(self, app: Celery, store: Store) -> None:
        for offset in range(50):
            keep(store, offset, finish() if offset % 2 else b"no JSON")
        assert self.call(app, REQUEUE_MANY_TASK, "dead_letters", {"reason": "bug"}) == "25 applied, 25 failed again"
        assert offsets(store) == list(range(0, 50, 2))
        assert self.call(app, REQUEUE_MANY_TASK, "dead_letters", {"reason": "bug"}) == "nothing to requeue"
        fail(store, *(f"run-{number:03d}" for number in range(50)))
        assert self.call(app, REQUEUE_MANY_TASK, "cleanups", {"runs": "run-01"}) == "10 requeued"
        hold(store, "run-050")
        live(store, "run-051")
        assert self.call(app, REQUEUE_MANY_TASK, "cleanups") == "40 requeued"
        words = self.call(app, REQUEUE_MANY_TASK, "cleanups", {"state": "held"})
        assert words == "1 left as held by a person, 1 requeued"
        assert (states(store)["run-050"], states(store)["run-051"]) == ("held", "pending")

    def test_many_may_take_longer_than_its_slice(self, app: Celery, settings: Settings) -> None:
        assert app.tasks[REQUEUE_MANY_TASK].time_limit >= settings.task_time_limit_seconds / 3 + 60

    def test_many_sends_its_rest_until_all_is_done(self, settings: Settings, store: Store, redis: RedisServer) -> None:
        hold(store, "run-1", "run-3", "run-5")
        for name in ("run-2", "run-4"):
            live(store, name)
        fail(store, "run-6")
        hurried = settings.model_copy(update={"task_time_limit_seconds": 0.0})  # a task has time for one
        opened = OpenedStore(settings)
        with make_app(settings) as app, app.connection_for_read() as connection:
            queue = connection.SimpleQueue(JOBS_QUEUE, accept=app.conf.accept_content)
            register_requeues(app, opened, hurried)
            rounds, words = 1, self.call(app, REQUEUE_MANY_TASK, "cleanups", {"state": "held"})
            while words.endswith(" so far"):
                message = queue.get(timeout=5)
                message.ack()
                rounds, words = rounds + 1, self.call(app, REQUEUE_MANY_TASK, *message.payload[0])
                assert rounds <= 6
            queue.close()
        opened.close()
        assert (words, sent(redis, JOBS_QUEUE)) == ("3 left as held by a person, 2 requeued", 0)
        assert [states(store)[f"run-{number}"] for number in range(1, 7)] == [
            *("held", "pending", "held", "pending", "held"),
            "failed",
        ]

    @pytest.mark.parametrize(
        ("what", "choice"),
        [
            ("runs", {}),
            ("cleanups", {"state": "gone"}),
            ("cleanups", {"reason": "a"}),
            ("dead_letters", {"runs": 1}),
            ("cleanups", []),
        ],
    )
    def test_a_wrong_choice_is_named(self, what: str, choice: Any) -> None:
        with pytest.raises(ValueError, match=r"what=|choice=|gone"):
            read_choice(what, choice)


def test_goes_on_where_the_time_ended(store: Store, app: Celery) -> None:
    for offset in range(50):
        keep(store, offset, b"no JSON")
    requeuer, position, rounds = Requeuer(store, app), None, 0
    became = Counter[str]()
    while rounds == 0 or position is not None:
        progress = requeuer.requeue_many(LetterChoice(), position, seconds=0)
        position, rounds = progress.position, rounds + 1
        became += progress.became
    assert became == {"failed again": 50}
    assert rounds >= 50, "the clock is looked at after each"
    assert [letter.requeues for letter in store.dead_letters.each(store.engine)] == [1] * 50
    fail(store, *(f"run-{number}" for number in range(5)))
    first = requeuer.requeue_many(CleanupChoice(), seconds=0)
    assert (first.became, first.position) == ({"requeued": 1}, "run-0")
    assert requeuer.requeue_many(CleanupChoice(), "run-0", seconds=9).became == {"requeued": 4}


def test_is_done_in_the_store_while_redis_is_away(store: Store, app: Celery, redis: RedisServer) -> None:
    fail(store, "run-a", "run-b", "run-c")
    redis.stop()
    requeuer = Requeuer(store, app)
    assert "beat will send it" in requeuer.requeue_cleanup("run-a").words
    assert requeuer.requeue_many(CleanupChoice(), seconds=9).became == {"requeued": 2}
    assert set(states(store).values()) == {"pending"}


def test_a_running_cleanup_lists_once_more(store: Store, app: Celery) -> None:
    def work(transaction: Any) -> None:
        store.cleanups.ask(transaction, "run-a", source="event", now=1.0)
        store.cleanups.begin(transaction, "run-a", task_id="t", token="token", now=1.0, lease=9.0)

    store.engine.transact(work)
    assert "list once more" in Requeuer(store, app).requeue_cleanup("run-a").words
    running = CleanupChoice(CleanupState.RUNNING)
    assert Requeuer(store, app).requeue_many(running, seconds=9).became == {"requeued": 1}
