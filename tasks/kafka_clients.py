"""Making Kafka's clients: what librdkafka refuses is said by the names of our settings, each of them at once.

All clients get all of KAFKA_CONFIG. What means nothing to one of them, a consumer's property to a producer for example,
librdkafka leaves aside; it would say so at each start, at a level that our clients do not log.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from confluent_kafka import Consumer, KafkaException

from tasks.errors import WrongSettingError
from tasks.settings.kafka import NAMED

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

C = TypeVar("C")

# Java's, aiokafka's and franz-go's way to choose a key's partition; librdkafka has another one by default.
PARTITIONER: Final = "murmur2_random"
_OF_MEMBERS: Final = frozenset(  # mean something to members of a group alone, and must fit each other there
    {
        "group.protocol",
        "group.protocol.type",
        "group.remote.assignor",
        "group.instance.id",
        "session.timeout.ms",
        "heartbeat.interval.ms",
        "max.poll.interval.ms",
        "partition.assignment.strategy",
    }
)
_PROTOCOL: Final = "security.protocol"
_OAUTH: Final = "OAUTHBEARER"
_SECRET: Final = ("password", "secret", "key", "token", "oauthbearer.config")  # in the names of what is not shown
_LONG_ENOUGH: Final = 3  # characters of a secret that are looked for in texts


def without_group(config: dict[str, Any]) -> dict[str, Any]:
    """A configuration for a client that asks about groups, and joins none."""
    return {name: value for name, value in config.items() if name not in _OF_MEMBERS}


def fit_session(config: dict[str, Any], milliseconds: int = 10_000) -> int:
    """Our default of ``session.timeout.ms``, which may be no longer than a ``max.poll.interval.ms`` that people set."""
    longest = str(config.get("max.poll.interval.ms", ""))
    return min(milliseconds, int(longest)) if longest.isdecimal() else milliseconds


def make_client(make: Callable[[dict[str, Any]], C], config: dict[str, Any], given: Collection[str] | None = None) -> C:
    """A client.

    Args:
        make: its class.
        config: what it is told, as librdkafka names it.
        given: the names of the properties that people set; all, if not given.

    Raises:
        WrongSettingError: names each setting that librdkafka refuses, with its text.
    """
    try:
        return make(config)
    except (KafkaException, TypeError, ValueError, AttributeError) as error:
        said = find_refusals(make, config, given) or [_read_text(error)]
        raise WrongSettingError(word_refusals(said)) from None  # its cause may show secrets


def word_refusals(refusals: Iterable[str]) -> str:
    """The sentence of a `WrongSettingError`."""
    return "wrong settings: " + "; ".join(dict.fromkeys(refusals))


def find_refusals(
    make: Callable[[dict[str, Any]], object], config: dict[str, Any], given: Collection[str] | None = None
) -> list[str]:
    """What librdkafka refuses in a configuration: one sentence each. Connects to nothing.

    It says one thing at a time: what it is about is found by leaving one property after the other out.

    Args:
        make: the client's class.
        config: what it is told.
        given: the names of the properties that people set; all, if not given.
    """
    tried = {**config, "bootstrap.servers": "", "log_level": 0}
    if str(config.get("sasl.mechanism", config.get("sasl.mechanisms", ""))).upper() == _OAUTH:
        tried[_PROTOCOL] = "plaintext"  # else it asks for a token; what is looked at is the same
    names = [name for name in (config if given is None else given) if name in config and name != "bootstrap.servers"]
    found = []
    text = _try(make, tried)
    while text is not None:
        guilty = [
            name
            for name in names
            if name in tried and _try(make, {key: value for key, value in tried.items() if key != name}) != text
        ]
        guilty = [name for name in guilty if name != _PROTOCOL] or guilty  # without TLS nothing is wrong with TLS
        found.append(_word(guilty, text, config))
        if not guilty:
            break
        for name in guilty:
            del tried[name]
        text = _try(make, tried)
    return found


def _try(make: Callable[[dict[str, Any]], object], config: dict[str, Any]) -> str | None:
    """What is wrong with a configuration; None if nothing is."""
    try:
        client = make(config)
    except (KafkaException, TypeError, ValueError, AttributeError) as error:
        return _read_text(error)
    if isinstance(client, Consumer):
        client.close()
    return None


def _read_text(error: Exception) -> str:
    text = error.args[0].str() if isinstance(error, KafkaException) else str(error)
    _, colon, rest = text.partition(": ")
    return str(rest if colon and text.startswith("Failed to create") else text).strip()


def _word(guilty: Iterable[str], text: str, config: dict[str, Any]) -> str:
    """A sentence about refused properties that names our settings, and shows no secrets."""
    for name, value in config.items():
        if isinstance(value, str) and len(value) > _LONG_ENOUGH and any(part in name for part in _SECRET):
            text = text.replace(value, "***")
    if "GSSAPI" in text and not {"sasl.mechanism", "sasl.mechanisms"} & config.keys():
        return f"KAFKA_SASL_MECHANISM is empty, and {text}"
    guilty = list(guilty)
    for name in guilty:
        text = _look_at_file(name, config[name]) or text
    return f"{' and '.join(map(name_setting, guilty)) or 'KAFKA_CONFIG'}: {text}"


def _look_at_file(name: str, value: Any) -> str | None:
    """Why a file cannot be read, which librdkafka says in OpenSSL's words."""
    path = Path(str(value))
    if not name.endswith(".location") or path.is_dir():
        return None
    try:
        path.read_bytes()
    except OSError as error:
        return f"cannot read {path} ({error.strerror})"
    return f"cannot use {path} (it is no PEM file of that kind, or the key's password is wrong)"


def name_setting(name: str) -> str:
    """How people set a property of librdkafka."""
    setting = NAMED.get(name)
    return f'"{name}" in KAFKA_CONFIG' if setting is None else f"{setting.upper()} ({name})"
