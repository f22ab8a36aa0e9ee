"""What Celery is told of Redis: the one place where our settings become kombu's, for all who send and receive."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from tasks.errors import WrongSettingError
from tasks.settings.redis_url import Kind, Verify

if TYPE_CHECKING:
    from tasks.settings import Settings
    from tasks.settings.redis_url import TLS, RedisAddress

_VERIFY: Final = {
    Verify.REQUIRED: ssl.CERT_REQUIRED,
    Verify.OPTIONAL: ssl.CERT_OPTIONAL,
    Verify.NONE: ssl.CERT_NONE,
}
# Without these a half-open connection to Redis, or to a sentinel, holds whoever uses it up for minutes.
_SOCKET: Final = {"socket_timeout": 5, "socket_connect_timeout": 5, "socket_keepalive": True}

_SENTINEL: Final = {**_SOCKET, "socket_timeout": 2, "socket_connect_timeout": 2}  # it answers at once, or is away


def configure_broker(settings: Settings) -> dict[str, Any]:
    """Celery's settings of the broker: URL, TLS, and the transport's options that say where and how to connect.

    TLS is named apart from the URL, since that is where all clients look for it, and always with what is verified:
    kombu's default for a bare ``rediss://`` is to verify nothing.
    """
    address = settings.redis_address()
    options: dict[str, Any] = {**_SOCKET, "health_check_interval": 5}
    if address.kind is Kind.SENTINEL:
        options |= {"master_name": settings.redis_sentinel_master, "sentinel_kwargs": _configure_sentinels(settings)}
    if settings.redis_key_prefix:
        options["global_keyprefix"] = settings.redis_key_prefix
    names: dict[str, str] = {}
    if settings.queue_prefix:
        names, keys = _name(settings.queue_prefix)
        options |= keys
    tls = {} if address.tls is None else {"broker_use_ssl": _configure_tls(address.tls)}
    return {"broker_url": write_kombu_url(address), **tls, **names, "broker_transport_options": options}


def _name(prefix: str) -> tuple[dict[str, str], dict[str, str]]:
    """What Celery names beside the queues: where its commands and events go, and the keys of what is in work.

    Each would else be one for all who share a database: status would see the others' workers, Flower their tasks, and
    what one holds for longer than the other's time limit would come back while it is in work.
    """
    names = {"control_exchange": "celery", "event_exchange": "celeryev", "event_queue_prefix": "celeryev"}
    keys = {"unacked_key": "unacked", "unacked_index_key": "unacked_index", "unacked_mutex_key": "unacked_mutex"}
    return (
        {setting: prefix + name for setting, name in names.items()},
        {option: prefix + name for option, name in keys.items()},
    )


def check_files(address: RedisAddress) -> None:
    """Read the files that REDIS_URL names: connecting would say that one is missing, and not which.

    Raises:
        WrongSettingError: names the parameter, the file and why.
    """
    for name, path in address.tls.files.items() if address.tls is not None else ():
        try:
            if Path(path).is_dir():
                next(Path(path).iterdir(), None)
            else:
                Path(path).open("rb").close()
        except OSError as error:
            msg = f"REDIS_URL: {name}={path}: cannot be read ({error.strerror}): name one that this process may read"
            raise WrongSettingError(msg) from error


def write_kombu_url(address: RedisAddress) -> str:
    """An address as kombu reads it."""
    user_info = ""
    if address.user or address.password:
        user_info = f"{_quote(address.user)}:{_quote(address.password)}@"
    provider = f"credential_provider={_quote(address.credential_provider)}" if address.credential_provider else ""
    if address.kind is Kind.SOCKET:
        query = "&".join(part for part in (f"virtual_host={address.database}", provider) if part)
        return f"redis+socket://{user_info}{quote(address.path)}?{query}"
    scheme = "sentinel" if address.kind is Kind.SENTINEL else "redis" if address.tls is None else "rediss"
    query = f"?{provider}" if provider else ""
    # Each of the sentinels' URLs says it all: kombu takes user and database from the one that it has come to.
    return ";".join(f"{scheme}://{user_info}{node}/{address.database}{query}" for node in address.nodes)


def _quote(text: str) -> str:
    return quote(text, safe="")


def _configure_tls(tls: TLS) -> dict[str, Any]:
    named = {
        "ssl_ca_certs": tls.ca_file,
        "ssl_ca_path": tls.ca_folder,
        "ssl_certfile": tls.certificate,
        "ssl_keyfile": tls.key,
        "ssl_password": tls.key_password,
    }
    given = {name: value for name, value in named.items() if value}
    return {"ssl_cert_reqs": _VERIFY[tls.verify], "ssl_check_hostname": tls.check_hostname, **given}


def _configure_sentinels(settings: Settings) -> dict[str, Any]:
    """How each sentinel is spoken to. Only plain values: Flower shows Celery's settings."""
    tls = settings.redis_address().tls
    secure = {"ssl": True, **_configure_tls(tls)} if tls is not None and settings.redis_sentinel_tls else {}
    named = {"username": settings.redis_sentinel_username, "password": settings.redis_sentinel_password}
    who = {name: value for name, value in named.items() if value}
    return {**_SENTINEL, **who, **secure}
