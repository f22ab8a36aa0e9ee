"""Jobs under their locks, by task and by hand: one at a time, once a turn, as asked or as the settings say."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from kombu.exceptions import OperationalError

from matyan_celery.__main__ import cli
from storage.cascades import CascadeKind
from storage.errors import BlobsAway, LockHeld
from storage.store import Store, open_store
from tasks.app import make_app
from tasks.job_list import JOBS
from tasks.job_runner import JobAsk, JobRunner
from tasks.jobs import register_jobs
from tasks.outbox import OutboxPublisher
from tasks.settings import Settings, load_settings
from tests.unit.matyan import INDEXES, SYSTEM, put, send
from tests.unit.test_jobs import HOUR, NOW, Blobs, buried, bury, hex_id, hold

NOBODY = "redis://127.0.0.1:1/0"


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.chdir(tmp_path)
    url = f"sqlite:///{tmp_path / 'store.db'}"
    monkeypatch.setenv("STORAGE_URL", url)
    monkeypatch.setenv("REDIS_URL", NOBODY)
    monkeypatch.setenv("S3_ENDPOINT", "http://127.0.0.1:1")
    return url


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    with open_store(url) as opened:
        yield opened


@pytest.fixture
def clock() -> Clock:
    return Clock()


class Sent(list[str]):
    """Runs whose cleanups were sent."""


def make_runner(
    store: Store, clock: Clock, blobs: Blobs | None = None, settings: Settings | None = None, sent: Sent | None = None
) -> JobRunner:
    settings = settings or load_settings(None)
    app = make_app(settings)
    if sent is not None:
        app.send_task = lambda name, args, **_: sent.append(args[0])
    return JobRunner(
        settings,
        app,
        store=lambda: store,
        blobs=lambda: blobs or Blobs(),
        publisher=OutboxPublisher(settings),
        clock=clock,
    )


def test_what_was_done_is_noted(store: Store, clock: Clock) -> None:
    bury(store, "old", 200)
    runner = make_runner(store, clock)
    assert runner.run(JOBS["tombstones"], JobAsk(dry_run=True))["cleared"] == 1
    locks = store.job_locks(clock=clock)
    assert locks.last_done("cleanup_tombstones") is None, "a dry run is none"
    assert runner.run(JOBS["tombstones"], JobAsk())["cleared"] == 1
    done = locks.last_done("cleanup_tombstones")
    assert done is not None
    assert done.result.startswith("found 1, old 1, cleared 1")
    assert buried(store) == []


def test_a_second_beat_does_not_repeat_it(store: Store, clock: Clock) -> None:
    runner, job = make_runner(store, clock), JOBS["old-ledger"]
    runner.run(job, JobAsk(gap=60.0))
    clock.now += 2.0
    with pytest.raises(LockHeld, match="was done 2 s ago"):
        runner.run(job, JobAsk(gap=60.0))
    runner.run(job, JobAsk())  # by hand: always
    clock.now += 58.0
    runner.run(job, JobAsk(gap=60.0))


@pytest.mark.parametrize("ask", [JobAsk(limit=1), JobAsk(older_than_hours=2.0), JobAsk(unknown=True)])
def test_a_part_by_hand_does_not_stand_for_beats_turn(store: Store, clock: Clock, ask: JobAsk) -> None:
    runner, job = make_runner(store, clock), JOBS["tombstones"]
    for name in ("a", "b", "c"):
        bury(store, name, 200)
    runner.run(job, ask)
    clock.now += 2.0
    runner.run(job, JobAsk(gap=60.0))
    assert buried(store) == []
    with pytest.raises(LockHeld, match="was done"):
        runner.run(job, JobAsk(gap=60.0))


def test_beats_own_turn_is_one_whatever_it_was_told(store: Store, clock: Clock) -> None:
    runner, job = make_runner(store, clock), JOBS["tombstones"]
    runner.run(job, JobAsk(limit=1, gap=60.0))
    with pytest.raises(LockHeld, match="was done"):
        runner.run(job, JobAsk(limit=1, gap=60.0))


def test_one_that_failed_is_done_again(store: Store, clock: Clock) -> None:
    class Away(Blobs):
        def page(self, prefix: str, after: str = "", *, limit: int = 2) -> object:  # type: ignore[override]
            raise BlobsAway("away")

    bury(store, "old", 200)
    with pytest.raises(BlobsAway):
        make_runner(store, clock, Away()).run(JOBS["tombstones"], JobAsk(gap=60.0))
    assert make_runner(store, clock).run(JOBS["tombstones"], JobAsk(gap=60.0))["cleared"] == 1


@pytest.mark.parametrize(
    ("given", "ttl", "own"), [(0.0, 3600.0, 30.0), (5.0, 5.0, 30.0)], ids=["each its own", "the stock setting"]
)
def test_how_long_locks_live(given: float, ttl: float, own: float) -> None:
    settings = load_settings(None, cleanup_job_lock_ttl_seconds=given)
    assert JOBS["orphan-blobs"].lock_ttl(settings) == ttl
    assert JOBS["stalled-cleanups"].lock_ttl(settings) == own


def test_settings_say_what_was_not_asked(store: Store, clock: Clock) -> None:
    old, sent = hex_id(1), Sent()
    send(store, "create_run", "lives")
    blobs = Blobs(**{old: [NOW - 30 * HOUR]})

    def asked(settings: Settings, ask: JobAsk) -> list[str]:
        sent.clear()
        make_runner(store, clock, blobs, settings, sent).run(JOBS["orphan-blobs"], ask)
        return list(sent)

    wide, narrow = (
        load_settings(None, orphan_unknown=True),
        load_settings(None, orphan_unknown=True, orphan_grace_hours=48),
    )
    assert asked(load_settings(None), JobAsk()) == []
    assert asked(wide, JobAsk(unknown=False)) == []
    assert asked(narrow, JobAsk()) == []
    assert asked(wide, JobAsk()) == [old]
    store.engine.transact(lambda transaction: store.cleanups.purge(transaction, old))
    assert asked(load_settings(None), JobAsk(unknown=True, older_than_hours=29)) == [old]


def test_beats_tasks_pass_over_what_another_does(store: Store, clock: Clock, capfd: pytest.CaptureFixture[str]) -> None:
    settings = load_settings(None)
    tasks = register_jobs(make_app(settings), make_runner(store, clock))
    assert {task.name for task in tasks.values()} == {
        "matyan.jobs.orphan_blobs",
        "matyan.jobs.tombstones",
        "matyan.jobs.stalled_cleanups",
        "matyan.jobs.outbox",
        "matyan.jobs.old_ledger",
        "matyan.jobs.finish_stale",
    }
    with store.job_locks(clock=clock).hold("cleanup_tombstones", ttl=60.0):
        tasks["tombstones"]()
    tasks["tombstones"](gap=60.0)
    tasks["tombstones"](gap=60.0)
    out = capfd.readouterr().out
    assert out.count("job passed over") == 2
    assert "is held by" in out
    assert "was done 0 s ago" in out


def test_redis_away_breaks_off_and_beat_begins_again(store: Store, clock: Clock) -> None:
    with pytest.raises(OperationalError):
        make_runner(store, clock).run(JOBS["stalled-cleanups"], JobAsk())
    tasks = register_jobs(make_app(load_settings(None)), make_runner(store, clock))
    tasks["stalled-cleanups"]()


# -- by hand ---------------------------------------------------------------------------------------------------------


def call(*arguments: str) -> Result:
    return CliRunner().invoke(cli, list(arguments), catch_exceptions=False)


def test_lists_every_job_with_its_setting(store: Store) -> None:
    with store.job_locks().hold("cleanup_tombstones", ttl=60.0) as lock:
        lock.note_done("found 3")
        text = call("jobs", "list")
    assert text.exit_code == 0
    for job in JOBS.values():
        assert f"{job.name:<18}{job.setting}=" in text.output
    assert "CRON_FINISH_STALE=(never)" in text.output
    assert "now by" in text.output
    assert "found 3" in text.output
    rows = [json.loads(line) for line in call("jobs", "list", "--json").output.splitlines()]
    assert {row["name"]: row["last"] and row["last"]["result"] for row in rows}["tombstones"] == "found 3"


def test_runs_one_in_the_foreground(store: Store) -> None:
    put(store, INDEXES, 1.0, "_deleted", "a\x1b[31m/b")
    dry = call("jobs", "run", "tombstones", "--dry-run")
    assert dry.exit_code == 0
    assert "tombstones would be: found 1, old 1, cleared 0" in dry.output
    assert "no safe name 1" in dry.output
    assert "\x1b" not in dry.output
    quiet = call("jobs", "run", "tombstones", "--quiet")
    assert quiet.output.startswith("tombstones done: found 1")
    stale = call("jobs", "run", "finish-stale", "--older-than-hours", "1", "--limit", "3")
    assert "finish-stale done: active 0, finished 0" in stale.output


def test_held_lock_is_exit_code_1_as_with_the_stock_job(store: Store) -> None:
    put(store, INDEXES, 1.0, "_deleted", "old")
    with store.job_locks().hold("cleanup_tombstones", ttl=60.0):
        refused = call("jobs", "run", "tombstones")
    assert refused.exit_code == 1
    assert "the lock cleanup_tombstones is held by" in refused.output
    assert buried(store) == ["old"]


def test_a_blob_store_or_redis_that_is_away_is_said(store: Store) -> None:
    put(store, INDEXES, 1.0, "_deleted", "old")
    away = call("jobs", "run", "tombstones")
    assert (away.exit_code, buried(store)) == (1, ["old"])
    assert "127.0.0.1:1" in away.output
    away = call("jobs", "run", "stalled-cleanups")
    assert away.exit_code == 1
    assert "Redis does not answer" in away.output
    assert store.job_locks().holder("bridge_stalled_cleanups") is None


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nothing"], "'nothing' is not one of"),
        (["outbox", "--older-than-hours", "1"], "not for outbox"),
        (["tombstones", "--unknown"], "--unknown is for orphan-blobs"),
        (["tombstones", "--limit", "-1"], "--limit"),
        (["outbox", "--limit", "1"], "--limit is not for outbox"),
    ],
)
def test_wrong_usage(store: Store, arguments: list[str], says: str) -> None:
    wrong = call("jobs", "run", *arguments)
    assert wrong.exit_code == 2
    assert says in wrong.output


def test_status_says_what_a_person_has_to_see_to(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:1")
    hold(store, "run")
    store.engine.transact(lambda transaction: store.cascades.ask(transaction, "project", "p1", NOW))
    store.engine.transact(lambda transaction: store.outbox.put(transaction, "run", b"{}", 1.0))
    text = call("status")
    assert text.exit_code == 1
    assert "1 cleanups held: look with `matyan-celery cleanups list --state held`" in text.output
    assert "1 cascades held: look with `matyan-celery cascades list --state held`" in text.output
    assert "an event has waited in the outbox for" in text.output
    report = json.loads(call("status", "--json").output)
    assert {"ledger": "cleanups", "state": "held", "count": 1} in report["left"]


def test_cascades_by_hand(store: Store) -> None:
    for kind, uuid in (("tag", "t1"), ("project", "p1")):
        store.engine.transact(lambda transaction: store.cascades.ask(transaction, kind, uuid, NOW))  # noqa: B023
    listed = call("cascades", "list")
    assert "2 cascades: 1 pending, 1 held" in listed.output
    rows = [json.loads(line) for line in call("cascades", "list", "--state", "held", "--json").output.splitlines()]
    assert [(row["kind"], row["uuid"]) for row in rows] == [("project", "p1")]
    assert "by hand" in call("cascades", "show", "project", "p1").output
    held = call("cascades", "requeue", "project", "p1")
    assert (held.exit_code, "it stays held" in held.output) == (1, True)
    requeued = call("cascades", "requeue", "tag", "t1")
    assert (
        requeued.exit_code,
        "pending, and beat sends its task (jobs run stalled-cleanups): Redis does not answer" in requeued.output,
    ) == (0, True)
    entry = store.engine.read(lambda transaction: store.cascades.get(transaction, CascadeKind.TAG, "t1"))
    assert entry is not None
    assert entry.round == 2
    assert call("cascades", "purge", "tag", "t1").output == "purged\n"
    gone = call("cascades", "show", "tag", "t1")
    assert (gone.exit_code, "there is no cascade" in gone.output) == (1, True)


def test_the_outbox_by_hand_takes_young_events_too(store: Store, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:1")  # nobody: what is tried is left
    store.engine.transact(lambda transaction: store.outbox.put(transaction, "run", b"{}", NOW - 1.0))
    runner = make_runner(store, clock)
    assert runner.run(JOBS["outbox"], JobAsk(gap=60.0)) == {"sent": 0, "left": 0}
    clock.now += 1.0
    assert runner.run(JOBS["outbox"], JobAsk()) == {"sent": 0, "left": 1}


def test_an_event_of_the_future_keeps_nothing_back(store: Store, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:1")  # nobody: what is tried is left
    for time in (NOW - 60.0, NOW - 1.0, NOW + 5.0, NOW + 1e9):
        store.engine.transact(lambda transaction: store.outbox.put(transaction, "run", b"{}", time))  # noqa: B023
    assert make_runner(store, clock).run(JOBS["outbox"], JobAsk(gap=60.0)) == {"sent": 0, "left": 2}


def test_a_job_that_was_locked_or_done_in_the_future_is_done_and_said(store: Store, clock: Clock) -> None:
    runner, job, told = make_runner(store, clock), JOBS["old-ledger"], list[str]()
    clock.now += 1e9
    runner.run(job, JobAsk(gap=60.0))
    clock.now -= 1e9
    put(store, SYSTEM, NOW + 1e9, "job_lock", job.lock)
    assert runner.run(job, JobAsk(gap=60.0, tell=told.append))["of a wrong clock"] == 1
    assert "was held until 1000000000 s from now, longer than any: it was taken" in told[0]
    with pytest.raises(LockHeld, match="was done 0 s ago"):
        runner.run(job, JobAsk(gap=60.0))
