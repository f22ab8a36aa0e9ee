"""What other processes do to a store in these tests: ``python -m tests.contract.actors ROLE KIND FOLDER KEY [COUNT]``.

Each says on its standard output how far it has come, one line a step; a test waits for such a line.
"""

from __future__ import annotations

import os
import resource
import sqlite3
import subprocess
import sys
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

from storage.errors import Refused, StorageUnavailable
from tests.engines import open_kind

if TYPE_CHECKING:
    from collections.abc import Iterator

    from storage.engine import Engine, Transaction

ROOT = Path(__file__).parents[2]
KEYS = 200  # of one write of the writer, all with the same value


def count_up(engine: Engine, key: bytes, times: int) -> None:
    """Add 1 to the number under ``key``, ``times`` times, one transaction each.

    A mark beside the number says how far we are, so that a commit whose result is unknown does not count twice.
    """
    mark = key + b"/by/" + uuid4().bytes

    for number in range(times):

        def work(transaction: Transaction, done: bytes = b"%d" % number) -> None:
            if transaction.get(mark).wait() == done:
                return
            transaction.set(key, b"%d" % (int(transaction.get(key).wait() or b"0") + 1))
            transaction.set(mark, done)

        engine.transact(work)


def write_for_ever(engine: Engine, key: bytes) -> None:
    """Write `KEYS` keys with one number, then with the next one, until somebody ends us; say each that is committed."""
    number = 0
    while True:
        number += 1
        value = b"%d" % number

        def work(transaction: Transaction, value: bytes = value) -> None:
            transaction.clear_range(key + b"/", key + b"0")
            for index in range(KEYS):
                transaction.set(key + b"/%03d" % index, value.rjust(1_000))

        engine.transact(work)
        say(str(number))


def hold_lock(folder: Path) -> None:
    """Keep the embedded store's write lock until standard input ends, as a program that hangs would."""
    connection = sqlite3.connect(folder / "store.db", isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    say("held")
    sys.stdin.read()
    connection.execute("ROLLBACK")
    connection.close()


def fork_and_write(kind: str, engine: Engine, key: bytes) -> None:
    """Use a store, fork, and use it in both: embedded it works in both, FoundationDB's client says why it cannot."""
    count_up(engine, key, 1)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            say(f"inherited {len(open_files('store.db'))}")
            count_up(engine, key, 50)
            status = 0
        except Refused as error:
            say(f"refused: {error}")
            status = 2
        finally:
            sys.stdout.flush()
            os._exit(status)
    if kind == "sqlite":
        count_up(engine, key, 50)
    _, status = os.waitpid(child, 0)
    say(f"child {os.waitstatus_to_exitcode(status)}")
    say(f"number {engine.read(lambda transaction: transaction.get(key).wait())!r}")


def fork_inside_transaction(engine: Engine, key: bytes) -> None:
    """Fork in the middle of a transaction: the child must not believe that it holds the parent's lock."""

    def work(transaction: Transaction) -> None:
        transaction.set(key, b"parent")
        child = os.fork()
        if child == 0:
            status = 1
            try:
                count_up(engine, key, 1)
            except Refused as error:
                say(f"refused: {error}")
                status = 2
            finally:
                sys.stdout.flush()
                os._exit(status)
        _, status = os.waitpid(child, 0)
        say(f"child {os.waitstatus_to_exitcode(status)}")

    engine.transact(work)
    say(f"value {engine.read(lambda transaction: transaction.get(key).wait())!r}")


def use_up_disk(engine: Engine, key: bytes) -> None:
    """Meet the end of the disk in the middle of a transaction, get more of it, and go on."""
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, hard))

    def work(transaction: Transaction) -> None:
        for index in range(50):
            transaction.set(key + b"/%03d" % index, b"v" * 100_000)

    try:
        engine.transact(work)
    except StorageUnavailable as error:
        say(f"unavailable: {error}")
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    say(f"left {len(engine.read(lambda transaction: transaction.get_range(key, key + b'0').wait()))}")
    engine.transact(work)
    say(f"then {len(engine.read(lambda transaction: transaction.get_range(key, key + b'0').wait()))}")


def open_files(name: str) -> list[str]:
    """The files of this process whose path has ``name`` in it; none where the system does not tell."""
    folder = Path("/proc/self/fd")
    if not folder.is_dir():
        return []
    found = []
    for link in folder.iterdir():
        with suppress(OSError):  # the folder's own
            found.append(str(link.readlink()))
    return [path for path in found if name in path]


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


@contextmanager
def start(role: str, kind: str, folder: Path, key: bytes, count: int = 0) -> Iterator[subprocess.Popen[str]]:
    """Start an actor; it is ended and waited for when the block is left."""
    command = [sys.executable, "-m", "tests.contract.actors", role, kind, str(folder), key.hex(), str(count)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def main(role: str, kind: str, folder: Path, key: bytes, count: int) -> None:
    if role == "hold":
        hold_lock(folder)
        return
    engine = open_kind(kind, folder, timeout=30.0)
    if role == "count":
        count_up(engine, key, count)
    elif role == "write":
        write_for_ever(engine, key)
    elif role == "fill":
        use_up_disk(engine, key)
    elif role == "fork":
        fork_and_write(kind, engine, key)
    elif role == "fork-inside":
        fork_inside_transaction(engine, key)
    engine.close()
    say("done")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]), bytes.fromhex(sys.argv[4]), int(sys.argv[5]))
