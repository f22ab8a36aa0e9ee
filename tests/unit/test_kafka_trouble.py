"""What librdkafka says when Kafka does not answer, in words that name our settings. Its texts are those of 2.16."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest
from confluent_kafka import KafkaError

from tasks.kafka_trouble import Told, explain_error, find_trouble

TLS, SASL = {"security.protocol": "ssl"}, {"security.protocol": "SASL_SSL", "sasl.mechanism": "PLAIN"}
PLAIN: dict[str, str] = {}
DOWN = (KafkaError._ALL_BROKERS_DOWN, "1/1 brokers are down")
VERIFY = (
    "ssl://127.0.0.1:1/bootstrap: SSL handshake failed: error:0A000086:SSL routines::certificate verify failed: broker "
    "certificate could not be verified, verify that ssl.ca.location is correctly configured or root CA certificates "
    "are installed (install ca-certificates package) (after 111ms in state SSL_HANDSHAKE)"
)
REFUSED = "b:9092/bootstrap: Connect to ipv4#127.0.0.1:1 failed: Connection refused (after 0ms in state CONNECT)"
SASL_ERROR = "sasl_ssl://b:1/bootstrap: SASL authentication error: Authentication failed (after 5ms in state AUTH_REQ)"


@pytest.mark.parametrize(
    ("config", "said", "words"),
    [
        (
            SASL,
            (KafkaError._AUTHENTICATION, SASL_ERROR),
            "(SASL authentication error: Authentication failed): correct KAFKA_SASL_USERNAME and KAFKA_SASL_PASSWORD",
        ),
        (
            TLS,
            (KafkaError._SSL, VERIFY),
            "its certificate does not hold: name its authority's file in KAFKA_SSL_CA_LOCATION; or",
        ),
        (
            TLS,
            (
                KafkaError._SSL,
                "ssl://b:1/1: SSL handshake failed: error:0A00045C:SSL routines::tlsv13 alert certificate required",
            ),
            "set KAFKA_SSL_CERTIFICATE_LOCATION and KAFKA_SSL_KEY_LOCATION",
        ),
        (
            TLS,
            (
                KafkaError._TRANSPORT,
                "ssl://b:1/1: Receive failed: error:0A000412:SSL routines::ssl/tls alert bad certificate",
            ),
            "set KAFKA_SSL_CERTIFICATE_LOCATION and KAFKA_SSL_KEY_LOCATION",
        ),
        (
            TLS,
            (KafkaError._SSL, "ssl://b:1/1: something new"),
            "something new: look at KAFKA_SECURITY_PROTOCOL and KAFKA_SSL_*",
        ),
        (
            PLAIN,
            (
                KafkaError._RESOLVE,
                "b:1/bootstrap: Failed to resolve 'b:1': Name or service not known (after 0ms in state CONNECT)",
            ),
            "Failed to resolve 'b:1': Name or service not known: correct KAFKA_BOOTSTRAP_SERVERS",
        ),
        (
            PLAIN,
            (KafkaError._TRANSPORT, REFUSED),
            "Connect to ipv4#127.0.0.1:1 failed: Connection refused: is it up, and is KAFKA_BOOTSTRAP_SERVERS right",
        ),
    ],
)
def test_the_setting_is_named(config: dict[str, str], said: tuple[int, str], words: str) -> None:
    trouble = explain_error(config, [said, DOWN])
    assert words in str(trouble)


def test_the_most_telling_error_counts_whatever_came_after_it() -> None:
    said = [(KafkaError._AUTHENTICATION, SASL_ERROR), (KafkaError._TRANSPORT, REFUSED), DOWN]
    assert "KAFKA_SASL_PASSWORD" in str(explain_error(SASL, said))
    assert "KAFKA_SASL_PASSWORD" in str(explain_error(SASL, reversed(said)))


def test_nothing_said_is_nothing_known() -> None:
    assert find_trouble({"bootstrap.servers": "127.0.0.1:1"}, []) is None
    assert find_trouble({"bootstrap.servers": "127.0.0.1:1"}, [DOWN]) is None
    assert explain_error(PLAIN, [DOWN]) is None


def test_what_was_told_is_told_once() -> None:
    told = Told({})
    assert told.explain() is None
    told.hear(KafkaError(KafkaError._RESOLVE, "b:1/bootstrap: Failed to resolve 'b:1'"))
    assert "KAFKA_BOOTSTRAP_SERVERS" in str(told.explain())
    assert told.explain() is None


@pytest.fixture
def closing() -> Iterator[str]:
    """A listener that closes each connection without a word."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def close_all() -> None:
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                with connection:
                    if connection.recv(1) == b"q":
                        return

        thread = threading.Thread(target=close_all)
        thread.start()
        yield f"127.0.0.1:{listening.getsockname()[1]}"
        with socket.create_connection(listening.getsockname()) as last:
            last.sendall(b"q")
        thread.join()


def test_a_listener_that_closes_without_a_word_may_want_a_user(closing: str) -> None:
    said = str(find_trouble({"bootstrap.servers": closing}, [DOWN]))
    assert "set KAFKA_SECURITY_PROTOCOL to SASL_PLAINTEXT, with KAFKA_SASL_*" in said
    said = str(find_trouble({"bootstrap.servers": f"127.0.0.1:1,PLAINTEXT://{closing}", **SASL}, [DOWN]))
    assert "look at KAFKA_SECURITY_PROTOCOL" in said


def test_a_certificate_that_cannot_be_looked_at_is_explained_all_the_same() -> None:
    assert "KAFKA_SSL_CA_LOCATION" in str(find_trouble(TLS, [(KafkaError._SSL, VERIFY)]))
