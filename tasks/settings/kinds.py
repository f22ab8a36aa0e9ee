"""Kinds of settings: what may be written on a field beside its type, and how values are shown to people."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from typing import Annotated, Any, Final

from pydantic import AfterValidator
from pydantic_settings import BaseSettings, SettingsConfigDict

from storage.masking import HIDDEN, mask_url
from tasks.cron import parse_cron
from tasks.settings.redis_url import read_redis_url

_STORE_SCHEMES: Final = ("sqlite:///", "fdb:///")
# Where a password may be in a wrong URL that `mask_url` does not see: no @ at all, or a blank or quote in it.
_UNMASKABLE: Final = re.compile(r"""(?!.*@).*://(:|[^/\[]*:[^/;,]*[^0-9/;,])|.*[\s'"]""", re.DOTALL)


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
    read_redis_url(url)
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


def show_wrong(value: Any, secret: Secret | None) -> Any:
    """A wrong setting's value as it may be shown: what cannot be read cannot always be masked either."""
    if secret is not Secret.URL or not isinstance(value, str):
        return show(value, secret)
    scheme, found, _ = value.partition("://")
    if found and _UNMASKABLE.match(value):
        return f"{scheme}://{HIDDEN}"
    before, parameters, _ = mask_url(value).partition("?")
    return before + (f"?{HIDDEN}" if parameters else "")
