"""Where settings come from: the environment wins over ``.env``; secrets may stand in files (``NAME_FILE``)."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from dotenv import dotenv_values
from pydantic_settings import PydanticBaseSettingsSource

from tasks.errors import WrongSettingError
from tasks.settings.kinds import AlsoNamed, Secret

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic.fields import FieldInfo
    from pydantic_settings import BaseSettings

_FILE: Final = "_FILE"


class Given(NamedTuple):
    """A setting that was given.

    Attributes:
        name: by which it was given, in capitals, ``_FILE`` included.
        value: its text.
        origin: where it stands, for people.
    """

    name: str
    value: str
    origin: str


def find_secret(field: FieldInfo) -> Secret | None:
    """How secret a field is, if it is."""
    return next((mark for mark in field.metadata if isinstance(mark, Secret)), None)


def find_other_names(field: FieldInfo) -> list[AlsoNamed]:
    """The other names of a field."""
    return [mark for mark in field.metadata if isinstance(mark, AlsoNamed)]


def setting_names(settings: type[BaseSettings]) -> set[str]:
    """Every name in the environment that configures us."""
    names: set[str] = set()
    for name, field in settings.model_fields.items():
        names.add(name.upper())
        names |= {other.name for other in find_other_names(field)}
        if find_secret(field) is not None:
            names.add(name.upper() + _FILE)
    return names


def read_given(settings: type[BaseSettings], env_file: Path | None) -> dict[str, Given]:
    """What the environment and an ``.env`` file give, by field.

    Args:
        settings: which fields there are.
        env_file: a file of ``NAME=value`` lines, read where it exists.

    Raises:
        WrongSettingError: a file cannot be read, or one setting is given twice.
    """
    layers = [("environment", _by_capitals(os.environ))]
    if env_file is not None and env_file.is_file():
        try:
            lines = dotenv_values(env_file, encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            msg = f"cannot read the settings in {env_file}: {error}"
            raise WrongSettingError(msg) from error
        layers.append((str(env_file), _by_capitals(lines)))
    found = {}
    for name, field in settings.model_fields.items():
        for origin, layer in layers:
            given = _find_in(layer, origin, name.upper(), field)
            if given is not None:
                found[name] = given
                break
    return found


def _by_capitals(layer: Mapping[str, str | None]) -> dict[str, str]:
    """Names in capitals; one that stands there in capitals wins over others that differ in case only."""
    given = {name: value for name, value in layer.items() if value is not None}
    return {**{name.upper(): value for name, value in given.items()}, **given}


def _find_in(layer: Mapping[str, str], origin: str, name: str, field: FieldInfo) -> Given | None:
    """What one layer gives for one setting."""
    text = field.annotation is str
    found = [Given(name, layer[name], origin)] if name in layer and (text or layer[name]) else []
    for other in find_other_names(field):
        if other.name in layer and (text or layer[other.name]) and not (found and other.yields):
            found.append(Given(other.name, layer[other.name], origin))
    if len({given.value for given in found}) > 1:
        msg = f"wrong settings: {found[0].name} and {found[1].name} are two names of one setting: set one of them"
        raise WrongSettingError(msg)
    file = name + _FILE
    if find_secret(field) is not None and layer.get(file):
        if found:
            msg = f"wrong settings: {name} and {file} are both given: set one of them"
            raise WrongSettingError(msg)
        return Given(file, _read_secret(file, layer[file]), f"file {layer[file]}")
    return found[0] if found else None


def _read_secret(name: str, path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8-sig").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "not UTF-8"
        msg = f"wrong settings: {name}={path!r}: cannot read this file ({why}): name one that this process may read"
        raise WrongSettingError(msg) from error


class GivenSource(PydanticBaseSettingsSource):
    """`read_given` as pydantic wants it.

    Args:
        settings: which fields there are.
        env_file: see `read_given`.
    """

    def __init__(self, settings: type[BaseSettings], env_file: Path | None) -> None:
        super().__init__(settings)
        self._env_file = env_file

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        """Not used: all fields are read at once."""
        raise NotImplementedError

    def __call__(self) -> dict[str, Any]:
        """The given values by field."""
        return {name: given.value for name, given in read_given(self.settings_cls, self._env_file).items()}
