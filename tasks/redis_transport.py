"""kombu's transport for Redis, which outlasts a Redis that answers and refuses.

kombu takes an error in answer for a mistake of its user's: a worker ends at once when the server becomes a replica, has
a full disk, or a new password. Here each such answer is an error of the connection, as if Redis were away, so that
whoever uses a connection (worker, bridge, beat, Flower, commands) does what he does then: waits, and comes back.

Two things go on although Redis refuses, so that it can come out of it by itself:

* a worker goes on taking messages from a Redis whose memory is full, which makes room;
* an acknowledgement that was refused is owed, and made up for when Redis takes it: the task is not done again for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from kombu.transport import TRANSPORT_ALIASES, redis, virtual
from redis.exceptions import (
    AuthenticationWrongNumberOfArgsError,
    ConnectionError,  # noqa: A004 - Redis' is not the system's
    ExecAbortError,
    NoScriptError,
    RedisError,
    ResponseError,
)

from tasks.redis_answers import ANSWERS, find_code, show_text
from tasks.redis_refusals import REFUSALS
from tasks.sentinels import AsksSentinels, FollowsMaster

if TYPE_CHECKING:
    from collections.abc import Mapping

_ALIASES: Final[Mapping[str, str]] = {
    "redis": f"{__name__}:Transport",
    "rediss": f"{__name__}:Transport",
    "sentinel": f"{__name__}:SentinelTransport",
}
_CLIENTS_OWN: Final = (NoScriptError, AuthenticationWrongNumberOfArgsError)  # what redis-py deals with itself
_OOM: Final = "OOM"
_NOTHING: Final = "nothing"  # the tag of no message


class Refused(ResponseError):
    """Redis is there, and refused.

    Attributes:
        code: the kind, one of `tasks.redis_answers.ANSWERS` or another word of Redis'.
    """

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text, status_code=code)
        self.code = code


class TransactionRefused(Refused, ExecAbortError):
    """The same, of a whole transaction: redis-py knows it by its class."""


class Answering:
    """A connection of redis-py's that makes `Refused` of the server's errors. Mixed into one of its classes."""

    _greets = False  # while it makes itself known to the server, redis-py itself tries what not all of them know

    def on_connect_check_health(self, *args: Any, **options: Any) -> None:
        """Make itself known to the server.

        Raises:
            Refused: it does not let us.
        """
        self._greets = True
        try:
            super().on_connect_check_health(*args, **options)  # type: ignore[misc] # of the class it is mixed into
        except RedisError as error:
            _note(error)
            raise
        finally:
            self._greets = False

    def read_response(self, *args: Any, **options: Any) -> Any:
        """Read an answer.

        Raises:
            Refused: it is an error. The connection is not used again: another may lead to a server that is willing.
        """
        try:
            return super().read_response(*args, **options)  # type: ignore[misc] # of the class it is mixed into
        except _CLIENTS_OWN:
            raise
        except RedisError as error:
            code = find_code(error)
            if code is None or (isinstance(error, ExecAbortError) and code not in ANSWERS):
                raise  # a transaction's reason has come before it, and redis-py raises that
            if not self._greets:
                _note(error)
                self.mark_for_reconnect()  # type: ignore[attr-defined] # of the class it is mixed into
            if not isinstance(error, ResponseError):  # redis-py's own errors of a connection are that already
                raise
            kind = TransactionRefused if isinstance(error, ExecAbortError) else Refused
            raise kind(code, show_text(code, error)) from error


def _note(error: RedisError) -> None:
    code = find_code(error)
    if code is not None:
        REFUSALS.note(code, show_text(code, error))


_answering: dict[type, type] = {}


def _answer(kind: type) -> type:
    """A class of connections, as one that makes `Refused` of errors."""
    if kind not in _answering:
        _answering[kind] = type(kind.__name__, (Answering, kind), {})
    return _answering[kind]


class _Debts:
    """Tags of messages that were done, and whose acknowledgement Redis did not take: this process owes it."""

    def __init__(self) -> None:
        self.tags: set[str] = set()


_DEBTS: Final = _Debts()


class QoS(redis.QoS):  # type: ignore[misc] # kombu has no types
    """Keeps messages that are not acknowledged, in Redis where it takes them."""

    def append(self, message: Any, delivery_tag: str) -> None:
        """Note a message that was just taken from its queue.

        Where Redis refuses to note it, it is given to the worker all the same: it is in no queue any more.
        """
        try:
            super().append(message, delivery_tag)
        except Refused:
            virtual.QoS.append(self, message, delivery_tag)

    def restore_visible(self, *args: Any, **options: Any) -> None:
        """Put back what other workers took and did not finish. Seen to by workers alone, who take so many at once."""
        if self.prefetch_count:
            super().restore_visible(*args, **options)

    def ack(self, delivery_tag: str) -> None:
        """Acknowledge a message, now or later: its worker is free for the next one in any case."""
        try:
            self.forget(delivery_tag)
        except self.channel.connection_errors:
            _DEBTS.tags.add(delivery_tag)
        virtual.QoS.ack(self, delivery_tag)

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        """Reject a message; one that cannot be put back now is put back by its visibility timeout."""
        if not requeue:
            self.ack(delivery_tag)
            return
        try:
            self.restore_by_tag(delivery_tag, leftmost=True)
        except self.channel.connection_errors as error:
            redis.logger.warning("could not put a message back: %s", error)
        virtual.QoS.ack(self, delivery_tag)

    def forget(self, *tags: str) -> None:
        """Take messages out of what is not acknowledged.

        In this order, and not in a transaction, which a Redis that is out of memory refuses whatever is in it: what is
        left if only the first came through is found, and taken away, when its time is up.
        """
        with self.channel.conn_or_acquire() as client, client.pipeline(transaction=False) as pipe:
            pipe.hdel(self.unacked_key, *tags)
            pipe.zrem(self.unacked_index_key, *tags)
            pipe.execute()


class _Channel:
    """What both channels have besides kombu's."""

    QoS = QoS

    def _connparams(self: Any, asynchronous: bool = False) -> dict[str, Any]:
        if self.connection is None:  # kombu closes a channel twice where Redis goes away, and a worker would end of it
            msg = "the channel to Redis is closed"
            raise ConnectionError(msg)
        params: dict[str, Any] = super()._connparams(asynchronous)  # type: ignore[misc] # of the class it is mixed into
        params["connection_class"] = _answer(params["connection_class"])
        return params

    def settle(self: Any) -> None:
        """See whether Redis takes writes, by making up for what is owed; of nothing, if nothing is.

        Raises:
            Refused: it does not.
        """
        owed = tuple(_DEBTS.tags)
        self.qos.forget(*(owed or (_NOTHING,)))
        _DEBTS.tags.difference_update(owed)

    def try_writing(self: Any) -> None:
        """See whether Redis takes all that is ever written, and change nothing.

        Raises:
            Refused: it does not.
        """
        with self.conn_or_acquire() as client, client.pipeline() as pipe:
            pipe.hdel(self.unacked_key, _NOTHING)
            pipe.zrem(self.unacked_index_key, _NOTHING)
            # This may take memory; a transaction of what does not is refused for want of it up to Redis 7.0 only.
            pipe.zadd(self.unacked_index_key, {_NOTHING: 0}, xx=True)
            pipe.execute()

    def _queue_bind(self: Any, exchange: str, routing_key: str, pattern: str, queue: str) -> None:
        try:
            super()._queue_bind(exchange, routing_key, pattern, queue)  # type: ignore[misc] # of the class it is mixed into
        except Refused as error:
            # A worker must be able to start, and so to make room, where its bindings are there from before.
            if error.code != _OOM or not self._is_bound(exchange, routing_key, pattern, queue):
                raise

    def _is_bound(self: Any, exchange: str, routing_key: str, pattern: str, queue: str) -> bool:
        if self.typeof(exchange).type == "fanout":  # published to whoever listens; the binding is for tidying up
            return True
        return (routing_key or "", pattern or "", queue or "") in self.get_table(exchange)


class Channel(_Channel, redis.Channel):  # type: ignore[misc] # kombu has no types
    """A channel to one Redis."""


class SentinelChannel(AsksSentinels, _Channel, redis.SentinelChannel):  # type: ignore[misc] # kombu has no types
    """A channel to the Redis that sentinels name."""


class Transport(redis.Transport):  # type: ignore[misc] # kombu has no types
    """kombu's, to which a refusal is an error of the connection."""

    Channel = Channel
    connection_errors = (*redis.Transport.connection_errors, Refused)


class SentinelTransport(FollowsMaster, redis.SentinelTransport):  # type: ignore[misc] # kombu has no types
    """The same, where sentinels name the server."""

    Channel = SentinelChannel
    connection_errors = (*redis.SentinelTransport.connection_errors, Refused)


def register() -> None:
    """Let every connection to Redis that kombu makes in this process be one of these. Twice is fine.

    By their schemes, since kombu reads more than the transport's class from a URL: whether TLS is meant, for one.
    """
    TRANSPORT_ALIASES.update(_ALIASES)
