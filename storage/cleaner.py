"""One execution of a cleanup: take it, look at the truth, delete, and write what became of it.

Whatever happens ends in the ledger: done, held, failed, or pending with the time of the next try. Only a store that is
away ends in an exception; then the cleanup is free again when its lease is over.
"""

from __future__ import annotations

import random
import time
import traceback
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple
from uuid import uuid4

from storage.blob_names import is_foreign, run_prefix
from storage.cleanup import LONGEST_WAIT, Cleanup, CleanupState
from storage.errors import BlobError, Poison, StorageError
from storage.sweep import End, Sweep, Tally
from storage.truth import find_obstacle

if TYPE_CHECKING:
    from collections.abc import Callable

    from storage.blobs import BlobStore
    from storage.engine import Transaction
    from storage.store import Store

_NOTE_PAGES: Final = 5
_NOTE_SECONDS: Final = 2.0


@dataclass(frozen=True, slots=True)
class Terms:
    """How cleanups are done.

    Attributes:
        tries: of one round, before it is failed.
        backoff: seconds before the second try; doubles.
        requests: delete requests in flight.
        slice: seconds after which an execution gives way.
        lease: seconds without a sign of life after which another execution may take over.
        foreign_keys: delete keys that an event names outside of its run's prefix.
    """

    tries: int
    backoff: float
    requests: int
    slice: float
    lease: float
    foreign_keys: bool


class Cleaned(NamedTuple):
    """What an execution did.

    Attributes:
        entry: the cleanup as it is now; None where there is none.
        worked: whether this execution had it.
        again: seconds until the next execution is due; None where none is to be sent.
        objects: deleted by this execution.
        bytes: their size.
    """

    entry: Cleanup | None
    worked: bool
    again: float | None
    objects: int = 0
    bytes: int = 0


class _Lost(Exception):
    """The cleanup is not this execution's any more."""


class _Held(Exception):
    """The cleanup has to be held; says why."""


class Cleaner:
    """Executes cleanups of one store.

    Args:
        store: the open store, with the truth and the ledger.
        blobs: the blob store.
        terms: how.
        clock: Unix seconds.
    """

    def __init__(self, store: Store, blobs: BlobStore, terms: Terms, *, clock: Callable[[], float] = time.time) -> None:
        self._store = store
        self._blobs = blobs
        self._terms = terms
        self._clock = clock

    def clean(self, run: str, *, task_id: str) -> Cleaned:
        """Work on a run's cleanup, if it is due and nobody else does, for a slice of time.

        Args:
            run: the run's id.
            task_id: the Celery task's.

        Raises:
            StorageError: the store is away; call again.
        """
        token, cleanups = uuid4().hex, self._store.cleanups
        entry = self._store.engine.transact(
            lambda transaction: cleanups.begin(
                transaction,
                run,
                task_id=task_id,
                token=token,
                now=self._clock(),
                lease=self._terms.lease,
                tries=self._terms.tries,
            )
        )
        if entry is None:
            return self._pass_over(run, task_id)
        execution = _Execution(self._store, self._blobs, self._terms, self._clock, entry)
        try:
            after = execution.run()
        except _Lost:
            after = None
        if after is None:  # taken over, held by a person or purged while we worked; or a commit that went unheard
            after = self._get(run)
        pending = after is not None and after.state is CleanupState.PENDING
        again = min(max(0.0, after.due - self._clock()), LONGEST_WAIT) if after is not None and pending else None
        return Cleaned(after, True, again, *execution.deleted)

    def _pass_over(self, run: str, task_id: str) -> Cleaned:
        """Nothing was begun. The same task come back, while its own execution is not taken for dead yet, waits."""
        entry = self._get(run)
        if entry is None or entry.state is not CleanupState.RUNNING or entry.task_id != task_id:
            return Cleaned(entry, worked=False, again=None)
        again = min(max(0.5, entry.due - self._clock()), self._terms.lease)  # clocks differ: it is looked at again
        return Cleaned(entry, worked=False, again=again)

    def _get(self, run: str) -> Cleanup | None:
        return self._store.engine.read(lambda transaction: self._store.cleanups.get(transaction, run))


