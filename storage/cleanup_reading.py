"""Looking at the cleanup ledger: one entry, what is left of its named keys, lists by state and run, and counts.

What the entries and keys are is said in `storage.cleanups`, which changes them.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from storage.cleanup import Cleanup, CleanupState, unpack_cleanup

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from storage.engine import Engine, Transaction
    from storage.ledger import Ledger


class CleanupReading:
    """Reads cleanups: single ones within transactions of the caller, lists in transactions of its own.

    Args:
        ledger: our directory's keys.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    # -- one run ---------------------------------------------------------------------------------------------------

    def get(self, transaction: Transaction, run: str) -> Cleanup | None:
        """The cleanup of a run; None where nobody ever asked for one."""
        return self.several(transaction, (run,)).get(run)

    def several(self, transaction: Transaction, runs: Iterable[str]) -> dict[str, Cleanup]:
        """The cleanups of those runs that have one, all reads in flight together."""
        reads = [(run, transaction.get(self._key(run))) for run in runs]
        return {run: unpack_cleanup(run, value) for run, read in reads if (value := read.wait()) is not None}

    def keys(self, transaction: Transaction, run: str, *, after: str = "", limit: int = 1_000) -> list[str]:
        """Named keys that are still to go, in order, from the first beyond ``after``."""
        begin, end = self._ledger.span("cleanup_key", run)
        if after:
            begin = self._ledger.key("cleanup_key", run, after) + b"\x00"
        pairs = transaction.get_range(begin, end, limit=limit).wait()
        return [self._ledger.elements(key)[2] for key, _ in pairs]

    # -- listing ---------------------------------------------------------------------------------------------------

    def each(
        self,
        engine: Engine,
        *,
        states: Collection[CleanupState] | None = None,
        after: str | None = None,
        page: int = 500,
    ) -> Iterator[Cleanup]:
        """Cleanups by run id, read in pages so that any number fits in memory.

        Args:
            engine: the open store.
            states: only those in one of these, state by state; None: all.
            after: only those whose run id comes after this one.
            page: entries of one read.
        """
        if states is None:
            yield from self._each(engine, ("cleanup",), after, page)
            return
        for state in states:
            yield from self._each(engine, ("cleanup_state", str(state)), after, page)

    def _each(self, engine: Engine, where: tuple[str, ...], after: str | None, page: int) -> Iterator[Cleanup]:
        begin, end = self._ledger.span(*where)
        if after is not None:
            begin = self._ledger.key(*where, after) + b"\x00"
        while True:
            start = begin

            def work(transaction: Transaction) -> tuple[list[Cleanup], bytes | None]:
                pairs = transaction.get_range(start, end, limit=page).wait()  # noqa: B023
                runs = [self._ledger.elements(key)[-1] for key, _ in pairs]
                if where == ("cleanup",):
                    found = [unpack_cleanup(run, value) for run, (_, value) in zip(runs, pairs, strict=True)]
                else:
                    reads = [(run, transaction.get(self._key(run))) for run in runs]
                    found = [unpack_cleanup(run, value) for run, read in reads if (value := read.wait()) is not None]
                return found, pairs[-1][0] if len(pairs) == page else None

            some, last = engine.read(work)
            yield from some
            if last is None:
                return
            begin = last + b"\x00"

    def count(self, engine: Engine, *, states: Collection[CleanupState] = tuple(CleanupState)) -> Counter[CleanupState]:
        """How many there are in each state, zeros included. Reads the index, entry by entry: ask for few states."""
        counts: Counter[CleanupState] = Counter(dict.fromkeys(states, 0))
        for state in states:
            begin, end = self._ledger.span("cleanup_state", str(state))
            while True:
                start = begin
                pairs = engine.read(lambda transaction: transaction.get_range(start, end, limit=10_000).wait())  # noqa: B023
                counts[state] += len(pairs)
                if len(pairs) < 10_000:
                    break
                begin = pairs[-1][0] + b"\x00"
        return counts

    def page(
        self, engine: Engine, state: CleanupState, *, runs: str = "", after: str | None = None, limit: int = 100
    ) -> tuple[list[Cleanup], str | None]:
        """Some cleanups in one state by run id, and the last run id; None for that where there are no more.

        Args:
            engine: the open store.
            state: only those in it.
            runs: only those whose run id begins so.
            after: only those whose run id comes after this one.
            limit: entries of one read.
        """
        begin = self._ledger.key("cleanup_state", str(state), runs)[:-1]  # without the text's own end
        end = begin + b"\xff"
        if after is not None:
            begin = max(begin, self._state_key(state, after) + b"\x00")
        if begin >= end:
            return [], None

        def work(transaction: Transaction) -> tuple[list[Cleanup], str | None]:
            found = [self._ledger.elements(key)[2] for key, _ in transaction.get_range(begin, end, limit=limit).wait()]
            reads = [(run, transaction.get(self._key(run))) for run in found]
            entries = [unpack_cleanup(run, value) for run, read in reads if (value := read.wait()) is not None]
            return entries, found[-1] if len(found) == limit else None

        return engine.read(work)

    def count_some(self, engine: Engine, state: CleanupState, *, most: int) -> int:
        """How many there are in a state, but no more than ``most``: so much is read and no more."""
        begin, end = self._ledger.span("cleanup_state", str(state))
        return len(engine.read(lambda transaction: transaction.get_range(begin, end, limit=most).wait()))

    # -- bytes -----------------------------------------------------------------------------------------------------

    def _key(self, run: str) -> bytes:
        return self._ledger.key("cleanup", run)

    def _state_key(self, state: CleanupState, run: str) -> bytes:
        return self._ledger.key("cleanup_state", str(state), run)
