"""The page of settings."""

from __future__ import annotations

import json
import types
import typing
from typing import TYPE_CHECKING, Any, Final

from pydantic_core import PydanticUndefined

from matyan_celery.reference.tables import NOTE, make_table, read_descriptions
from tasks.settings.blobs import BlobSettings
from tasks.settings.bridge import BridgeSettings
from tasks.settings.jobs import JobSettings
from tasks.settings.kafka import KafkaSettings
from tasks.settings.kinds import Secret, Section
from tasks.settings.operations import OperationSettings
from tasks.settings.redis import RedisSettings
from tasks.settings.sources import find_other_names, find_secret
from tasks.settings.store import StoreSettings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydantic.fields import FieldInfo

_SECTIONS: Final[dict[str, type[Section]]] = {
    "Store": StoreSettings,
    "Kafka": KafkaSettings,
    "Redis": RedisSettings,
    "Bridge and batches": BridgeSettings,
    "Blobs and cleanups": BlobSettings,
    "Periodic jobs": JobSettings,
    "Operations": OperationSettings,
}
_INTRODUCTION: Final = """\
Read from the environment, then from a file `.env` in the working directory; the environment wins. Names have no case.
An empty value means an empty text, and for numbers and switches that nothing is given. A wrong setting stops the start
with its name and what to do. `matyan-celery config` shows what is in force and where each came from.

A setting marked **file** may stand in a file instead: `S3_SECRET_KEY_FILE=/run/secrets/s3`. Giving both is an error.
Those marked **secret** are never shown. The names of the stock Matyan workers keep their meaning; a second name in the
first column is the stock workers' name of the same setting.
"""
_DEFAULTS: Final = {  # defaults that depend on something, in words
    "storage_url": "see there",
    "heartbeat_folder": "`matyan-celery` in the system's temporary folder",
    "kafka_config": "`{}`",
    "blob_uri_secret": "the development key",
}
_BOUNDS: Final = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}


def write_settings() -> str:
    """The page."""
    lines = [NOTE, "# Settings", "", _INTRODUCTION]
    for title, section in _SECTIONS.items():
        lines += [f"## {title}", "", *make_table(("name", "default", "values", "meaning"), _rows(section)), ""]
    return "\n".join(lines)


def _rows(section: type[Section]) -> Iterator[tuple[str, str, str, str]]:
    meanings = read_descriptions(section)
    for name, field in section.model_fields.items():
        names = [name.upper(), *(other.name for other in find_other_names(field))]
        yield ", ".join(f"`{each}`" for each in names), _default(name, field), _values(field), meanings[name]


def _default(name: str, field: FieldInfo) -> str:
    if name in _DEFAULTS:
        return _DEFAULTS[name]
    if field.default is None or field.default is PydanticUndefined:
        return "unset"
    return f"`{json.dumps(field.default).strip(chr(34))}`" if field.default != "" else "empty"


def _values(field: FieldInfo) -> str:
    """What may be given, in a few words."""
    kind, metadata = field.annotation, list(field.metadata)
    if typing.get_origin(kind) in {types.UnionType, typing.Union}:  # optional
        kind = next(part for part in typing.get_args(kind) if part is not type(None))
    while typing.get_origin(kind) is typing.Annotated:
        kind, *more = typing.get_args(kind)
        metadata += more
    parts = [_kind(kind)]
    parts += [f"{word} {_bound(metadata, bound)}" for bound, word in _BOUNDS.items() if _bound(metadata, bound) != ""]
    secret = find_secret(field)
    if secret is not None:
        parts.append("**file**" if secret is Secret.SHOWN else "**secret**, **file**")
    return ", ".join(part for part in parts if part)


def _kind(kind: Any) -> str:
    if typing.get_origin(kind) is typing.Literal:
        return ", ".join(f"`{value}`" for value in typing.get_args(kind))
    if typing.get_origin(kind) is dict:
        return "JSON"
    return {bool: "true, false", int: "whole number", float: "number"}.get(kind, "")


def _bound(metadata: list[Any], bound: str) -> str:
    """A bound among a field's constraints, as text; empty if there is none."""
    for mark in metadata:
        for part in (mark, *getattr(mark, "metadata", ())):
            value = getattr(part, bound, None)
            if value is not None:
                return f"{value:g}" if isinstance(value, float) else f"{value:,}"
    return ""
