"""The lock of a periodic job, so that several beats, hands and the stock cron jobs do not do the same thing at once.

The lock itself is the stock one (CONTRACT 8.4): ``("job_lock", name)`` in Matyan's ``system`` directory, with the time
until which it is held as one msgpack double; whatever else stands there counts as free. Stock jobs have no owner token,
so a job that outlives its time deletes its successor's lock. Ours stands beside it, in our own directory:

    ("job_lock", name)    token, until, since, who
    ("job_done", name)    began, ended, who, result: the last run that came to its end

A holder renews its lock while it works, so that it may take longer than the lock's time to live, which is short: the
lock of a killed worker is free soon. It is its own only while both records say so.

A time further ahead than any lock lives was written by a wrong clock, and locks nothing: a holder that lives after all
sees its loss at its next renewal.
"""

from __future__ import annotations

import os
import socket
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, NamedTuple
from uuid import uuid4

import msgpack

from storage.clocks import is_impossible
from storage.encoding import pack_key, pack_time
from storage.errors import LockHeld, LockLost

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from storage.directories import Directories
    from storage.engine import Engine, Transaction
    from storage.ledger import Ledger

_LONGEST: Final = 3_600.0  # seconds that a lock lives by its defaults, ours and the stock jobs'
_RESULT: Final = 1_000  # characters kept of a result


class LockOwner(NamedTuple):
    """Who holds a lock of ours. Times are Unix seconds."""

    token: str
    until: float
    since: float
    who: str


class JobDone(NamedTuple):
    """The last run of a job that came to its end. Times are Unix seconds."""

    began: float
    ended: float
    who: str
    result: str


class LockRecords:
    """Keys and bytes of locks, read and written within transactions.

    Args:
        directories: key prefixes.
        ledger: our directory's keys.
    """

    def __init__(self, directories: Directories, ledger: Ledger) -> None:
        self._system = directories.system
        self._ledger = ledger

    def until(self, transaction: Transaction, name: str) -> bytes | None:
        """What stands in Matyan's directory."""
        return transaction.get(self._key(name)).wait()

    def owner(self, transaction: Transaction, name: str) -> LockOwner | None:
        """Who of ours took the lock last."""
        value = transaction.get(self._ledger.key("job_lock", name)).wait()
        return None if value is None else LockOwner(*msgpack.unpackb(value))

    def holder(self, transaction: Transaction, name: str, now: float, ttl: float = 0.0) -> LockOwner | None:
        """Who holds the lock; for a stock job the token is empty. None where it is free.

        Args:
            transaction: in which it is read.
            name: the lock's.
            now: Unix seconds.
            ttl: seconds that it lives by whoever asks, where that may be more than the default.
        """
        raw, ours = self.until(transaction, name), self.owner(transaction, name)
        until = _read_time(raw)
        if until <= now or is_impossible(until, now, longest=max(ttl, _LONGEST)):
            return None
        return ours if ours is not None and raw == pack_time(ours.until) else LockOwner("", until, now, "a stock job")

    def is_held_by(self, transaction: Transaction, name: str, token: str) -> bool:
        """Whether this holder has it and nobody else; a record that a stock job deleted by mistake is still his."""
        ours = self.owner(transaction, name)
        if ours is None or ours.token != token:
            return False
        raw = self.until(transaction, name)
        return raw is None or raw == pack_time(ours.until)

    def write(self, transaction: Transaction, name: str, owner: LockOwner) -> None:
        """Take it, or renew it."""
        transaction.set(self._key(name), pack_time(owner.until))
        transaction.set(self._ledger.key("job_lock", name), msgpack.packb(owner))

    def clear(self, transaction: Transaction, name: str) -> None:
        """Set it free."""
        transaction.clear(self._key(name))
        transaction.clear(self._ledger.key("job_lock", name))

    def done(self, transaction: Transaction, name: str) -> JobDone | None:
        """The last run that came to its end."""
        value = transaction.get(self._ledger.key("job_done", name)).wait()
        return None if value is None else JobDone(*msgpack.unpackb(value))

    def write_done(self, transaction: Transaction, name: str, done: JobDone) -> None:
        """Note a run that came to its end."""
        transaction.set(self._ledger.key("job_done", name), msgpack.packb(done, unicode_errors="replace"))

    def _key(self, name: str) -> bytes:
        return self._system + pack_key("job_lock", name)


