"""Why Kafka does not answer, in words that name our settings: from what librdkafka says, and a look at the listener.

librdkafka has one text for every certificate that does not hold, and none at all for a listener that speaks TLS or
wants SASL while we do not. So the listener is asked what it speaks, by Python's own TLS.
"""

from __future__ import annotations

import re
import socket
import ssl
from collections import deque
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from confluent_kafka import KafkaError

if TYPE_CHECKING:
    from collections.abc import Iterable

_KEPT: Final = 50  # errors of one client
_SECONDS: Final = 2.0  # for one connection to a listener
_PLACE: Final = re.compile(r"^(?:[a-z_]+://)?(\[[^\]]+\]|[^:/\s]+):(\d+)/\S+: ")
_STATE: Final = re.compile(r" \(after \d+ms in state \w+\)| \(after \d+ms in state .*\)$")
_MECHANISMS: Final = re.compile(r"broker's supported mechanisms: (\S[^()]*)")
_TELLING: Final = (  # codes, the most telling first
    KafkaError._AUTHENTICATION,
    KafkaError._SSL,
    KafkaError._RESOLVE,
    KafkaError._TRANSPORT,
)
_OUR_CERTIFICATE: Final = ("certificate required", "bad certificate", "unknown ca", "certificate unknown")
_UP: Final = "is it up, and is KAFKA_BOOTSTRAP_SERVERS right"


class Trouble(NamedTuple):
    """What is wrong, and what to do.

    Attributes:
        why: as much of it as is known.
        remedy: what to do, with the setting's name.
    """

    why: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.why}: {self.remedy}"


class _Polled(Protocol):
    def poll(self, timeout: float) -> object: ...


class Told:
    """Keeps what a client says of its connections: give it `hear` as its ``error_cb``.

    Args:
        config: the client's configuration, for what is asked of the listener.
    """

    def __init__(self, config: dict[str, Any]) -> None:
        self._config = config
        self._errors: deque[KafkaError] = deque(maxlen=_KEPT)

    def hear(self, error: KafkaError) -> None:
        """Keep an error."""
        self._errors.append(error)

    def explain(self, client: _Polled | None = None) -> Trouble | None:
        """Why Kafka did not answer; None where nothing is known but that it did not. May take some seconds.

        What was said is forgotten.

        Args:
            client: an administrator's or producer's client, whose errors may still wait to be heard.
        """
        if client is not None:
            client.poll(0)
        said = [(error.code(), error.str()) for error in self._errors]
        self._errors.clear()
        return find_trouble(self._config, said)


def find_trouble(config: dict[str, Any], said: Iterable[tuple[int, str]]) -> Trouble | None:
    """Why Kafka did not answer, asking the listener where librdkafka does not know.

    Args:
        config: the client's, as librdkafka names it.
        said: code and text of each of its errors.
    """
    said = list(said)
    trouble = explain_error(config, said)
    if trouble is None:
        return _ask_silent(config, closed=any(code == KafkaError._ALL_BROKERS_DOWN for code, _ in said))
    code, text = _choose(said)
    if code == KafkaError._SSL and "certificate verify failed" in text:
        return _ask_certificate(config, text) or trouble
    return trouble


def explain_error(config: dict[str, Any], said: Iterable[tuple[int, str]]) -> Trouble | None:
    """The same without asking anybody: what the most telling of the errors means."""
    code, text = _choose(said)
    if not code:
        return None
    words = _STATE.sub("", _PLACE.sub("", text)).strip()
    if code == KafkaError._AUTHENTICATION:
        return _explain_refusal(config, words)
    if code == KafkaError._SSL or "SSL routines" in words:  # an alert may come after the handshake
        return _explain_tls(words)
    if code == KafkaError._RESOLVE:
        return Trouble(words, "correct KAFKA_BOOTSTRAP_SERVERS")
    if "PLAINTEXT broker listener" in words:
        wanted = "SASL_PLAINTEXT" if _has_sasl(config) else "PLAINTEXT"
        remedy = f"set KAFKA_SECURITY_PROTOCOL to {wanted}, or KAFKA_BOOTSTRAP_SERVERS to the port of a TLS listener"
        return Trouble("that listener does not speak TLS", remedy)
    return Trouble(words, _UP)


def _choose(said: Iterable[tuple[int, str]]) -> tuple[int, str]:
    """The most telling error; the last of its kind. Code 0: none tells anything."""
    by_code = dict(said)
    return next(((code, by_code[code]) for code in _TELLING if code in by_code), (0, ""))


def _explain_refusal(config: dict[str, Any], words: str) -> Trouble:
    mechanism = str(config.get("sasl.mechanism", config.get("sasl.mechanisms", "")))
    mechanisms = _MECHANISMS.search(words)
    if "Failed to acquire SASL OAUTHBEARER token" in words:
        why = words.removeprefix("Failed to acquire SASL OAUTHBEARER token: ")
        remedy = "look at sasl.oauthbearer.token.endpoint.url, .client.id and .client.secret in KAFKA_CONFIG"
        return Trouble(f"no token can be had for it ({why})", remedy)
    if "Unsupported SASL mechanism" in words and mechanisms is not None:
        why = f"it does not know the mechanism {mechanism}, but {mechanisms[1].strip()}"
        return Trouble(why, "correct KAFKA_SASL_MECHANISM")
    if "not valid in current SASL state" in words:
        wanted = "SSL" if _has_tls(config) else "PLAINTEXT"
        remedy = f"set KAFKA_SECURITY_PROTOCOL to {wanted}, or KAFKA_BOOTSTRAP_SERVERS to the port of a SASL listener"
        return Trouble("that listener takes no SASL", remedy)
    if mechanism.upper() == "OAUTHBEARER":
        remedy = "look at sasl.oauthbearer.scope and the token's issuer in KAFKA_CONFIG, and at the broker's audience"
        return Trouble(f"it refuses our token ({words})", remedy)
    return Trouble(f"it refuses our user or password ({words})", "correct KAFKA_SASL_USERNAME and KAFKA_SASL_PASSWORD")


