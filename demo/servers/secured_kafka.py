"""A Kafka broker whose clients come by TLS, and say by SASL who they are. Each way in is a listener of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from confluent_kafka.admin import (  # type: ignore[attr-defined] # its stub forgets some
    AdminClient,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)

from demo.servers.kafka import KafkaServer
from demo.servers.process import free_port

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_SECONDS: Final = 30.0  # for one request
_MODULE: Final = "org.apache.kafka.common.security"


class Tokens(NamedTuple):
    """Whose tokens the broker takes.

    Attributes:
        keys_url: where the keys are that tokens are signed with (a JWKS).
        audience: for whom tokens must have been issued.
        issuer: by whom.
    """

    keys_url: str
    audience: str
    issuer: str


class SecuredKafka(KafkaServer):
    """A broker with several listeners beside the plain one.

    - ``tls-NAME`` for each certificate: TLS;
    - ``tls-mutual``: TLS for clients that have a certificate of the authority;
    - ``scram``: SASL over TLS with SCRAM-SHA-512, with the first certificate; ``scram-plain``: the same without TLS;
    - ``oauth``: SASL over TLS with OAUTHBEARER.

    Args:
        folder: for its data and log.
        certificates: files that hold a key and its certificate as PEM, by name.
        authority: the file of the authority that has signed the certificates of clients.
        tokens: whose tokens it takes.

    Raises:
        DidNotStart: the broker cannot be fetched.
    """

    def __init__(self, folder: Path, certificates: Mapping[str, Path], authority: Path, tokens: Tokens) -> None:
        super().__init__(folder)
        self._certificates = dict(certificates)
        self._authority = authority
        self._tokens = tokens
        names = [*(f"tls-{name}" for name in certificates), "tls-mutual", "scram", "scram-plain", "oauth"]
        self._ports = {name: free_port() for name in names}
        # Kafka fetches keys from addresses that it was told of by name alone.
        self._command.insert(1, f"-Dorg.apache.kafka.sasl.oauthbearer.allowed.urls={tokens.keys_url}")

    def servers(self, listener: str) -> str:
        """What clients of a listener connect to."""
        return f"127.0.0.1:{self._ports[listener]}"

    def add_user(self, name: str, password: str) -> None:
        """Make a user who may come by SCRAM-SHA-512.

        Raises:
            KafkaException: the broker refused, or did not answer within 30 seconds.
        """
        admin = AdminClient({"bootstrap.servers": self.bootstrap_servers, "log_level": 0})
        info = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, 4096)
        made = UserScramCredentialUpsertion(name, info, password.encode())
        admin.alter_user_scram_credentials([made])[name].result(timeout=_SECONDS)

    def _describe(self) -> str:
        plain = f"PLAINTEXT://127.0.0.1:{self.port}"
        secured = [f"{name.upper()}://127.0.0.1:{port}" for name, port in self._ports.items()]
        protocols = ["PLAINTEXT:PLAINTEXT", "CONTROLLER:PLAINTEXT"]
        first = next(iter(self._certificates.values()))
        lines = [super()._describe()]  # of two lines for one setting, the later one counts
        for name in self._ports:
            prefix = f"listener.name.{name}"
            protocols.append(f"{name.upper()}:{_protocol(name)}")
            if name != "scram-plain":
                certificate = self._certificates.get(name.removeprefix("tls-"), first)
                lines += [f"{prefix}.ssl.keystore.type=PEM", f"{prefix}.ssl.keystore.location={certificate}"]
            if name.startswith("scram"):
                lines += [f"{prefix}.sasl.enabled.mechanisms=SCRAM-SHA-512"]
                lines += [f"{prefix}.scram-sha-512.sasl.jaas.config={_MODULE}.scram.ScramLoginModule required;"]
        mutual = "listener.name.tls-mutual"
        lines += [f"{mutual}.ssl.client.auth=required", f"{mutual}.ssl.truststore.type=PEM"]
        lines += [f"{mutual}.ssl.truststore.location={self._authority}"]
        oauth = "listener.name.oauth"
        handler = f"{_MODULE}.oauthbearer.OAuthBearerValidatorCallbackHandler"
        lines += [
            f"{oauth}.sasl.enabled.mechanisms=OAUTHBEARER",
            f"{oauth}.oauthbearer.sasl.jaas.config={_MODULE}.oauthbearer.OAuthBearerLoginModule required;",
            f"{oauth}.oauthbearer.sasl.server.callback.handler.class={handler}",
            f"{oauth}.oauthbearer.sasl.oauthbearer.jwks.endpoint.url={self._tokens.keys_url}",
            f"{oauth}.oauthbearer.sasl.oauthbearer.expected.audience={self._tokens.audience}",
            f"{oauth}.oauthbearer.sasl.oauthbearer.expected.issuer={self._tokens.issuer}",
            f"listeners={','.join([plain, *secured])},CONTROLLER://127.0.0.1:{self._controller_port}",
            f"advertised.listeners={','.join([plain, *secured])}",
            f"listener.security.protocol.map={','.join(protocols)}",
            "inter.broker.listener.name=PLAINTEXT",
        ]
        return "\n".join(lines) + "\n"


def _protocol(listener: str) -> str:
    if listener.startswith("tls-"):
        return "SSL"
    return "SASL_PLAINTEXT" if listener == "scram-plain" else "SASL_SSL"
