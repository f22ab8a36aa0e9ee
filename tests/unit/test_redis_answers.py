"""What Redis refuses is told apart and said, and outlasted by whoever uses a connection."""

from __future__ import annotations

from typing import Any

import pytest
import redis
from kombu import Connection
from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    ExecAbortError,
    NoScriptError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)
from structlog.testing import capture_logs

from tasks.redis_answers import ANSWERS, explain, find_code
from tasks.redis_refusals import AGAIN, Refusals
from tasks.redis_transport import Answering, Refused, SentinelTransport, TransactionRefused, Transport, register

OLD_SCRIPT = "Error running script (call to f_1): @user_script:1: @user_script: 1: -OOM command not allowed"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ReadOnlyError("You can't write against a read only replica.", status_code="READONLY"), "READONLY"),
        (ResponseError("MISCONF Redis is configured to save RDB snapshots"), "MISCONF"),
        (ResponseError("UNBLOCKED force unblock from blocking operation"), "UNBLOCKED"),
        (ResponseError("NOREPLICAS Not enough good replicas to write."), "NOREPLICAS"),
        (ResponseError("FROMTHEFUTURE something new"), "FROMTHEFUTURE"),
        (AuthenticationError("Authentication required.", status_code="NOAUTH"), "NOAUTH"),
        (BusyLoadingError("Redis is loading the dataset in memory", status_code="LOADING"), "LOADING"),
        (redis.ConnectionError("max number of clients reached", status_code="ERR"), "MAXCLIENTS"),
        (ExecAbortError("Transaction discarded because of: READONLY You can't", status_code="EXECABORT"), "READONLY"),
        (ExecAbortError("Transaction discarded because of previous errors.", status_code="EXECABORT"), "ERR"),
        (ResponseError(OLD_SCRIPT, status_code="ERR"), "OOM"),
        (ResponseError("unknown command 'FOO'", status_code="ERR"), "ERR"),
        (redis.ConnectionError("Error 111 connecting to 127.0.0.1:6379. Connection refused."), None),
        (redis.ConnectionError("Connection closed by server."), None),
        (redis.TimeoutError("Timeout reading from socket"), None),
    ],
)
def test_the_kind_of_an_answer(error: RedisError, code: str | None) -> None:
    assert find_code(error) == code


def test_an_explanation_is_found_behind_other_errors() -> None:
    try:
        try:
            raise ResponseError("MISCONF Redis is configured to save RDB snapshots")
        except RedisError as error:
            raise OSError(str(error)) from error
    except OSError as error:
        said = explain(error)
    assert said.startswith("Redis cannot save its data to disk and so takes no writes (MISCONF Redis is configured")
    assert said.endswith(ANSWERS["MISCONF"].remedy)
    assert explain(OSError("no route")) == "Redis does not answer (no route): look at REDIS_URL"


class Server:
    """Stands for redis-py's connection: answers with an error."""

    def __init__(self, error: Exception) -> None:
        self.error = error
        self.marked = False

    def read_response(self) -> Any:
        raise self.error

    def on_connect_check_health(self) -> None:
        self.read_response()

    def mark_for_reconnect(self) -> None:
        self.marked = True


class Line(Answering, Server):
    """As the product's connections are made."""


def test_an_error_in_answer_is_one_of_the_connection() -> None:
    line = Line(ReadOnlyError("You can't write against a read only replica.", status_code="READONLY"))
    with pytest.raises(Refused) as caught:
        line.read_response()
    assert (caught.value.code, line.marked) == ("READONLY", True)
    assert isinstance(caught.value, ResponseError), "as redis-py's own code expects it"
    aborted = ExecAbortError("Transaction discarded because of: OOM command not allowed", status_code="EXECABORT")
    with pytest.raises(TransactionRefused):
        Line(aborted).read_response()


@pytest.mark.parametrize(
    "error",
    [
        NoScriptError("No matching script.", status_code="NOSCRIPT"),
        ExecAbortError("Transaction discarded because of previous errors.", status_code="EXECABORT"),
        redis.ConnectionError("Connection closed by server."),
    ],
)
def test_what_redis_py_sees_to_itself_is_left_to_it(error: RedisError) -> None:
    line = Line(error)
    with pytest.raises(type(error)) as caught:
        line.read_response()
    assert (caught.value, line.marked) == (error, False)


def test_what_a_server_does_not_know_at_the_greeting_is_not_said() -> None:
    line = Line(ResponseError("unknown subcommand 'SETINFO'", status_code="ERR"))
    line._greets = True
    with capture_logs() as lines, pytest.raises(Refused):
        line.read_response()
    assert (lines, line.marked) == ([], False)


def test_refusals_are_said_once_a_kind_and_again_after_a_while() -> None:
    now = [0.0]
    refusals = Refusals(clock=lambda: now[0])
    refusals.aloud = True
    with capture_logs() as lines:
        for second in range(int(AGAIN) + 2):
            now[0] = float(second)
            refusals.note("READONLY", "READONLY You can't")
            refusals.note("OOM", "OOM command not allowed")
    assert [(line["code"], line["log_level"]) for line in lines] == [("READONLY", "warning"), ("OOM", "error")] * 2
    assert {line["passes_by_itself"] for line in lines if line["code"] == "OOM"} == {False}


def test_kombu_makes_our_connections_and_takes_refusals_for_errors_of_them() -> None:
    register()
    for url, transport in (("redis://", Transport), ("rediss://", Transport), ("sentinel://", SentinelTransport)):
        with Connection(f"{url}127.0.0.1:1/0") as connection:
            assert connection.get_transport_cls() is transport
            assert Refused in connection.connection_errors
            assert Refused in connection.recoverable_connection_errors