def _explain_tls(words: str) -> Trouble:
    if "certificate verify failed" in words:
        remedy = (
            "name its authority's file in KAFKA_SSL_CA_LOCATION; or it has expired, or is for another name: "
            "`matyan-celery doctor` says which"
        )
        return Trouble("its certificate does not hold", remedy)
    if "alert" in words and any(kind in words for kind in _OUR_CERTIFICATE):
        remedy = "set KAFKA_SSL_CERTIFICATE_LOCATION and KAFKA_SSL_KEY_LOCATION"
        return Trouble(f"it wants a certificate of ours that it trusts ({words})", remedy)
    return Trouble(words, "look at KAFKA_SECURITY_PROTOCOL and KAFKA_SSL_*")


def _ask_certificate(config: dict[str, Any], text: str) -> Trouble | None:
    """What does not hold about the certificate of the listener that an error is about."""
    place = _PLACE.match(text)
    if place is None:
        return None
    host, port = place[1].strip("[]"), int(place[2])
    location = str(config.get("ssl.ca.location", ""))
    try:
        context = ssl.create_default_context()
        if location:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.load_verify_locations(location)
        context.check_hostname = config.get("ssl.endpoint.identification.algorithm") != "none"
        with (
            socket.create_connection((host, port), _SECONDS) as plain,
            context.wrap_socket(plain, server_hostname=host),
        ):
            return None
    except ssl.SSLCertVerificationError as error:
        message = error.verify_message
    except OSError:
        return None
    if "has expired" in message or "not yet valid" in message:
        remedy = "renew it at the brokers, or set this machine's clock; KAFKA_SSL_CA_LOCATION is right"
        return Trouble(f"its certificate does not hold now ({message})", remedy)
    if "mismatch" in message or "doesn't match" in message:
        remedy = (
            "write a name that it is for in KAFKA_BOOTSTRAP_SERVERS (and advertised.listeners of the brokers), or set "
            "KAFKA_SSL_ENDPOINT_IDENTIFICATION_ALGORITHM to none"
        )
        return Trouble(f"its certificate is for another name ({message})", remedy)
    remedy = "name the file of the authority that signed it in KAFKA_SSL_CA_LOCATION"
    return Trouble(f"its certificate is signed by nobody that we trust ({message})", remedy)


def _ask_silent(config: dict[str, Any], *, closed: bool) -> Trouble | None:
    """Why nothing was said of a listener that does not answer: it speaks something else.

    Args:
        config: the client's.
        closed: whether it has closed our connections.
    """
    for server in str(config.get("bootstrap.servers", "")).split(","):
        host, _, port = server.strip().rpartition("://")[2].rpartition(":")
        if host and port.isdecimal():
            speaks = _speaks_tls(host.strip("[]"), int(port))
            if speaks is not None:
                return _explain_silence(config, tls=speaks, closed=closed)
    return None


def _explain_silence(config: dict[str, Any], *, tls: bool, closed: bool) -> Trouble | None:
    if tls and not _has_tls(config):
        wanted = "SASL_SSL" if _has_sasl(config) else "SSL (or SASL_SSL, with KAFKA_SASL_*)"
        return Trouble("that listener speaks TLS", f"set KAFKA_SECURITY_PROTOCOL to {wanted}")
    if not closed:
        return None
    if not _has_sasl(config):
        wanted = "SASL_SSL" if tls else "SASL_PLAINTEXT"
        why = "it closes the connection before it has said anything, as a listener does that wants a user"
        return Trouble(why, f"set KAFKA_SECURITY_PROTOCOL to {wanted}, with KAFKA_SASL_*")
    return Trouble("it closes the connection before it has said anything", "look at KAFKA_SECURITY_PROTOCOL")


def _speaks_tls(host: str, port: int) -> bool | None:
    """Whether something speaks TLS at an address; None where nothing answers there."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # nothing is sent: it is only asked what it speaks
    try:
        plain = socket.create_connection((host, port), _SECONDS)
    except OSError:
        return None
    with plain:
        try:
            context.wrap_socket(plain, server_hostname=host).close()
        except TimeoutError:
            return None
        except ssl.SSLError as error:
            return "alert" in str(error).lower()  # it answers in TLS that it will not have us
        except OSError:
            return False
    return True


def _has_tls(config: dict[str, Any]) -> bool:
    return str(config.get("security.protocol", "")).lower().endswith("ssl")


def _has_sasl(config: dict[str, Any]) -> bool:
    return str(config.get("security.protocol", "")).lower().startswith("sasl")
