"""The envelope of an ingestion record: JSON bytes to a typed object, or the reason why not.

The parser is pydantic's, the same that the stock frontier and worker use, so what is JSON and what is a time is decided
alike: ``NaN`` and ``Infinity`` are taken, integers have any size, nesting ends at 200 levels (CONTRACT 3 and 7.1).
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from pydantic import TypeAdapter, ValidationError
from typing_extensions import TypedDict  # pydantic needs this one below Python 3.12

from storage.errors import InvalidRecord

if TYPE_CHECKING:
    from storage.batch import Record


class Envelope(NamedTuple):
    """One ingestion message.

    Attributes:
        type: message type; may be none that we know.
        run_id: the run, taken as it is, also empty.
        timestamp: when the frontier wrote it, Unix seconds; every time that we store but a tombstone's is this one.
        payload: what the type needs.
    """

    type: str
    run_id: str
    timestamp: float
    payload: dict[str, Any]


class _Message(TypedDict):
    type: str
    run_id: str
    timestamp: datetime
    payload: dict[str, Any]


_MESSAGE: Final = TypeAdapter(_Message)
_validate = _MESSAGE.validator.validate_json


def decode(record: Record) -> Envelope:
    """The envelope of a record.

    Raises:
        InvalidRecord: no value, no JSON, or a field is missing or of the wrong type; says which.
    """
    if record.value is None:
        msg = "the record has no value (a Kafka tombstone)"
        raise InvalidRecord(msg)
    try:
        message = _validate(record.value)
    except ValidationError as error:
        raise InvalidRecord(_explain(error)) from None
    time: datetime = message["timestamp"]
    if time.tzinfo is None:
        time = time.replace(tzinfo=UTC)
    return Envelope(message["type"], message["run_id"], time.timestamp(), message["payload"])


def _explain(error: ValidationError) -> str:
    problems = []
    for problem in error.errors(include_url=False, include_context=False):
        where = ".".join(str(part) for part in problem["loc"])
        problems.append(f"{where}: {problem['msg']}" if where else problem["msg"])
    return "; ".join(problems)[:500]
