"""Does Redis answer, does it keep what is written, what time has it, and do workers listen behind it?"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

from kombu.exceptions import OperationalError
from redis.exceptions import RedisError, ResponseError

from matyan_celery.checks.clocks import compare_clocks
from matyan_celery.checks.finding import SECONDS, Finding
from matyan_celery.commands.condition import ask_redis
from storage.masking import mask_url
from tasks.app import make_app
from tasks.errors import WrongSettingError
from tasks.redis_answers import find_refusal

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tasks.settings import Settings

_KEEPS: Final = "noeviction"
_FULL: Final = 0.9  # of its memory


def check_redis(settings: Settings) -> Finding:
    """See whether it takes what we write: a replica, or one with a full disk, answers too."""
    return next(look_at_redis(settings))


def look_at_redis(settings: Settings) -> Iterator[Finding]:
    """First whether it answers; then, if it does, what else is to be said of it."""
    address = settings.redis_address()
    try:
        app = make_app(settings)
    except WrongSettingError as error:
        yield Finding("redis", False, str(error), "mount or mend the file")
        return
    app.conf.broker_transport_options = {
        **app.conf.broker_transport_options,
        "socket_timeout": SECONDS,
        "socket_connect_timeout": SECONDS,
        "max_retries": 1,  # who asks looks again by himself
        "interval_start": 0.2,
    }
    try:
        with app.connection_for_write() as connection:
            client: Any = connection.default_channel.client
            connection.default_channel.try_writing()
            yield Finding("redis", True, f"Redis at {address} answers, and takes what is written")
            yield from _look_at_kind(client)
            yield from _look_at_memory(client)
            yield from _look_at_clock(client)
    except (OperationalError, RedisError, OSError) as error:
        refusal = find_refusal(error)
        if refusal is not None:
            sentence = f"Redis at {address} {refusal.answer.meaning} ({mask_url(refusal.text)})"
            yield Finding("redis", False, sentence, refusal.answer.remedy)
            return
        yield Finding(
            "redis", False, f"Redis at {address} does not answer ({mask_url(str(error))})", "look at REDIS_URL"
        )
    finally:
        app.close()


def _look_at_kind(client: Any) -> Iterator[Finding]:
    """Whether it is one that Celery can use."""
    try:
        found = client.info("cluster") | client.info("replication")
    except ResponseError:
        return  # its access list does not let us ask
    if found.get("cluster_enabled"):
        sentence = "this is a node of a Redis Cluster, which moves keys to other nodes: Celery cannot follow"
        yield Finding("redis", False, sentence, "use a Redis without cluster mode, or Sentinel")
    if found.get("role") == "slave":
        primary = f"{found.get('master_host')}:{found.get('master_port')}"
        yield Finding("redis", False, f"this Redis is a replica of {primary}", "let REDIS_URL name the primary")


def _look_at_memory(client: Any) -> Iterator[Finding]:
    try:
        memory = client.info("memory")
    except ResponseError:
        return  # its access list does not let us ask
    policy = memory.get("maxmemory_policy", _KEEPS)
    if policy != _KEEPS:
        sentence = f"Redis drops keys when its memory is full (maxmemory-policy {policy})"
        yield Finding("redis", False, sentence, f"set it to {_KEEPS}, or batches vanish and are sent again for ever")
    used, most = memory.get("used_memory", 0), memory.get("maxmemory", 0)
    if most and used > most * _FULL:
        sentence = f"Redis uses {used / 1e6:,.1f} of the {most / 1e6:,.1f} MB that it may"
        yield Finding("redis", True, sentence, "raise maxmemory, before it refuses what is written")


def _look_at_clock(client: Any) -> Iterator[Finding]:
    before = time.time()
    try:
        seconds, microseconds = client.time()
    except ResponseError:
        return
    yield compare_clocks("Redis'", seconds + microseconds / 1e6 - (before + time.time()) / 2)


def check_workers(settings: Settings) -> Finding:
    """See whether every queue has a worker."""
    found = ask_redis(settings)
    if isinstance(found, str):
        return Finding("workers", False, f"workers are not known ({mask_url(found)})", "look at Redis first")
    read = set[str]().union(*found.workers.values())
    unread = sorted(set(found.queues) - read)
    if not found.workers:
        return Finding("workers", False, "no worker answers", "start some: celery -A tasks worker")
    if unread:
        remedy = "start one that does; INGEST_QUEUES and CONTROL_QUEUES must be the same everywhere"
        return Finding("workers", False, f"no worker reads {', '.join(unread)}", remedy)
    return Finding("workers", True, f"{len(found.workers)} workers read all {len(found.queues)} queues")