class _Execution:
    """One execution that has begun a cleanup."""

    def __init__(
        self, store: Store, blobs: BlobStore, terms: Terms, clock: Callable[[], float], entry: Cleanup
    ) -> None:
        self._store = store
        self._blobs = blobs
        self._terms = terms
        self._clock = clock
        self._entry = entry
        self._deadline = time.monotonic() + terms.slice
        self._noted = (0, time.monotonic())
        self._moved = False
        self._foreign = ""
        self._tally = Tally(
            objects=entry.objects,
            bytes=entry.bytes,
            position=entry.position,
            refused=entry.refused,
            error=entry.error if entry.refused else "",
            passes=entry.passes,
        )

    @property
    def deleted(self) -> tuple[int, int]:
        """Objects and bytes deleted by this execution."""
        return self._tally.objects - self._entry.objects, self._tally.bytes - self._entry.bytes

    def run(self) -> Cleanup | None:
        """Do it; the cleanup as it is then.

        Raises:
            _Lost: it is not ours any more.
            StorageError: the store is away.
        """
        try:
            return self._work()
        except _Lost:
            raise
        except _Held as reason:
            return self._hold(str(reason))
        except (BlobError, Poison) as error:
            return self._fail(str(error))
        except StorageError:
            raise
        except Exception as error:  # noqa: BLE001 - counts as a try, so that it ends in failed and is seen
            return self._fail("".join(traceback.format_exception(error)))

    def _work(self) -> Cleanup | None:
        """Delete until nothing is left, or time is up."""
        entry, tally = self._entry, self._tally
        prefix = run_prefix(entry.run)  # checked once more, right before anything is listed
        with Sweep(
            self._blobs, requests=self._terms.requests, check=self._check, note=self._note_sometimes, tally=tally
        ) as sweep:
            end = self._delete_named(sweep)
            if end is not End.TIME_UP and entry.whole:
                end = sweep.delete_prefix(prefix, deadline=self._deadline)
        if end is End.TIME_UP:
            self._note()
            return self._write(
                lambda transaction: self._store.cleanups.give_way(
                    transaction, entry.run, token=entry.token, now=self._clock(), moved=self._moved or tally.pages > 0
                )
            )
        self._note()
        if tally.refused:
            others = f", and {tally.refused - 1} others" if tally.refused > 1 else ""
            return self._fail(f"{tally.error}{others}")
        if end is End.COMES_BACK:
            return self._fail(f"objects below {prefix!r} are still there after {tally.passes} passes that deleted them")
        if self._foreign:
            raise _Held(self._foreign)
        return self._write(
            lambda transaction: self._store.cleanups.finish(
                transaction, entry.run, token=entry.token, seen=entry.round, now=self._clock()
            )
        )

    def _fail(self, error: str) -> Cleanup | None:
        """This try has failed."""
        entry, terms, now = self._entry, self._terms, self._clock()
        due = now + choose_wait(entry.attempts, terms.backoff)
        self._note()
        return self._write(
            lambda transaction: self._store.cleanups.fail(
                transaction, entry.run, token=entry.token, error=error, tries=terms.tries, due=due, now=now
            )
        )

    def _hold(self, reason: str) -> Cleanup | None:
        """It must wait for an event or a person."""
        entry = self._entry
        self._note()
        return self._write(
            lambda transaction: self._store.cleanups.hold(
                transaction, entry.run, reason=reason, now=self._clock(), token=entry.token, seen=entry.round
            )
        )

    # -- named keys ------------------------------------------------------------------------------------------------

    def _delete_named(self, sweep: Sweep) -> End:
        """Delete the keys that events named; those outside of the run's prefix only where that is allowed."""
        entry, after = self._entry, ""
        if entry.named and not entry.position:
            self._tally.refused = 0  # they are gone through from the beginning
        allowed = self._terms.foreign_keys or entry.forced
        while entry.named:
            if time.monotonic() > self._deadline:
                return End.TIME_UP
            keys = self._read_keys(after)
            if not keys:
                break
            after = keys[-1]
            wanted = [key for key in keys if allowed or not is_foreign(entry.run, key)]
            if len(wanted) < len(keys):
                foreign = next(key for key in keys if key not in set(wanted))
                self._foreign = (
                    f"the event names the key {foreign!r}, which is outside of the run's prefix: set "
                    "CLEANUP_FOREIGN_KEYS, or requeue this cleanup with force"
                )
            if wanted:
                refusals = sweep.delete_blobs(self._blobs.find(wanted), deadline=self._deadline)
                kept = {refusal.blob.key for refusal in refusals}
                gone = [key for key in wanted if key not in kept]
                self._moved = self._moved or bool(gone)
                self._note(gone)
        return End.GONE

    def _read_keys(self, after: str) -> list[str]:
        run = self._entry.run
        return self._store.engine.read(lambda transaction: self._store.cleanups.keys(transaction, run, after=after))

    # -- between pages ---------------------------------------------------------------------------------------------

    def _check(self) -> None:
        """Look at the truth, and whether the cleanup is still ours, right before a page is deleted."""
        run, token = self._entry.run, self._entry.token

        def look(transaction: Transaction) -> str | None:
            now = self._store.cleanups.get(transaction, run)
            if now is None or now.token != token:
                raise _Lost
            return None if now.forced else find_obstacle(transaction, self._store.directories, run)

        obstacle = self._store.engine.read(look)
        if obstacle is not None:
            raise _Held(obstacle)

    def _note_sometimes(self, tally: Tally) -> None:
        pages, when = self._noted
        if tally.pages - pages >= _NOTE_PAGES or time.monotonic() - when >= _NOTE_SECONDS:
            self._note()

    def _note(self, gone: list[str] | None = None) -> None:
        entry, tally = self._entry, self._tally
        noted = self._write(
            lambda transaction: self._store.cleanups.progress(
                transaction,
                entry.run,
                token=entry.token,
                total=(tally.objects, tally.bytes),
                position=tally.position,
                refused=tally.refused,
                passes=tally.passes,
                error=tally.error,
                gone=gone or (),
                now=self._clock(),
                lease=self._terms.lease,
            )
        )
        if noted is None:
            raise _Lost
        self._noted = (tally.pages, time.monotonic())

    def _write(self, work: Callable[[Transaction], Cleanup | None]) -> Cleanup | None:
        return self._store.engine.transact(work)


def choose_wait(attempts: int, backoff: float, *, spread: float | None = None) -> float:
    """Seconds until the next try: doubling, with jitter, at most a minute.

    Args:
        attempts: tries so far.
        backoff: seconds before the second try.
        spread: the jitter, 0 to 1; random if not given.
    """
    longest = min(LONGEST_WAIT, backoff * float(2 ** min(max(attempts - 1, 0), 20)))
    return longest * (0.5 + 0.5 * (random.random() if spread is None else spread))
