"""Settings of Kafka."""

from __future__ import annotations

from typing import Annotated, Any, Final

from pydantic import BeforeValidator, Field

from tasks.settings.kafka_config import parse_kafka_config
from tasks.settings.kinds import Secret, Section

NAMED: Final = {  # librdkafka's properties, and our settings that are these
    "bootstrap.servers": "kafka_bootstrap_servers",
    "security.protocol": "kafka_security_protocol",
    "sasl.mechanism": "kafka_sasl_mechanism",
    "sasl.username": "kafka_sasl_username",
    "sasl.password": "kafka_sasl_password",
    "ssl.ca.location": "kafka_ssl_ca_location",
    "ssl.certificate.location": "kafka_ssl_certificate_location",
    "ssl.key.location": "kafka_ssl_key_location",
    "ssl.key.password": "kafka_ssl_key_password",
    "ssl.endpoint.identification.algorithm": "kafka_ssl_endpoint_identification_algorithm",
}


class KafkaSettings(Section):
    """Names of the stock workers, TLS beside them."""

    kafka_bootstrap_servers: Annotated[str, Field(min_length=1)] = "localhost:9092"
    """Where Kafka is found, separated by commas."""
    kafka_data_ingestion_topic: Annotated[str, Field(min_length=1)] = "data-ingestion"
    """The topic of the runs' data."""
    kafka_control_events_topic: Annotated[str, Field(min_length=1)] = "control-events"
    """The topic of the control events, a deleted run for example."""
    kafka_security_protocol: Annotated[str, Field(pattern="(?i)^(|plaintext|ssl|sasl_plaintext|sasl_ssl)$")] = ""
    """PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL; passed on if not empty."""
    kafka_sasl_mechanism: str = ""
    """PLAIN, SCRAM-SHA-512, ...; passed on if not empty."""
    kafka_sasl_username: Annotated[str, Secret.SHOWN] = ""
    """Belongs together with KAFKA_SASL_PASSWORD."""
    kafka_sasl_password: Annotated[str, Secret.HIDDEN] = ""
    """Belongs together with KAFKA_SASL_USERNAME."""
    kafka_ssl_ca_location: str = ""
    """File or folder of the authorities that may have signed the brokers' certificates; empty: the system's."""
    kafka_ssl_certificate_location: str = ""
    """File of our certificate, where the brokers ask for one."""
    kafka_ssl_key_location: str = ""
    """File of our certificate's key."""
    kafka_ssl_key_password: Annotated[str, Secret.HIDDEN] = ""
    """Opens that key."""
    kafka_ssl_endpoint_identification_algorithm: Annotated[str, Field(pattern="^(|https|none)$")] = ""
    """``none`` accepts certificates of other names; empty: librdkafka's default, ``https``."""
    kafka_config: Annotated[dict[str, str], BeforeValidator(parse_kafka_config), Secret.HIDDEN] = Field(
        default_factory=dict, validate_default=False
    )
    """Whatever else librdkafka should know, as a JSON object of texts, numbers, true and false:
    ``{"sasl.oauthbearer.method": "oidc", "socket.keepalive.enable": true}``. What the other settings say wins over it.
    Every client gets all of it, and leaves aside what is not for it: what is for consumers changes nothing in the
    producer. What librdkafka refuses stops the start."""

    def kafka_client(self) -> dict[str, Any]:
        """What every Kafka client of ours is configured with: servers and security, as librdkafka names them."""
        both = bool(self.kafka_sasl_username and self.kafka_sasl_password)
        named = {name: getattr(self, setting) for name, setting in NAMED.items()}
        if not both:
            named |= {"sasl.username": "", "sasl.password": ""}
        return {**self.kafka_config, **{name: value for name, value in named.items() if value}}
