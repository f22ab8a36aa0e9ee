"""The cleanup ledger: one entry a run whose blobs are to go, kept until they are gone and some time longer.

    ask ──▶ pending ──begin──▶ running ──finish──▶ done
               ▲                 │ │ │
               ├──── give_way ───┘ │ └── hold ──▶ held      the run lives, or a person said so
               └──── fail ─────────┴─ fail, no tries left ──▶ failed
    done, failed, held ── ask, requeue ──▶ pending (a new round: the prefix is listed once more)

Keys (in ``("bridge",)``):

    ("cleanup", run)                 the entry
    ("cleanup_state", state, run)    empty; lists the few failed and held among a million done
    ("cleanup_key", run, key)        empty; a blob that an event named, until it is gone

Every change is one transaction of the caller. Changes by a worker carry the token of its execution: one that another
worker has taken over from, or that a person has held, gets None and stops.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from storage.blob_names import check_key, run_prefix
from storage.cleanup import ERROR, LONGEST_WAIT, Cleanup, CleanupState, Origin, pack_cleanup
from storage.cleanup_reading import CleanupReading
from storage.clocks import is_impossible

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from storage.engine import Transaction

__all__ = ["Cleanup", "CleanupState", "Cleanups", "Origin"]


class Cleanups(CleanupReading):
    """Reads cleanups, and changes them within transactions.

    Args:
        ledger: our directory's keys.
    """

    # -- asking ----------------------------------------------------------------------------------------------------

    def ask(
        self, transaction: Transaction, run: str, *, source: Origin, keys: Iterable[str] = (), now: float
    ) -> Cleanup:
        """Ask for a run's blobs to go: made, or opened again, or listed once more.

        A cleanup that a person holds stays held. Tries are counted on while one is open, so that events which keep
        coming cannot keep one from failing.

        Args:
            transaction: in which it is asked for.
            run: the run's id.
            source: who asks.
            keys: exactly these keys; none: everything under the run's prefix.
            now: Unix seconds.

        Raises:
            UnsafeName: the run id could never be a prefix, or a key never a key.
        """
        run_prefix(run)
        named = {check_key(key) for key in keys}
        old = self.get(transaction, run)
        if old is None or old.state is CleanupState.DONE:
            entry = Cleanup(run, CleanupState.PENDING, source, now, now, now, whole=not named)
            if old is not None:
                entry = replace(entry, created=old.created, round=old.round + 1, objects=old.objects, bytes=old.bytes)
        else:
            entry = replace(old, source=source, updated=now, round=old.round + 1, forced=False)
            entry = replace(entry, whole=old.whole or not named)
            if old.state is CleanupState.FAILED or (old.state is CleanupState.HELD and not old.by_hand):
                entry = _open_again(entry, now)
        entry = replace(entry, named=entry.named + self._name(transaction, run, named, entry.named))
        return self._write(transaction, old, entry)

    def requeue(
        self, transaction: Transaction, run: str, *, now: float, force: bool = False, named: bool = True
    ) -> Cleanup | None:
        """Begin a new round at once, whatever its state: a person asks.

        Args:
            transaction: in which it is requeued.
            run: the run's id.
            now: Unix seconds.
            force: delete although the run lives, or although keys are outside of its prefix; for this round only.
            named: the person means this very run. Otherwise it is one of many, and one that a person holds stays held:
                whoever asks for all that wait does not know of somebody's reason for a single one.

        Returns:
            The cleanup as it is now; None where there is none.
        """
        old = self.get(transaction, run)
        if old is None or (old.by_hand and not named):
            return old
        entry = replace(old, round=old.round + 1, updated=now, forced=force)
        if old.state is not CleanupState.RUNNING:
            entry = _open_again(entry, now)
        return self._write(transaction, old, entry)

    def purge(self, transaction: Transaction, run: str) -> bool:
        """Forget a cleanup; whether there was one."""
        old = self.get(transaction, run)
        if old is None:
            return False
        transaction.clear(self._key(run))
        transaction.clear(self._state_key(old.state, run))
        transaction.clear_range(*self._ledger.span("cleanup_key", run))
        return True

    # -- a worker's changes ----------------------------------------------------------------------------------------

    def begin(
        self,
        transaction: Transaction,
        run: str,
        *,
        task_id: str,
        token: str,
        now: float,
        lease: float,
        tries: int | None = None,
    ) -> Cleanup | None:
        """Take a cleanup that is due, or whose worker is taken for dead. Counts as a try.

        Args:
            transaction: in which it is taken.
            run: the run's id.
            task_id: the Celery task's id, for people.
            token: random text of this execution.
            now: Unix seconds.
            lease: seconds without a sign of life after which another may take it over.
            tries: how many there are; where a worker died on the last of them, it is failed.

        Returns:
            The cleanup, now running; None where there is nothing to do, or not yet.
        """
        old = self.get(transaction, run)
        if old is None or not old.is_open or (old.token != token and _is_waiting(old, now, lease)):
            return None
        died = old.state is CleanupState.RUNNING and old.token != token
        if died and tries is not None and old.attempts >= tries:
            before = f"; before: {old.error}" if old.error else ""
            error = f"workers died on it, and its {old.attempts} tries are over{before}"
            entry = replace(_rest(old, now), state=CleanupState.FAILED, error=error[:ERROR], due=now, forced=False)
            self._write(transaction, old, entry)
            return None
        entry = replace(old, state=CleanupState.RUNNING, task_id=task_id, token=token, updated=now, due=now + lease)
        if old.token != token or old.state is not CleanupState.RUNNING:  # else a commit that went through unheard
            entry = replace(entry, attempts=old.attempts + 1)
        return self._write(transaction, old, entry)

    def progress(
        self,
        transaction: Transaction,
        run: str,
        *,
        token: str,
        total: tuple[int, int],
        position: str,
        refused: int = 0,
        passes: int = 0,
        error: str = "",
        gone: Iterable[str] = (),
        now: float,
        lease: float,
    ) -> Cleanup | None:
        """Note how far it is, and that its worker lives.

        Args:
            transaction: in which it is noted.
            run: the run's id.
            token: the execution's.
            total: objects and bytes deleted over all rounds, this execution's included (not a difference: a commit
                may go through unheard and be tried again).
            position: the last key dealt with in this pass.
            refused: keys of this pass that could not be deleted.
            passes: passes of this try that have ended.
            error: the last error, kept as it was where empty.
            gone: named keys that are gone.
            now: Unix seconds.
            lease: seconds without a sign of life after which another may take it over.
        """
        old = self._own(transaction, run, token)
        if old is None:
            return None
        entry = replace(
            old,
            objects=total[0],
            bytes=total[1],
            position=position,
            refused=refused,
            passes=passes,
            error=error[:ERROR] or old.error,
            named=old.named - self._unname(transaction, run, gone),
            updated=now,
            due=now + lease,
        )
        return self._write(transaction, old, entry)

    def give_way(
        self, transaction: Transaction, run: str, *, token: str, now: float, moved: bool = True
    ) -> Cleanup | None:
        """End an execution whose time is up: pending at once. No try is counted where the pass has ``moved`` on."""
        old = self._own(transaction, run, token)
        if old is None:
            return None
        entry = replace(old, state=CleanupState.PENDING, token="", updated=now, due=now)
        return self._write(transaction, old, replace(entry, attempts=old.attempts - 1) if moved else entry)

    def finish(self, transaction: Transaction, run: str, *, token: str, seen: int, now: float) -> Cleanup | None:
        """Nothing is left: done; or pending again, where a new round was asked for since the one ``seen``."""
        old = self._own(transaction, run, token)
        if old is None:
            return None
        entry = replace(_rest(old, now), attempts=0, error="", due=now)
        if old.round == seen:
            entry = replace(entry, state=CleanupState.DONE, forced=False)
        else:
            entry = replace(entry, state=CleanupState.PENDING)
        return self._write(transaction, old, entry)

    def fail(
        self, transaction: Transaction, run: str, *, token: str, error: str, tries: int, due: float, now: float
    ) -> Cleanup | None:
        """A try has failed: pending until ``due``, or failed where this was the last of ``tries``."""
        old = self._own(transaction, run, token)
        if old is None:
            return None
        last = old.attempts >= tries
        state = CleanupState.FAILED if last else CleanupState.PENDING
        entry = replace(_rest(old, now), state=state, error=error[:ERROR])
        return self._write(transaction, old, replace(entry, due=now, forced=False) if last else replace(entry, due=due))

    def hold(
        self,
        transaction: Transaction,
        run: str,
        *,
        reason: str,
        now: float,
        token: str | None = None,
        seen: int | None = None,
    ) -> Cleanup | None:
        """Stop until an event or a person opens it again.

        Args:
            transaction: in which it is held.
            run: the run's id.
            reason: why, for people.
            now: Unix seconds.
            token: the execution's; None: a person holds it, and only a person opens it again.
            seen: the round that the worker looked at; a newer one makes it look again in place of holding.
        """
        old = self.get(transaction, run) if token is None else self._own(transaction, run, token)
        if old is None:
            return None
        entry = replace(_rest(old, now), error=reason[:ERROR], forced=False, due=now)
        if token is not None and seen is not None and old.round != seen:
            entry = replace(entry, state=CleanupState.PENDING, forced=old.forced)
        else:
            entry = replace(entry, state=CleanupState.HELD, by_hand=token is None)
        return self._write(transaction, old, entry)

    def postpone(self, transaction: Transaction, run: str, *, due: float, now: float) -> Cleanup | None:
        """Move the due time of a pending cleanup whose task was sent again, so that it is not sent at every look."""
        old = self.get(transaction, run)
        if old is None or old.state is not CleanupState.PENDING:
            return None
        return self._write(transaction, old, replace(old, due=due, updated=now))

    def restamp(self, transaction: Transaction, entry: Cleanup, *, now: float) -> bool:
        """Have an entry that a wrong clock wrote count as changed now; whether it was still what it was."""
        if self.get(transaction, entry.run) != entry:
            return False
        self._write(transaction, entry, replace(entry, updated=now, due=now))
        return True

    # -- named keys ------------------------------------------------------------------------------------------------

    def _name(self, transaction: Transaction, run: str, keys: Collection[str], named: int) -> int:
        """Write the keys that are not there yet, of ``named`` that are; how many these were."""
        wanted = {self._ledger.key("cleanup_key", run, key) for key in keys}
        if named and wanted:  # one range read: a read a key would count three times towards the transaction's size
            there = transaction.get_range(*self._ledger.span("cleanup_key", run)).wait()
            wanted -= {key for key, _ in there}
        for key in wanted:
            transaction.set(key, b"")
        return len(wanted)

    def _unname(self, transaction: Transaction, run: str, keys: Iterable[str]) -> int:
        whole = [self._ledger.key("cleanup_key", run, key) for key in set(keys)]
        reads = [(key, transaction.get(key)) for key in whole]
        there = [key for key, read in reads if read.wait() is not None]
        for key in there:
            transaction.clear(key)
        return len(there)

    # -- writing ---------------------------------------------------------------------------------------------------

    def _own(self, transaction: Transaction, run: str, token: str) -> Cleanup | None:
        entry = self.get(transaction, run)
        if entry is None or entry.state is not CleanupState.RUNNING or entry.token != token:
            return None
        return entry

    def _write(self, transaction: Transaction, old: Cleanup | None, entry: Cleanup) -> Cleanup:
        if old is None or old.state is not entry.state:
            if old is not None:
                transaction.clear(self._state_key(old.state, old.run))
            transaction.set(self._state_key(entry.state, entry.run), b"")
        transaction.set(self._key(entry.run), pack_cleanup(entry))
        return entry


def _is_waiting(entry: Cleanup, now: float, lease: float) -> bool:
    """Whether its time has not come, nor is one that cannot be."""
    return entry.due > now and not is_impossible(entry.due, now, longest=max(lease, LONGEST_WAIT))


def _open_again(entry: Cleanup, now: float) -> Cleanup:
    return replace(_rest(entry, now), state=CleanupState.PENDING, attempts=0, due=now, by_hand=False)


def _rest(entry: Cleanup, now: float) -> Cleanup:
    """The entry when nobody works on it: the next try begins at the beginning."""
    return replace(entry, position="", refused=0, passes=0, token="", updated=now)
