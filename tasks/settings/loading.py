"""All settings in one object, and how a program gets it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from pydantic import ValidationError, model_validator

from tasks.errors import WrongSettingError
from tasks.settings.blobs import BlobSettings, find_wrong_versions
from tasks.settings.bridge import BridgeSettings
from tasks.settings.jobs import JobSettings
from tasks.settings.kafka import KafkaSettings
from tasks.settings.kinds import show, show_wrong
from tasks.settings.operations import OperationSettings
from tasks.settings.production import find_development_defaults
from tasks.settings.redis import RedisSettings, find_wrong_sentinels
from tasks.settings.sources import GivenSource, find_secret, read_given
from tasks.settings.store import StoreSettings

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pydantic_settings import BaseSettings, PydanticBaseSettingsSource


class Settings(
    OperationSettings, JobSettings, BlobSettings, BridgeSettings, RedisSettings, KafkaSettings, StoreSettings
):
    """All settings. The name in the environment is the field's in capitals, for example ``STORAGE_URL``.

    Names that the stock workers have keep their meaning (CONTRACT 8.3); the others are ours.
    """

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        wrong = find_development_defaults(self)
        if bool(self.kafka_sasl_username) != bool(self.kafka_sasl_password):
            wrong.append("KAFKA_SASL_USERNAME and KAFKA_SASL_PASSWORD belong together: set both or none")
        wrong += find_wrong_versions(self)
        wrong += find_wrong_sentinels(self)
        if self.storage_timeout_seconds >= self.task_time_limit_seconds:
            wrong.append("STORAGE_TIMEOUT_SECONDS must be below TASK_TIME_LIMIT_SECONDS")
        if wrong:
            raise ValueError("; ".join(wrong))
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """What is given in code wins over the environment and ``.env``."""
        del env_settings, file_secret_settings
        file: str | Path | None = getattr(dotenv_settings, "env_file", None)
        return init_settings, GivenSource(settings_cls, None if file is None else Path(file))

    def __repr_args__(self) -> Iterable[tuple[str | None, Any]]:
        return [
            (name, show(getattr(self, name), find_secret(field))) for name, field in type(self).model_fields.items()
        ]


def load_settings(env_file: Path | None = Path(".env"), **given: Any) -> Settings:
    """The settings of this process.

    Args:
        env_file: a file of ``NAME=value`` lines, read where it exists; the environment wins over it.
        given: fields that win over both, such as those of the command line.

    Raises:
        WrongSettingError: names every wrong setting and its value, unless that is secret.
    """
    try:
        return Settings(**{"_env_file": env_file, **given})
    except ValidationError as error:
        raise WrongSettingError(_explain(error, env_file, given)) from None  # its cause would show secrets


def _explain(error: ValidationError, env_file: Path | None, given: dict[str, Any]) -> str:
    outside = read_given(Settings, env_file)
    lines = []
    for problem in error.errors():
        message = problem["msg"].removeprefix("Value error, ")
        if not problem["loc"]:
            lines.append(message)
            continue
        field = str(problem["loc"][0])
        name, value = field.upper(), problem["input"]
        if field in outside and field not in given:
            name, value = outside[field].name, outside[field].value
        secret = find_secret(Settings.model_fields[field]) if field in Settings.model_fields else None
        lines.append(f"{name}={show_wrong(value, secret)!r}: {message}")
    return "wrong settings: " + "; ".join(lines)
