"""Requeueing by hand: the one code behind the command line, Flower's page and the tasks that Flower's API starts.

A dead letter is applied once more, exactly once. A cleanup begins a new round in the ledger, and then its task is sent:
where Redis does not take it, or loses it, beat sends it again, since the ledger says that it is due.
"""

from __future__ import annotations

import time
import traceback
from collections import Counter
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Final, Literal

from storage.choices import CleanupChoice, LetterChoice, read_cleanups, read_letters
from storage.cleanups import CleanupState
from storage.errors import Bug, Poison, StorageError, TooLargeAlone, TransactionTooLarge
from storage.ledger import raise_epoch
from tasks.cleanup import send_cleanup
from tasks.follow_ups import send_asked

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from celery import Celery

    from storage.batch import Source
    from storage.dead_letters import DeadLetter
    from storage.engine import Transaction
    from storage.store import Store

_PAGE: Final = 20
_AWAY: Final = 30.0  # seconds; each try costs some

Choice = LetterChoice | CleanupChoice


@dataclass(frozen=True, slots=True)
class Requeued:
    """What became of one requeueing.

    Attributes:
        kind: in a word, for counting.
        words: in a sentence's part, for people.
    """

    kind: Literal["applied", "dropped", "failed again", "gone", "left as held by a person", "requeued"]
    words: str


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a requeueing of many is.

    Attributes:
        became: how many became what.
        position: where to go on; None when all were requeued.
    """

    became: Counter[str]
    position: str | None


class Requeuer:
    """Requeues what a store holds.

    Args:
        store: the open store.
        app: for sending the cleanups' tasks.
        clock: Unix seconds.
    """

    def __init__(self, store: Store, app: Celery, *, clock: Callable[[], float] = time.time) -> None:
        self._store = store
        self._app = app
        self._clock = clock
        self._away_until = 0.0

    # -- cleanups --------------------------------------------------------------------------------------------------

    def requeue_cleanup(self, run: str, *, force: bool = False, named: bool = True) -> Requeued:
        """Begin a new round of a run's cleanup, and send its task.

        Args:
            run: the run's id.
            force: delete the blobs although the run lives, or although the event's keys are outside of its prefix.
            named: a person means this very run; otherwise one that a person holds is left as it is.

        Raises:
            StorageUnavailable: the store did not answer; nothing was done.
        """
        cleanups, now = self._store.cleanups, self._clock()
        entry = self._store.engine.transact(
            lambda transaction: cleanups.requeue(transaction, run, now=now, force=force, named=named)
        )
        if entry is None:
            return Requeued("gone", "there is no cleanup of this run")
        if entry.by_hand:
            return Requeued("left as held by a person", "left: a person holds it; requeue it by its name")
        if entry.state is CleanupState.RUNNING:
            return Requeued("requeued", "requeued: it is running, and will list once more before it ends")
        done = "requeued, forced" if force else "requeued"
        return Requeued(
            "requeued", done if self._send(run) else f"{done}; Redis did not take its task, beat will send it"
        )

    def _send(self, run: str) -> bool:
        """Send a cleanup's task; a Redis that is away is asked again after a while only."""
        if time.monotonic() < self._away_until:
            return False
        if send_cleanup(self._app, run):
            return True
        self._away_until = time.monotonic() + _AWAY
        return False

    # -- dead letters ----------------------------------------------------------------------------------------------

    def requeue_letter(self, letter: DeadLetter) -> Requeued:
        """Apply a dead letter once more; one that fails again stays, with its new reason.

        Raises:
            StorageUnavailable: the store did not answer; nothing was done, or it will be found done.
        """
        store = self._store
        try:
            outcome = store.dead_letters.requeue(
                store.engine, store.meaning_of(letter.route), letter, now=self._clock()
            )
        except TransactionTooLarge as error:
            return self._keep_again(letter, TooLargeAlone(f"{error} (the record alone)"))
        except Poison as error:
            return self._keep_again(letter, error)
        except StorageError:
            raise
        except Exception as error:  # noqa: BLE001 - a handler's bug, as in storage.apply: the record stays, others go on
            return self._keep_again(letter, Bug("".join(traceback.format_exception(error))[-1_000:]))
        if outcome is None:
            return Requeued("gone", "gone: somebody else requeued or dropped it")
        if outcome.error is not None:
            return Requeued("failed again", f"failed again ({outcome.error.reason}): {outcome.error}")
        if outcome.kind == "dropped":
            return Requeued("dropped", "dropped: its run is deleted")
        if outcome.follow_up is not None:
            send_asked(self._app, [outcome.follow_up])
        return Requeued("applied", f"applied ({letter.type})")

    def _keep_again(self, letter: DeadLetter, error: Poison) -> Requeued:
        """Renew the head of a letter whose requeueing raised an error, and so wrote nothing."""
        letters, now = self._store.dead_letters, self._clock()

        def work(transaction: Transaction) -> None:
            found = letters.get(transaction, letter.source, letter.offset)
            if found is not None:
                head = found[0]
                renewed = replace(head, reason=error.reason, error=str(error), time=now, requeues=head.requeues + 1)
                letters.write_head(transaction, renewed)

        self._store.engine.transact(work)
        return Requeued("failed again", f"failed again ({error.reason}): {str(error).strip().splitlines()[-1]}")

    # -- lanes -----------------------------------------------------------------------------------------------------

    def resend(self, source: Source) -> Requeued:
        """Have a partition's bridge take it over again, which sends again all that is not applied.

        The epoch is raised, as any take-over does: what is still queued is superseded, and nothing applies twice.

        Raises:
            StorageUnavailable: the store did not answer; nothing was done.
        """
        store = self._store
        owner = store.engine.read(lambda transaction: store.ledger.standings(transaction, [source]))[source].owner
        if owner is None:
            return Requeued("gone", "gone: no bridge has taken this partition over")
        raise_epoch(store.engine, store.ledger, source, group=owner.group, lanes=owner.lanes)
        return Requeued("requeued", "the bridge takes the partition over again, and sends again what is not applied")

    # -- many ------------------------------------------------------------------------------------------------------

    def requeue_many(self, choice: Choice, position: str | None = None, *, seconds: float) -> Progress:
        """Requeue chosen cleanups or dead letters for so long, each once; go on with the position that it returns.

        The clock is looked at after each, since one alone may take long. Cleanups that a person holds are left.

        Raises:
            StorageUnavailable: the store did not answer; begin again from the same position.
        """
        deadline = time.monotonic() + seconds
        became: Counter[str] = Counter()
        while True:
            for one, end in self._read(choice, position):
                if one is not None:
                    became[one().kind] += 1
                position = end
                if position is None or time.monotonic() > deadline:
                    return Progress(became, position)

    def _read(self, choice: Choice, position: str | None) -> Iterator[tuple[Callable[[], Requeued] | None, str | None]]:
        """The requeueings of a page, each with the position behind it; None where it is the last of all."""
        if isinstance(choice, CleanupChoice):
            cleanups = read_cleanups(self._store, choice, position, limit=_PAGE)
            ones = [partial(self.requeue_cleanup, entry.run, named=False) for entry in cleanups.items]
            ends, last = cleanups.ends, cleanups.position
        else:
            letters = read_letters(self._store, choice, position, limit=_PAGE)
            ones = [partial(self.requeue_letter, letter) for letter in letters.items]
            ends, last = letters.ends, letters.position
        yield from zip(ones, ends, strict=True)
        yield None, last  # beyond what was looked at and not chosen


def find_letter(store: Store, topic: str, partition: int, offset: int) -> list[DeadLetter]:
    """The dead letters of a place that is given without cluster and topic id; one for each life of the topic."""

    def work(transaction: Transaction) -> list[DeadLetter]:
        sources = [
            source
            for source in store.ledger.sources(transaction)
            if (source.topic, source.partition) == (topic, partition)
        ]
        found = [store.dead_letters.get(transaction, source, offset) for source in sources]
        return [letter[0] for letter in found if letter is not None]

    return store.engine.read(work)
