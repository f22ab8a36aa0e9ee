"""One entry of the cleanup ledger, and its bytes."""

from __future__ import annotations

from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Any, Final, Literal

import msgpack

Origin = Literal["event", "orphans", "hand"]

ERROR: Final = 2_000  # characters kept of an error
LONGEST_WAIT: Final = 60.0  # seconds between two tries


class CleanupState(StrEnum):
    """Where a cleanup stands."""

    PENDING = "pending"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    HELD = "held"


OPEN: Final = (CleanupState.PENDING, CleanupState.RUNNING)


@dataclass(frozen=True, slots=True)
class Cleanup:
    """One run's cleanup. Times are Unix seconds.

    Attributes:
        run: the run's id.
        state: where it stands.
        source: who asked for it: an ``event``, the sweep for ``orphans``, or a person (``hand``).
        created: when it was asked for first.
        updated: when it last changed.
        due: pending: when its next try may begin; running: when whoever works on it is taken for dead.
        round: raised by each ask and requeue; a round that begins while it runs makes it list once more.
        attempts: tries begun in this round that did not end well (a killed worker's is one).
        objects: objects deleted so far, over all rounds.
        bytes: their size, as far as it was known.
        error: the last error, or why it is held; empty once done.
        whole: whether everything under the run's prefix is to go; else only the named keys.
        named: keys that an event named and that are still there.
        forced: a person said to delete although the run lives, or although keys are foreign; ends with the round.
        by_hand: held by a person: only a person's requeue opens it again.
        position: the last key of this pass over the prefix that was dealt with, for the next slice to go on from.
        refused: keys that could not be deleted in this pass.
        passes: passes over the prefix of this try that have ended and had found something.
        task_id: the last Celery task that began it.
        token: the execution that works on it.
    """

    run: str
    state: CleanupState
    source: Origin
    created: float
    updated: float
    due: float
    round: int = 1
    attempts: int = 0
    objects: int = 0
    bytes: int = 0
    error: str = ""
    whole: bool = True
    named: int = 0
    forced: bool = False
    by_hand: bool = False
    position: str = ""
    refused: int = 0
    passes: int = 0
    task_id: str = ""
    token: str = ""

    @property
    def is_open(self) -> bool:
        """Whether something is still to be done without a person."""
        return self.state in OPEN


_FIELDS: Final = tuple(field.name for field in fields(Cleanup) if field.name != "run")


def pack_cleanup(entry: Cleanup) -> bytes:
    """The bytes of an entry, without its run."""
    values: dict[str, Any] = {name: getattr(entry, name) for name in _FIELDS}
    packed: bytes = msgpack.packb(values | {"state": str(entry.state)}, unicode_errors="replace")
    return packed


def unpack_cleanup(run: str, value: bytes) -> Cleanup:
    """The inverse of `pack_cleanup`."""
    values = msgpack.unpackb(value)
    known = {name: values[name] for name in _FIELDS if name in values}  # a newer release may have written more
    return Cleanup(**(known | {"run": run, "state": CleanupState(known["state"])}))
