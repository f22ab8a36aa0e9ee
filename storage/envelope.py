"""The envelope of a record: JSON bytes to a typed object, or the reason why not.

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
    """One message.

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


def decode(record: Record) -> Envelope:
    """The envelope of a record.

    Raises:
        InvalidRecord: no value, no JSON, or a field is missing or of the wrong type; says which.
    """
    message = validate(_MESSAGE, record)
    return Envelope(message["type"], message["run_id"], as_seconds(message["timestamp"]), message["payload"])


def validate(form: TypeAdapter[Any], record: Record) -> Any:
    """What a record's JSON says in this form.

    Raises:
        InvalidRecord: no value, no JSON, or not of this form.
    """
    if record.value is None:
        msg = "the record has no value (a Kafka tombstone)"
        raise InvalidRecord(msg)
    try:
        return form.validator.validate_json(record.value)
    except ValidationError as error:
        raise InvalidRecord(_explain(error)) from None


def as_seconds(time: datetime) -> float:
    """Unix seconds of an envelope's time; one without an offset is UTC."""
    return (time.replace(tzinfo=UTC) if time.tzinfo is None else time).timestamp()


def _explain(error: ValidationError) -> str:
    problems = []
    for problem in error.errors(include_url=False, include_context=False):
        where = ".".join(str(part) for part in problem["loc"])
        problems.append(f"{where}: {problem['msg']}" if where else problem["msg"])
    return "; ".join(problems)[:500]
