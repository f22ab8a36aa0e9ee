"""Kinds of settings: what may be written on a field beside its type, and how values are shown to people."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Annotated, Any, Final
from urllib.parse import urlsplit

from pydantic import AfterValidator
from pydantic_settings import BaseSettings, SettingsConfigDict

from storage.masking import HIDDEN, mask_url
from tasks.cron import parse_cron

_STORE_SCHEMES: Final = ("sqlite:///", "fdb:///")
_REDIS_SCHEMES: Final = ("redis://", "rediss://", "unix://", "sentinel://", "redis+socket://")


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
    for part in url.split(";"):  # several sentinels
        try:
            _ = urlsplit(part).port
        except ValueError as error:
            msg = "what stands where the port should is no number; write / ? # @ : in a password as %2F %3F %23 %40 %3A"
            raise ValueError(msg) from error
    return url


def _check_cron(line: str) -> str:
    parse_cron(line)
    return line


CronLine = Annotated[str, AfterValidator(_check_cron)]
StoreURL = Annotated[str, AfterValidator(_check_store)]
RedisURL = Annotated[str, AfterValidator(_check_redis)]


def show(value: Any, secret: Secret | None) -> Any:
    """A setting's value as it may be shown to people and written to logs."""
    if secret is Secret.HIDDEN:
        return HIDDEN if value else value
    return mask_url(value) if isinstance(value, str) else value
