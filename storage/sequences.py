"""Sequences of one run within a batch: metrics, objects, terminal lines, log records (CONTRACT 6.2, 6.3, 6.10, 6.11).

This is the hot path. Key prefixes are packed once a sequence; values and steps, whose keys no other record of the batch
shares, are kept and go to the transaction together, and what records share (trace, context, index entry) is written
once, both by `Sequences.flush`. All lengths of a record are checked before its first write, so that a bad record leaves
nothing.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from storage.contexts import identify_context
from storage.encoding import (
    EMPTY,
    check_key,
    pack_key,
    pack_step,
    pack_time,
    pack_value,
    span,
    unpack_key,
)
from storage.engine import KEY_LIMIT
from storage.errors import InvalidRecord, Poison

if TYPE_CHECKING:
    from storage.directories import Directories
    from storage.engine import KeyValue, Read
    from storage.envelope import Envelope
    from storage.overlay import View

_VAL: Final = pack_key("val")
_STEP: Final = pack_key("step")
_TIME: Final = pack_key("time")
_EPOCH: Final = pack_key("epoch")
_NOTHING: Final = object()
_ZERO: Final = pack_value(0.0)

LOGS: Final = "logs"
LOG_RECORDS: Final = "__log_records"

_dtypes: dict[str, bytes] = {}


@lru_cache(maxsize=10_000)
def _pack_whole(step: int) -> tuple[bytes, bytes]:
    """A whole step as part of a key and as a value; runs that log side by side share many."""
    return pack_step(step), pack_value(step)


def _pack_dtype(dtype: Any) -> bytes:
    """A trace's dtype; the few that there are, are packed once."""
    if type(dtype) is not str:
        return pack_value(dtype)
    packed = _dtypes.get(dtype)
    if packed is None:
        packed = pack_value(dtype)
        if len(_dtypes) < 1_000 and len(packed) < 100:
            _dtypes[dtype] = packed
    return packed


class Sequence:
    """One sequence (run, context, name) within one batch.

    Args:
        view: the batch's layer.
        directories: key prefixes.
        run: the run id, packed.
        context: its id and itself.
        name: the sequence's name as received.
    """

    def __init__(self, view: View, directories: Directories, run: bytes, context: tuple[int, Any], name: Any) -> None:
        self._view = view
        number, self._context = context
        packed = pack_key(number) + pack_key(name)
        seqs = directories.runs + run + pack_key("seqs") + packed
        self._val, self._step, self._time, self._epoch = seqs + _VAL, seqs + _STEP, seqs + _TIME, seqs + _EPOCH
        self._trace = directories.runs + run + pack_key("traces") + packed
        self._context_key = directories.runs + run + pack_key("contexts", number)
        forward = pack_key("trace", name) + run
        self._forward = directories.indexes + forward
        self._reverse = directories.indexes + pack_key("_rev") + run + forward
        check_key(max(len(self._reverse), len(self._trace) + len(pack_key("last_step"))))
        self._greatest_read: Read[list[KeyValue]] | None = None
        self._greatest: bytes | None = None  # packed, of the steps written in this batch
        self._next: int | None = None  # the next automatic step, where it is known
        self._dtype: bytes | None = None
        self._last: bytes | None = None
        self._last_step: bytes | None = None
        self._known_context = False
        self._points: dict[bytes, bytes] = {}  # no other record of the batch looks at these
        view.start(self._context_key)

    def start_greatest(self) -> None:
        """Start looking for the greatest step, for automatic ones."""
        if self._greatest_read is None:
            self._greatest_read = self._view.transaction.get_range(*span(self._val), limit=1, reverse=True)

    def next_step(self) -> Any:
        """The greatest step there is, in the order of keys, plus one; 0 where there is none.

        Raises:
            InvalidRecord: the greatest step is no number.
        """
        if self._next is not None:
            return self._next
        self.start_greatest()
        greatest = self._greatest
        if self._greatest_read is not None:  # as of the batch's begin; later steps are in _greatest
            for key, _ in self._greatest_read.wait():
                stored = key[len(self._val) :]
                greatest = stored if greatest is None else max(greatest, stored)
        self._greatest = greatest
        if greatest is None:
            return 0
        step = unpack_key(greatest)[0]
        if not isinstance(step, (int, float)):
            msg = f"no automatic step follows step {step!r}"
            raise InvalidRecord(msg)
        return step + 1

    def write(
        self, step: Any, value: bytes, *, time: float, epoch: Any, dtype: Any, last: bytes | None, automatic: bool
    ) -> None:
        """Write one point. ``value`` and ``last`` are packed; ``epoch`` and ``last`` may be None: not written.

        Raises:
            InvalidRecord, KeyTooLarge, ValueTooLarge: and nothing is written.
        """
        step_key, step_value = _pack_whole(step) if type(step) is int else (pack_step(step), pack_value(step))
        if len(self._epoch) + len(step_key) > KEY_LIMIT:
            self._check_keys(step_key, with_epoch=epoch is not None)
        epoch_value = pack_value(epoch) if epoch is not None else None
        packed_dtype = _pack_dtype(dtype)
        if not self._known_context:
            self._find_context()
        points = self._points
        points[self._val + step_key] = value
        points[self._step + step_key] = step_value
        points[self._time + step_key] = pack_time(time)
        if epoch_value is not None:
            points[self._epoch + step_key] = epoch_value
        self._dtype = packed_dtype
        if last is not None:
            self._last = last
        if step is not None:
            self._last_step = step_value
        if self._greatest is None or step_key > self._greatest:
            self._greatest = step_key
            self._next = step + 1 if automatic and type(step) is int else None

    def _check_keys(self, step_key: bytes, *, with_epoch: bool) -> None:
        check_key(max(len(self._epoch if with_epoch else self._step), len(self._step)) + len(step_key))

    def _find_context(self) -> None:
        """Write the context where the store lacks it."""
        if self._view.get(self._context_key) is None:
            self._view.set(self._context_key, pack_value(self._context))
        self._known_context = True

    def flush(self) -> None:
        """Write the points, and what the batch's records share once."""
        if self._dtype is None:
            return
        view = self._view
        view.transaction.set_all(self._points)
        self._points = {}
        view.set(self._trace + pack_key("dtype"), self._dtype)
        if self._last is not None:
            view.set(self._trace + pack_key("last"), self._last)
        if self._last_step is not None:
            view.set(self._trace + pack_key("last_step"), self._last_step)
        view.set(self._forward, EMPTY)
        view.set(self._reverse, EMPTY)
        self._dtype = self._last = self._last_step = None


