"""KAFKA_CONFIG: what else librdkafka should know, as it is written in JSON, and what may not stand there."""

from __future__ import annotations

import json
from typing import Any, Final

_OURS: Final[dict[str, tuple[str, str]]] = {  # the only value that may be given, and what to do instead
    "bootstrap.servers": ("", "set KAFKA_BOOTSTRAP_SERVERS"),
    "metadata.broker.list": ("", "set KAFKA_BOOTSTRAP_SERVERS"),
    "group.id": ("", "set INGEST_GROUP and CONTROL_GROUP"),
    "client.id": ("", "leave it out: bridges know each other by theirs"),
    "enable.auto.commit": ("false", "leave it out: only what is applied is committed"),
    "auto.offset.reset": ("error", "leave it out: where to begin is decided by what is applied"),
    "allow.auto.create.topics": ("false", "leave it out: topics are made by you"),
    "enable.idempotence": ("true", "leave it out: events are published by an idempotent producer"),
    "transactional.id": ("", "leave it out: events are published without transactions"),
}
_CALLED: Final = ("logger", "on_commit", "on_delivery", "default.topic.config", "delivery.report.only.error")
_CALLS: Final = "_cb"  # how callbacks end, which JSON cannot give


def parse_kafka_config(given: Any) -> dict[str, str]:
    """The properties as librdkafka takes them: names and texts.

    Args:
        given: a JSON object as text (or the object itself); its values are texts, numbers, true or false.

    Raises:
        ValueError: it is no such object, or a property may not stand there; names each such property.
    """
    if isinstance(given, str):
        try:
            given = json.loads(given, object_pairs_hook=_Pairs)
        except (ValueError, RecursionError) as error:
            where = f" ({error.msg} at character {error.pos + 1})" if isinstance(error, json.JSONDecodeError) else ""
            msg = f'no JSON{where}: give an object such as {{"sasl.oauthbearer.method": "oidc"}}'
            raise ValueError(msg) from None  # its cause would show secrets
    if isinstance(given, dict):
        given = _Pairs(given.items())
    if not isinstance(given, _Pairs):
        msg = 'not a JSON object: give one such as {"sasl.oauthbearer.method": "oidc"}'
        raise ValueError(msg)
    found: dict[str, str] = {}
    wrong = []
    for name, value in given:
        if name in found:
            wrong.append(f'"{name}" stands there twice')
        text = _as_text(value)
        if text is None:
            wrong.append(f'"{name}" is {_name_kind(value)}: give a text, a number, true or false')
            continue
        found[name] = text
        wrong += _find_ours(name, text)
    if wrong:
        raise ValueError("; ".join(wrong))
    return found


class _Pairs(list[tuple[str, Any]]):
    """An object of JSON as it was written: a name may stand there twice."""


def _name_kind(value: Any) -> str:
    if value is None:
        return "null"
    return "an object" if isinstance(value, _Pairs | dict) else "a list"


def _as_text(value: Any) -> str | None:
    """A value as librdkafka reads it; None where it is none."""
    match value:
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case float():
            return str(int(value)) if value.is_integer() else repr(value)  # 1e3 is 1000 to people
        case str():
            return value
        case _:
            return None


def _find_ours(name: str, text: str) -> list[str]:
    if name in _CALLED or name.endswith(_CALLS):
        return [f'"{name}" cannot be set in JSON: leave it out']
    if name not in _OURS or text.lower() == _OURS[name][0]:
        return []
    return [f'"{name}" is not yours to set here: {_OURS[name][1]}']
