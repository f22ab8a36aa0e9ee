"""Asking sentinels for the master: each once, and if none of them names it, in words why.

redis-py's own error is a page of all that it knows of each client, and says neither that the master's name is wrong nor
that the sentinels want a password of their own; and it asks one that is away three times more, with pauses.
"""

from __future__ import annotations

import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final

from kombu.transport import redis
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, NoPermissionError, RedisError
from redis.retry import Retry
from redis.sentinel import MasterNotFoundError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


_EVERY: Final = 2.0  # seconds between two looks whether the master is another


class Sentinels:
    """What a pool of connections asks for its master's address.

    Args:
        manager: the sentinels as redis-py has them; stays its maker's, who closes it.
    """

    def __init__(self, manager: Any) -> None:
        self._manager = manager
        for sentinel in manager.sentinels:
            sentinel.set_retry(Retry(NoBackoff(), 0))

    def discover_master(self, name: str) -> tuple[str, int]:
        """Host and port of the master, as the first sentinel that knows it has it.

        Raises:
            MasterNotFoundError: none does; says why, sentinel by sentinel.
        """
        reasons: dict[str, str] = {}
        found: list[Any] = self._manager.sentinels
        for place, sentinel in enumerate(found):
            given = sentinel.connection_pool.connection_kwargs
            where = f"{given['host']}:{given['port']}"
            try:
                masters = sentinel.sentinel_masters()
            except (AuthenticationError, NoPermissionError) as error:
                reasons[where] = f"{error}: look at REDIS_SENTINEL_USERNAME and REDIS_SENTINEL_PASSWORD"
            except RedisError as error:
                reasons[where] = str(error)
            else:
                state = masters.get(name)
                if state is not None and self._manager.check_master_state(state, name):
                    found[0], found[place] = sentinel, found[0]  # who knew it last is asked first
                    return state["ip"], state["port"]
                reasons[where] = _explain(masters, name)
        raise MasterNotFoundError(show_reasons(name, reasons))


def _explain(masters: Mapping[str, Any], name: str) -> str:
    if name in masters:
        return "it takes the master for down"
    known = ", ".join(sorted(masters)) or "none"
    return f"it knows no such master, but {known}: look at REDIS_SENTINEL_MASTER"


def show_reasons(name: str, reasons: Mapping[str, str]) -> str:
    """Why no sentinel names the master, each reason once.

    Args:
        name: the master's.
        reasons: by sentinel.
    """
    by_reason: dict[str, list[str]] = {}
    for where, reason in reasons.items():
        by_reason.setdefault(reason.removesuffix("."), []).append(where)
    told = "; ".join(f"{', '.join(places)}: {reason}" for reason, places in by_reason.items())
    return f"no sentinel names the master {name!r} ({told})"


class AsksSentinels:
    """Mixed into kombu's channel: its pools ask `Sentinels`, and it does not stay with a master of before.

    Sentinels leave a master that was replaced in peace one for ten seconds, and its connections open. What is sent to
    it in that time is lost, and who reads from it reads nothing of what is sent to the new one.
    """

    _looked = 0.0  # when somebody asked for the master for the sake of what is sent

    def _sentinel_managed_pool(self, asynchronous: bool = False) -> Any:
        pool: Any = super()._sentinel_managed_pool(asynchronous)  # type: ignore[misc] # of the class it is mixed into
        pool.sentinel_manager = pool.proxy.sentinel_manager = Sentinels(pool.sentinel_manager)
        return pool

    @contextmanager
    def conn_or_acquire(self: Any, client: Any = None) -> Iterator[Any]:
        """A client for whatever is sent, of the server that is the master now (looked at every two seconds)."""
        if client is None and time.monotonic() - self._looked > _EVERY:
            self._looked = time.monotonic()
            with suppress(RedisError):
                self.pool.get_master_address()  # where it is another, connections that wait in the pool are closed
        with super().conn_or_acquire(client) as given:  # type: ignore[misc] # of the class it is mixed into
            yield given

    def follow_master(self: Any) -> None:
        """Leave a server that is the master no more: what is read from is connected to anew, to the one that is."""
        try:
            master = self.async_pool.get_master_address()
        except RedisError:
            return  # a connection that is there may be as good as ever
        for name in ("client", "subclient"):
            connection: Any = getattr(self.__dict__.get(name), "connection", None)
            if getattr(connection, "_sock", None) is not None and (connection.host, connection.port) != master:
                redis.logger.warning("another is the master now: leaving %s:%s", connection.host, connection.port)
                connection.disconnect()


class FollowsMaster:
    """Mixed into kombu's transport: a worker's loop looks now and then whether its master still is one."""

    def register_with_event_loop(self: Any, connection: Any, loop: Any) -> None:
        """Have the loop read from the connection."""
        super().register_with_event_loop(connection, loop)  # type: ignore[misc] # of the class it is mixed into
        before = getattr(self.cycle, "following", None)
        if before is not None:
            before.cancel()
        self.cycle.following = loop.call_repeatedly(_EVERY, self.follow_master)

    def follow_master(self: Any) -> None:
        """Let each channel look."""
        for channel in list(self.cycle._channels):
            channel.follow_master()