class JobLocks:
    """The locks of one store.

    Args:
        engine: the open store.
        records: their bytes.
        clock: Unix seconds.
    """

    def __init__(self, engine: Engine, records: LockRecords, *, clock: Callable[[], float] = time.time) -> None:
        self._engine = engine
        self._records = records
        self._clock = clock

    @contextmanager
    def hold(self, name: str, *, ttl: float, unless_done_since: float | None = None) -> Iterator[HeldLock]:
        """Hold a lock for the time of the ``with`` block.

        Args:
            name: the lock's.
            ttl: seconds until it is free again if nobody renews or releases it.
            unless_done_since: do not begin where a run of the job ended after this time; nor, since clocks differ, so
                long ahead of now at most.

        Raises:
            LockHeld: somebody else holds it, or the job was just done.
            StorageUnavailable: the store did not answer.
        """
        lock = HeldLock(self._engine, self._records, name, ttl, self._clock)
        lock.acquire(unless_done_since)
        try:
            yield lock
        finally:
            lock.release()

    def holder(self, name: str) -> LockOwner | None:
        """Who holds a lock now; for a stock job the token is empty. None where it is free."""
        now = self._clock()
        return self._engine.read(lambda transaction: self._records.holder(transaction, name, now))

    def last_done(self, name: str) -> JobDone | None:
        """The last run of a job that came to its end; None before the first."""
        return self._engine.read(lambda transaction: self._records.done(transaction, name))


class HeldLock:
    """One holding of a lock; made by `JobLocks.hold`.

    Args:
        engine: the open store.
        records: their bytes.
        name: the lock's.
        ttl: seconds until it is free again if nobody renews or releases it.
        clock: Unix seconds.

    Attributes:
        name: the lock's.
        overrode: seconds that the lock's former time lay ahead: more than any, so it locked nothing; else 0.
    """

    def __init__(self, engine: Engine, records: LockRecords, name: str, ttl: float, clock: Callable[[], float]) -> None:
        self.name = name
        self.overrode = 0.0
        self._engine = engine
        self._records = records
        self._ttl = ttl
        self._clock = clock
        self._token = uuid4().hex
        self._since = 0.0
        self._until = 0.0

    def acquire(self, unless_done_since: float | None = None) -> None:
        """Take it.

        Raises:
            LockHeld: see `JobLocks.hold`.
        """
        records, now = self._records, self._clock()

        def work(transaction: Transaction) -> None:
            holder = records.holder(transaction, self.name, now, self._ttl)
            if holder is not None and holder.token == self._token:
                return  # a commit of ours that went through unheard
            if holder is not None:
                raise LockHeld(_describe(self.name, holder, now))
            self.overrode = max(0.0, _read_time(records.until(transaction, self.name)) - now)
            done = records.done(transaction, self.name)
            if unless_done_since is not None and done is not None and _is_near(done.ended, unless_done_since, now):
                msg = f"{self.name} was done {now - done.ended:.0f} s ago by {done.who}: {done.result}"
                raise LockHeld(msg)
            records.write(transaction, self.name, LockOwner(self._token, now + self._ttl, now, name_process()))

        self._engine.transact(work)
        self._since, self._until = now, now + self._ttl

    def renew(self) -> None:
        """Say that we are alive, where a quarter of the lock's time has passed; call it as often as you like.

        Raises:
            LockLost: it ran out and somebody else has it: stop.
            StorageUnavailable: the store did not answer.
        """
        records, now = self._records, self._clock()
        if self._until - self._ttl <= now < self._until - self._ttl * 3 / 4:  # below: the clock was set back
            return

        def work(transaction: Transaction) -> None:
            if not records.is_held_by(transaction, self.name, self._token):
                msg = f"the lock {self.name} ran out after {self._ttl:g} s, and somebody else has taken it"
                raise LockLost(msg)
            owner = LockOwner(self._token, now + self._ttl, self._since, name_process())
            records.write(transaction, self.name, owner)

        self._engine.transact(work)
        self._until = now + self._ttl

    def release(self) -> None:
        """Give it back, if it is still ours."""

        def work(transaction: Transaction) -> None:
            if self._records.is_held_by(transaction, self.name, self._token):
                self._records.clear(transaction, self.name)

        self._engine.transact(work)

    def note_done(self, result: str) -> None:
        """Note that the job came to its end.

        Args:
            result: what it did, in words, for people.
        """
        done = JobDone(self._since, self._clock(), name_process(), result[:_RESULT])
        self._engine.transact(lambda transaction: self._records.write_done(transaction, self.name, done))


def name_process() -> str:
    """This process, for people: host and process id."""
    return f"{socket.gethostname()}, process {os.getpid()}"


def _is_near(ended: float, since: float, now: float) -> bool:
    return since < ended < now + (now - since)


def _describe(name: str, owner: LockOwner, now: float) -> str:
    since = f" since {now - owner.since:.0f} s" if owner.token else ""
    return f"the lock {name} is held by {owner.who}{since}, until {owner.until - now:.0f} s from now: nothing was done"


def _read_time(raw: bytes | None) -> float:
    """The time of a stock lock; what cannot be read, or is no number, is free."""
    if raw is None:
        return 0.0
    try:
        value = msgpack.unpackb(raw, strict_map_key=False)
    except (ValueError, TypeError, RecursionError, msgpack.UnpackException):
        return 0.0
    return float(value) if isinstance(value, int | float) else 0.0
