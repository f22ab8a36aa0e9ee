"""What the records of a route mean: the interface through which batches and dead letters of any topic are applied."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, NamedTuple, Protocol

from storage.outbox import OutboxEvent

if TYPE_CHECKING:
    from collections.abc import Sequence

    from storage.batch import Record
    from storage.engine import Transaction
    from storage.envelope import Envelope
    from storage.errors import Poison

INGEST: Final = "ingest"
CONTROL: Final = "control"


class CleanupAsked(NamedTuple):
    """A cleanup of this run stands in the ledger."""

    run: str


class CascadeAsked(NamedTuple):
    """A cascade of this entity stands in the ledger."""

    kind: str
    id: str


FollowUp = OutboxEvent | CleanupAsked | CascadeAsked
"""What can be done at once when the transaction is committed. It is in the store, so that beat does it otherwise."""


class Outcome(NamedTuple):
    """What became of one record.

    Attributes:
        kind: ``applied``, ``dropped`` (a late record of a deleted run), or ``dead`` (it can never be applied).
        error: why it is dead.
        follow_up: what can be done once the transaction is committed.
    """

    kind: Literal["applied", "dropped", "dead"]
    error: Poison | None = None
    follow_up: FollowUp | None = None


APPLIED: Final = Outcome("applied")
DROPPED: Final = Outcome("dropped")


class Applied(Protocol):
    """Some records within one transaction, their reads in flight."""

    def finish(self) -> list[Outcome]:
        """Apply the records in order; one outcome each.

        Raises:
            Exception: a handler has a bug; the transaction must not be committed.
        """
        ...


class Meaning(Protocol):
    """What the records of one route mean, for one store."""

    @property
    def route(self) -> str:
        """The route's name, kept with its dead letters."""
        ...

    def decode(self, record: Record) -> Envelope:
        """The envelope of a record.

        Raises:
            Poison: it has none.
        """
        ...

    def begin(self, transaction: Transaction, items: Sequence[Envelope | Poison]) -> Applied:
        """Start the reads that some records need. Waits for nothing; `Applied.finish` does the rest.

        Args:
            transaction: in which they are to be applied.
            items: the records in offset order; one that could not be decoded stands as its error.
        """
        ...

    def shrink(self, transaction: Transaction, envelope: Envelope) -> bool:
        """Do a bounded part of a message that is too large for one transaction; whether there was one to do."""
        ...
