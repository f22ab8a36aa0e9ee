"""What only the embedded engine has: a file, which can be wrong, go away, be full, or grow."""

from __future__ import annotations

import os
import shutil
import sqlite3
import threading
import time
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

import storage.sqlite
from storage.engine import open_engine
from storage.errors import BadStoreURL, StorageUnavailable
from storage.sqlite_file import APPLICATION_ID
from storage.turnstile import Turnstile, poll
from tests.contract.actors import start

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from storage.engine import Engine, Transaction

DEADLINE = 60.0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


@pytest.fixture
def engine(path: Path) -> Iterator[Engine]:
    opened = open_engine(f"sqlite:///{path}", timeout=5.0)
    opened.transact(lambda transaction: transaction.set(b"a", b"1"))
    yield opened
    opened.close()


def look(engine: Engine) -> bytes | None:
    return engine.read(lambda transaction: transaction.get(b"a").wait())


# -- files that are no store -----------------------------------------------------------------------------------------


def refusal(path: Path) -> str:
    with pytest.raises(BadStoreURL) as caught:
        open_engine(f"sqlite:///{path}")
    return str(caught.value)


def test_another_programs_database_is_left_alone(path: Path) -> None:
    with closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE theirs (x)")
    before = path.read_bytes()
    assert "another program" in refusal(path)
    assert path.read_bytes() == before


def test_a_file_that_is_no_database_is_left_alone(path: Path) -> None:
    path.write_bytes(b"not a database, but long enough to be looked at" * 100)
    before = path.read_bytes()
    assert "no store" in refusal(path)
    assert path.read_bytes() == before


def test_a_store_of_a_newer_release_is_left_alone(engine: Engine, path: Path) -> None:
    engine.close()
    with closing(sqlite3.connect(path)) as newer:
        newer.execute("PRAGMA user_version=2")
    assert "newer release (form 2, known is 1)" in refusal(path)


def test_a_path_that_cannot_be_a_file_is_refused(tmp_path: Path) -> None:
    assert "cannot open" in refusal(tmp_path)
    (tmp_path / "file").write_text("")
    assert "cannot open" in refusal(tmp_path / "file" / "store.db")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_we_may_not_write_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    assert "cannot open" in refusal(tmp_path / "store.db")


def test_an_empty_file_becomes_a_store(path: Path) -> None:
    path.touch()
    engine = open_engine(f"sqlite:///{path}")
    engine.transact(lambda transaction: transaction.set(b"a", b"1"))
    engine.close()
    with closing(sqlite3.connect(path)) as raw:
        assert raw.execute("PRAGMA application_id").fetchone() == (APPLICATION_ID,)
        assert raw.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert raw.execute("SELECT key, value FROM kv").fetchall() == [(b"a", b"1")]