class Sequences:
    """The sequences of one run within one batch.

    Args:
        view: the batch's layer.
        directories: key prefixes.
        run: the run id, packed.
    """

    def __init__(self, view: View, directories: Directories, run: bytes) -> None:
        self._view = view
        self._directories = directories
        self._run = run
        self._found: dict[tuple[int, Any], Sequence] = {}

    def find(self, name: Any, context: Any) -> Sequence:
        """The sequence of a name and context as received.

        Raises:
            InvalidRecord, KeyTooLarge: there can be no such sequence.
        """
        number = identify_context(context)
        # True, 1 and 1.0 are one key to a dict, but three names to the store
        key = (number, name if type(name) is str else pack_key(name))
        sequence = self._found.get(key)
        if sequence is None:
            sequence = Sequence(self._view, self._directories, self._run, (number, context or {}), name)
            self._found[key] = sequence
        return sequence

    def start(self, envelope: Envelope) -> Sequence | None:
        """Start the reads that a record of a sequence needs. What is wrong with it is found when it is applied.

        Returns:
            The sequence, for the methods below; None where there can be none.
        """
        payload = envelope.payload
        try:
            if envelope.type == "log_terminal_line":
                return self.find(LOGS, None)
            if envelope.type == "log_record":
                sequence = self.find(LOG_RECORDS, None)
                sequence.start_greatest()
                return sequence
            sequence = self.find(payload["name"], payload.get("context"))
            if payload.get("step") is None:
                sequence.start_greatest()
        except (KeyError, Poison):
            return None
        return sequence

    def flush(self) -> None:
        """Write what records share, once."""
        for sequence in self._found.values():
            sequence.flush()

    # Each takes the sequence that `start` found for the record, or looks again, and says what is wrong.

    def log_metric(self, envelope: Envelope, found: Sequence | None) -> None:
        """CONTRACT 6.2."""
        payload = envelope.payload
        value = require(payload, "value")
        packed = pack_value(value)
        self._log(envelope, found, packed, "float", None if value is None else packed)

    def log_custom_object(self, envelope: Envelope, found: Sequence | None) -> None:
        """CONTRACT 6.3."""
        self._log(envelope, found, pack_value(require(envelope.payload, "value")), "custom", _ZERO)

    def _log(self, envelope: Envelope, found: Sequence | None, packed: bytes, default: str, last: bytes | None) -> None:
        payload = envelope.payload
        sequence = found or self.find(require(payload, "name"), payload.get("context"))
        step = payload.get("step")
        automatic = step is None
        sequence.write(
            sequence.next_step() if automatic else step,
            packed,
            time=envelope.timestamp,
            epoch=payload.get("epoch"),
            dtype=payload.get("dtype") or default,
            last=last,
            automatic=automatic,
        )

    def log_terminal_line(self, envelope: Envelope, found: Sequence | None) -> None:
        """CONTRACT 6.10; the line must be text."""
        line, step = require(envelope.payload, "line"), require(envelope.payload, "step")
        if type(line) is not str:
            msg = f"line must be a string, it is {line!r:.100}"
            raise InvalidRecord(msg)
        (found or self.find(LOGS, None)).write(
            step, pack_value(line), time=envelope.timestamp, epoch=None, dtype=LOGS, last=_ZERO, automatic=False
        )

    def log_record(self, envelope: Envelope, found: Sequence | None) -> None:
        """CONTRACT 6.11."""
        payload = envelope.payload
        value = {
            "message": require(payload, "message"),
            "log_level": require(payload, "level"),
            "timestamp": require(payload, "timestamp"),
            "args": payload.get("extra_args"),
            "logger_info": payload.get("logger_info"),
        }
        packed = pack_value(value)
        sequence = found or self.find(LOG_RECORDS, None)
        step = sequence.next_step()
        sequence.write(
            step, packed, time=envelope.timestamp, epoch=None, dtype="log_records", last=_ZERO, automatic=True
        )


def require(payload: dict[str, Any], field: str) -> Any:
    """A field that the type cannot do without.

    Raises:
        InvalidRecord: it is missing; names it.
    """
    value = payload.get(field, _NOTHING)
    if value is _NOTHING:
        msg = f"payload.{field} is missing"
        raise InvalidRecord(msg)
    return value
