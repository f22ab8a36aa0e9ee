"""Apply a batch to the store exactly once: judge, apply, dead-letter and move the cursor in one transaction.

A batch that cannot go through as it is goes on in parts, each of which moves the cursor, down to one record:

    whole batch ── too large, too long, contended, a bug ──▶ half ──▶ ... ──▶ one record
        one record, a delete_run ──▶ in steps, the last of which moves the cursor
        one record, still too large ──▶ dead letter
    attempt 3 and later ──▶ one record a transaction, each marked durably before it is begun;
        a mark found again is a record that may kill workers: tried once more, found a second time ──▶ dead letter
"""

from __future__ import annotations

import time
import traceback
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from storage.dead_letters import STAGED, DeadLetter, DeadLetters
from storage.errors import (
    Bug,
    KillsWorkers,
    Poison,
    Retryable,
    SplitTransaction,
    StorageError,
    TooLargeAlone,
    TransactionTooLarge,
)
from storage.judgement import Verdict, judge
from storage.ledger import Ledger, Mark, Owner, unpack_offset, unpack_owner
from storage.result import Portion, Result, State

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from storage.batch import Batch, Record, Source
    from storage.engine import Engine, Transaction
    from storage.envelope import Envelope
    from storage.meaning import Meaning, Outcome

__all__ = ["BatchApplier", "Result", "State"]

DELETE: Final = "delete_run"  # the one message whose work can be done in steps
LATE_ATTEMPT: Final = 3  # from here on workers may have died on the batch
WHOLE: Final = Portion()
DEATHS: Final = 2  # one may have been a power cut, a store that was away, or a broker that lost a retry


@dataclass(frozen=True, slots=True)
class _Part:
    """What one transaction did with the records up to ``end``."""

    verdict: Verdict
    begin: int
    outcomes: Sequence[Outcome] = ()


class _Stage(Exception):  # no error: asks for a record's chunks to be written ahead
    def __init__(self, index: int, error: Poison) -> None:
        super().__init__()
        self.index = index
        self.error = error


_ENDS: Final = {Verdict.SUPERSEDED: State.SUPERSEDED, Verdict.EARLY: State.EARLY}