def test_many_that_open_a_new_store_at_once_all_can(path: Path) -> None:
    meeting = threading.Barrier(6)
    failures: list[Exception] = []

    def open_and_write(number: int) -> None:
        meeting.wait(DEADLINE)
        try:
            engine = open_engine(f"sqlite:///{path}")
            engine.transact(lambda transaction: transaction.set(b"%d" % number, b""))
            engine.close()
        except Exception as error:
            failures.append(error)
            raise

    threads = [threading.Thread(target=open_and_write, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE)
    assert failures == []
    engine = open_engine(f"sqlite:///{path}")
    assert len(engine.read(lambda transaction: transaction.get_range(b"", b"\xff").wait())) == 6
    engine.close()


# -- the file goes away ----------------------------------------------------------------------------------------------


def test_a_store_that_is_deleted_is_unavailable_and_is_not_made_anew(engine: Engine, path: Path) -> None:
    path.rename(path.with_suffix(".away"))
    with pytest.raises(StorageUnavailable, match="has gone"):
        engine.transact(lambda transaction: transaction.set(b"a", b"lost"))
    with pytest.raises(StorageUnavailable, match="has gone"):
        look(engine)
    assert not path.exists()
    path.with_suffix(".away").rename(path)
    assert look(engine) == b"1"


def test_a_store_that_is_replaced_is_not_written_to(engine: Engine, path: Path) -> None:
    shutil.copy(path, path.with_suffix(".backup"))
    path.with_suffix(".backup").replace(path)
    with pytest.raises(BadStoreURL, match="another file has taken"):
        engine.transact(lambda transaction: transaction.set(b"a", b"lost"))
    with pytest.raises(BadStoreURL, match="another file has taken"):
        look(engine)


def test_a_store_that_is_replaced_during_a_transaction_gets_no_commit(engine: Engine, path: Path) -> None:
    def work(transaction: Transaction) -> None:
        transaction.set(b"a", b"lost")
        path.rename(path.with_suffix(".away"))

    with pytest.raises(StorageUnavailable, match="has gone"):
        engine.transact(work)
    path.with_suffix(".away").rename(path)
    assert look(engine) == b"1"


def test_a_full_disk_is_unavailable_and_leaves_nothing(tmp_path: Path) -> None:
    with start("fill", "sqlite", tmp_path, b"key") as actor:
        said = actor.communicate(timeout=DEADLINE)[0].splitlines()
    assert said[0].startswith("unavailable: ")
    assert said[1:] == ["left 0", "then 50", "done"]


# -- the log ---------------------------------------------------------------------------------------------------------


def test_the_log_stays_small_with_readers_that_always_overlap(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite starts its log anew only at a moment when nobody reads from it; here somebody always does."""
    limit = 1_000_000
    monkeypatch.setattr(storage.sqlite, "LOG_LIMIT", limit)
    engine = open_engine(f"sqlite:///{path}", timeout=5.0)
    done = threading.Event()

    def read_in_relay() -> None:
        runner = begin_to_read(path)
        while not done.wait(0.002):
            following = begin_to_read(path)
            runner.close()
            runner = following
        runner.close()

    relay = threading.Thread(target=read_in_relay)
    relay.start()
    largest = 0
    try:
        for number in range(150):
            key, value = b"%d" % (number % 20), os.urandom(100_000)
            engine.transact(lambda transaction: transaction.set(key, value))  # noqa: B023 - runs at once
            largest = max(largest, path.with_name("store.db-wal").stat().st_size)
    finally:
        done.set()
        relay.join(DEADLINE)
        engine.close()
    assert largest < 5 * limit


def begin_to_read(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("BEGIN")
    connection.execute("SELECT 1 FROM kv LIMIT 1").fetchone()
    return connection


def test_connections_are_as_many_as_ran_at_once(engine: Engine) -> None:
    inside, leave = threading.Barrier(4), threading.Event()

    def work(transaction: Transaction) -> None:
        transaction.get(b"a").wait()
        inside.wait(DEADLINE)
        leave.wait(DEADLINE)

    threads = [threading.Thread(target=engine.read, args=(work,)) for _ in range(3)]
    for thread in threads:
        thread.start()
    inside.wait(DEADLINE)
    leave.set()
    for thread in threads:
        thread.join(DEADLINE)
    for _ in range(20):
        thread = threading.Thread(target=look, args=(engine,))
        thread.start()
        thread.join(DEADLINE)
    assert len(engine._idle) <= 3  # type: ignore[attr-defined]


def test_who_has_just_committed_queues_behind_who_waits(engine: Engine, path: Path) -> None:
    order: list[str] = []
    queued = threading.Event()

    def wait_in_line() -> None:
        engine.transact(lambda transaction: order.append("waiting"))

    waiting = threading.Thread(target=wait_in_line)

    def first(transaction: Transaction) -> None:
        transaction.set(b"a", b"2")
        waiting.start()
        with closing(Turnstile(f"{path}-turn")) as line:
            assert poll(lambda: not peek(line), time.monotonic() + DEADLINE)
        queued.set()
        order.append("first")

    engine.transact(first)
    assert queued.is_set()
    engine.transact(lambda transaction: order.append("again"))
    waiting.join(DEADLINE)
    assert order == ["first", "waiting", "again"]


def peek(line: Turnstile) -> bool:
    """Whether nobody is next in line."""
    free = line.try_enter()
    if free:
        line.leave()
    return free
