"""Kinds of settings: what may be written on a field beside its type, and how values are shown to people."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from typing import Annotated, Any, Final

from pydantic import AfterValidator
from pydantic_settings import BaseSettings, SettingsConfigDict

from tasks.cron import parse_cron

_STORE_SCHEMES: Final = ("sqlite:///", "fdb:///")
_REDIS_SCHEMES: Final = ("redis://", "rediss://", "unix://", "sentinel://", "redis+socket://")
HIDDEN: Final = "***"


class Secret(Enum):
    """A setting that may come from a file (``NAME_FILE``), by how much of it is shown."""

    HIDDEN = "hidden"  # nothing
    URL = "url"  # all but passwords in it
    SHOWN = "shown"  # it goes with a secret, and is none


@dataclass(frozen=True)
class AlsoNamed:
    """Another name of a setting in the environment, one that the stock workers have.

    Attributes:
        name: in capitals.
        yields: where both names are given, the field's own wins; otherwise that is an error.
    """

    name: str
    yields: bool = False


class Section(BaseSettings):
    """Settings of one subject. What is common to all of them stands here."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore", env_file=".env", hide_input_in_errors=True)


def _check_store(url: str) -> str:
    if not url.startswith(_STORE_SCHEMES):
        msg = "use sqlite:///path.db or fdb:///path/to/fdb.cluster"
        raise ValueError(msg)
    return url


def _check_redis(url: str) -> str:
    if not url.startswith(_REDIS_SCHEMES):
        msg = f"use a URL that starts with one of {', '.join(_REDIS_SCHEMES)}"
        raise ValueError(msg)
    return url


def _check_cron(line: str) -> str:
    parse_cron(line)
    return line


CronLine = Annotated[str, AfterValidator(_check_cron)]
StoreURL = Annotated[str, AfterValidator(_check_store)]
RedisURL = Annotated[str, AfterValidator(_check_redis)]

# A password may hold anything but what ends its part of the URL: the last @ before the next URL ends it.
_USER_INFO: Final = re.compile(r"(://)(?!/)(?:([^:@/;,\s]*):)?[^;,\s]*@")
_PARAMETER: Final = re.compile(r"([?&;][^=&;\s]*(?:password|secret|token|sig|key)=)[^&;\s]*", re.IGNORECASE)


def mask_url(text: str) -> str:
    """``text`` without the passwords in the URLs that it holds."""

    def hide(found: re.Match[str]) -> str:
        user = found.group(2)
        return f"{found.group(1)}{'' if user is None else user + ':'}{HIDDEN}@"

    return _PARAMETER.sub(rf"\1{HIDDEN}", _USER_INFO.sub(hide, text))


def show(value: Any, secret: Secret | None) -> Any:
    """A setting's value as it may be shown to people and written to logs."""
    if secret is Secret.HIDDEN:
        return HIDDEN if value else value
    return mask_url(value) if isinstance(value, str) else value