class BatchApplier:
    """Applies batches to one store. Has no state but its parts: safe to use for any number of batches.

    Args:
        engine: the open store.
        ledger: our records in it.
        applier: what the messages mean.
        clock: Unix seconds, for dead letters and marks.
        patience: seconds after which whoever left a mark is taken for dead: the task's hard time limit, and some.
        budget: seconds after which an execution stops between two parts, at most half of the hard time limit.
        portion: most that goes into one transaction.
    """

    def __init__(
        self,
        engine: Engine,
        ledger: Ledger,
        applier: Meaning,
        *,
        clock: Callable[[], float] = time.time,
        patience: float = 40.0,
        budget: float = 15.0,
        portion: Portion = WHOLE,
    ) -> None:
        self.engine = engine
        self.ledger = ledger
        self._applier = applier
        self._letters = DeadLetters(ledger)
        self._clock = clock
        self._patience = patience
        self._budget = budget
        self._portion = portion

    def apply(
        self,
        batch: Batch,
        *,
        token: tuple[str, int] = ("", 0),
        into: Result | None = None,
        began: float | None = None,
    ) -> Result:
        """Apply the records of a batch that the lane's cursor does not cover yet.

        Args:
            batch: what to apply.
            token: task id and the number of its retries; tells a retry of an execution that ended from one that died.
            into: the result to add to, for a caller who wants to know what was committed before an error.
            began: when the execution began, by the clock; None: now. Opening the store may have taken some of its time.

        Raises:
            StorageUnavailable: the store did not answer. What was applied stands, nothing is lost: call again.
            Exception: a bug in a handler, before the batch's third attempt; after it, the record is dead-lettered.
        """
        began = self._clock() if began is None else began
        result = Result() if into is None else into
        late = token if batch.attempt >= LATE_ATTEMPT else None
        items: list[Envelope | Poison] = [self._decode(record) for record in batch.records]
        begin = 0
        if late is not None:
            opened = self._open_late(batch, items, late)
            if isinstance(opened, State):
                result.state = opened
                return result
            begin = result.covered = opened
        try:
            self._apply_parts(batch, items, begin, late, result, began + self._budget)
        except Retryable as error:
            if late is not None:  # or another copy of the batch would take the mark for a death
                self._try_to_forget_mark(batch, late, began, error)
            raise
        if late is not None and result.state is State.UNFINISHED:
            self._try_to_forget_mark(batch, late, began)
        return result

    def _apply_parts(
        self,
        batch: Batch,
        items: list[Envelope | Poison],
        begin: int,
        late: tuple[str, int] | None,
        result: Result,
        deadline: float,
    ) -> None:
        """Apply the records from ``begin`` on, in as many parts as it takes; ``late`` is a late attempt's token."""
        staged: set[int] = set()
        size = len(items) if late is None else 1
        after = batch.records[begin - 1].offset if begin else batch.after
        while begin < len(items):
            if self._clock() > deadline:
                result.state = State.UNFINISHED
                break
            end = self._portion.end(batch.records, items, begin, min(begin + size, len(items)))
            try:
                part = self._apply_part(batch, items, staged, begin, end, after, late)
            except _Stage as ask:
                record = batch.records[ask.index]
                self._letters.stage(self.engine, *self.origin(batch, record), record)
                items[ask.index] = ask.error
                staged.add(ask.index)
                continue
            except SplitTransaction as error:
                result.splits += isinstance(error, TransactionTooLarge)
                size = self._halve(batch, items, begin, end, after, deadline, error)
                continue
            except StorageError:
                raise
            except Exception as error:  # a handler's bug: find the record, the others apply
                if end - begin > 1:
                    size = (end - begin) // 2
                    continue
                if late is None:
                    raise
                items[begin] = Bug("".join(traceback.format_exception(error))[-1_000:])
                continue
            if part.verdict in _ENDS:
                result.state = _ENDS[part.verdict]
                return
            if part.verdict is Verdict.DUPLICATE:
                result.covered += end - begin
            else:
                done = slice(part.begin, end)
                result.add(batch.records[done], items[done], part.outcomes, part.begin - begin)
            after = batch.records[end - 1].offset
            begin = end
        if result.state is State.APPLIED and result.transactions == 0:
            result.state = State.DUPLICATE

    def _apply_part(
        self,
        batch: Batch,
        items: Sequence[Envelope | Poison],
        staged: set[int],
        begin: int,
        end: int,
        after: int,
        token: tuple[str, int] | None,
    ) -> _Part:
        """One transaction: the records from ``begin`` to ``end``; with a token, the next record is marked in it too."""

        def work(transaction: Transaction) -> _Part:
            owner_read = self.ledger.read_owner(transaction, batch.source)
            cursor_read = self.ledger.read_cursor(transaction, batch.source, batch.lane)
            application = self._applier.begin(transaction, items[begin:end])
            owner, cursor = unpack_owner(owner_read.wait()), unpack_offset(cursor_read.wait())
            verdict = self.judge(batch, owner, cursor, after=after, last=batch.records[end - 1].offset)
            if verdict is not Verdict.APPLY or cursor is None:
                return _Part(verdict, end)
            first = next(index for index in range(begin, end) if batch.records[index].offset > cursor)
            if first > begin:  # an earlier execution got this far
                application = self._applier.begin(transaction, items[first:end])
            outcomes = application.finish()
            for index, outcome in enumerate(outcomes, first):
                if outcome.error is not None:
                    self._keep(transaction, batch, items, index, outcome.error, staged=index in staged)
            self.move_cursor(transaction, batch, batch.records[end - 1].offset)
            if token is not None:
                self._mark_next(transaction, batch, end, token)
            return _Part(verdict, first, outcomes)

        # A record alone has time: only a delete_run can do with less in one transaction.
        alone = items[begin] if end - begin == 1 else None
        impatient = alone is None or (not isinstance(alone, Poison) and alone.type == DELETE)
        return self.engine.transact(work, impatient=impatient)

    def _decode(self, record: Record) -> Envelope | Poison:
        try:
            return self._applier.decode(record)
        except Poison as error:
            return error

    # Small methods of their own, so that the simulation can plant a wrong rule and show that it is found.

    def judge(self, batch: Batch, owner: Owner | None, cursor: int | None, *, after: int, last: int) -> Verdict:
        """The decision of `storage.judgement.judge` for one part."""
        return judge(owner, cursor, epoch=batch.epoch, after=after, last=last)

    def move_cursor(self, transaction: Transaction, batch: Batch, offset: int) -> None:
        """Write the lane's cursor, in the transaction that applies the records up to it."""
        self.ledger.write_cursor(transaction, batch.source, batch.lane, offset)

    def origin(self, batch: Batch, record: Record) -> tuple[Source, int]:
        """Where a record came from, for its dead letter."""
        return batch.source, record.offset

    def _keep(
        self,
        transaction: Transaction,
        batch: Batch,
        items: Sequence[Envelope | Poison],
        index: int,
        error: Poison,
        *,
        staged: bool,
    ) -> None:
        """Dead-letter one record in the transaction that moves the cursor past it."""
        record = batch.records[index]
        if record.size > STAGED and not staged:
            raise _Stage(index, error)
        letter = self._describe(batch, record, items[index], error)
        if staged:
            self._letters.keep_staged(transaction, letter, record)
        else:
            self._letters.keep(transaction, letter, record)

    def _describe(self, batch: Batch, record: Record, item: Envelope | Poison, error: Poison) -> DeadLetter:
        """The head of a dead letter; run id and type are the envelope's, else the run id is the Kafka key."""
        source, offset = self.origin(batch, record)
        if isinstance(item, Poison):
            run, kind = (record.key or b"").decode("utf-8", "replace"), ""
        else:
            run, kind = item.run_id, item.type
        place, now, route = (source, batch.lane, offset), self._clock(), self._applier.route
        return DeadLetter(*place, error.reason, str(error), now, run, kind, record.size, route=route)

    # -- doing less in one transaction ---------------------------------------------------------------------------

    def _halve(
        self,
        batch: Batch,
        items: list[Envelope | Poison],
        begin: int,
        end: int,
        after: int,
        deadline: float,
        error: SplitTransaction,
    ) -> int:
        """The size of the next part, after one was refused by the store."""
        if end - begin > 1:
            return (end - begin) // 2
        item = items[begin]
        if not isinstance(item, Poison) and item.type == DELETE:
            # Never a dead letter: what is left after the steps always fits. If nothing was left to do ahead, another
            # execution has done it, and the record itself is tried again, within the budget.
            self._shrink(batch, item, begin, after, deadline)
            return 1
        if not isinstance(error, TransactionTooLarge):
            raise error  # nothing to do less of: the store is slow or busy, the task tries again
        if isinstance(item, Poison):
            raise error  # a dead letter alone is never too large: its record is staged
        items[begin] = TooLargeAlone(f"{error} (the record alone)")
        return 1

    def _shrink(self, batch: Batch, item: Envelope, index: int, after: int, deadline: float) -> None:
        """Do a delete_run's work ahead in bounded steps, each judged like the record itself, until the deadline."""
        last = batch.records[index].offset

        def work(transaction: Transaction) -> bool:
            owner_read = self.ledger.read_owner(transaction, batch.source)
            cursor_read = self.ledger.read_cursor(transaction, batch.source, batch.lane)
            owner, cursor = unpack_owner(owner_read.wait()), unpack_offset(cursor_read.wait())
            if self.judge(batch, owner, cursor, after=after, last=last) is not Verdict.APPLY:
                return False
            return self._applier.shrink(transaction, item)

        while self.engine.transact(work):
            if self._clock() > deadline:
                return  # the steps that are done stay done

    # -- late attempts ---------------------------------------------------------------------------------------------

    def _open_late(self, batch: Batch, items: list[Envelope | Poison], token: tuple[str, int]) -> int | State:
        """Mark the first record that is left, or find that it kills workers; its index, or why there is none."""

        def work(transaction: Transaction) -> tuple[int, bool] | State:
            owner = unpack_owner(self.ledger.read_owner(transaction, batch.source).wait())
            cursor = unpack_offset(self.ledger.read_cursor(transaction, batch.source, batch.lane).wait())
            verdict = self.judge(batch, owner, cursor, after=batch.after, last=batch.last)
            if verdict is Verdict.DUPLICATE:
                return State.DUPLICATE
            if verdict is not Verdict.APPLY or cursor is None:
                return _ENDS.get(verdict, State.SUPERSEDED)
            first = next(index for index, record in enumerate(batch.records) if record.offset > cursor)
            mark = self.ledger.mark(transaction, batch.source, batch.lane)
            deaths = 0
            if mark is not None and mark.offset == batch.records[first].offset:
                deaths = mark.deaths
                if not _is_retry(token, mark.token):
                    now = self._clock()
                    if now < mark.time + self._patience:
                        if mark.time > now:  # of a clock ahead of ours: from now on it ages by ours
                            self.ledger.write_mark(transaction, batch.source, batch.lane, mark._replace(time=now))
                        return State.UNFINISHED
                    deaths += 1
            if deaths >= DEATHS:
                return first, True
            self._mark_next(transaction, batch, first, token, deaths)
            return first, False

        opened = self.engine.transact(work)
        if isinstance(opened, State):
            return opened
        first, kills = opened
        if kills:
            items[first] = KillsWorkers(f"workers died on this record at attempt {batch.attempt - 1} of its batch")
        return first

    def _mark_next(
        self, transaction: Transaction, batch: Batch, index: int, token: tuple[str, int], deaths: int = 0
    ) -> None:
        if index < len(batch.records):
            mark = Mark(batch.records[index].offset, token, self._clock(), deaths)
            self.ledger.write_mark(transaction, batch.source, batch.lane, mark)
        else:
            self.ledger.clear_mark(transaction, batch.source, batch.lane)

    def _try_to_forget_mark(
        self, batch: Batch, token: tuple[str, int], began: float, error: Retryable | None = None
    ) -> None:
        """Take back this execution's mark, if there is time: it ends alive. A mark that stays is no harm to a retry.

        Args:
            batch: whose lane it is.
            token: this execution's; a mark of another one is left alone.
            began: when it began.
            error: what it ends with, if it does.
        """
        if self._clock() > began + self._budget * 4 / 3:
            return  # two thirds of the hard limit: to be killed in the middle of it would be worse

        def work(transaction: Transaction) -> None:
            mark = self.ledger.mark(transaction, batch.source, batch.lane)
            if mark is not None and mark.token == token:
                self.ledger.clear_mark(transaction, batch.source, batch.lane)

        try:
            self.engine.transact(work)
        except Retryable as another:
            if error is None:
                raise
            error.add_note(f"the mark of the record that was under way stays: {another}")


def _is_retry(token: tuple[str, int], earlier: tuple[str, int]) -> bool:
    """Whether the execution of ``earlier`` ended by asking for the retry that ``token`` is."""
    return bool(token[0]) and token[0] == earlier[0] and token[1] > earlier[1]
