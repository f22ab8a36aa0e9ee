"""TLS and SASL against a real broker: what works, and what each mistake is called."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, NamedTuple
from uuid import uuid4

import pytest
from confluent_kafka import Producer
from structlog.testing import capture_logs

from bridge.fresh import KafkaAway
from bridge.lookup import Lookup
from demo.servers.kafka_jars import missing_for_kafka
from demo.servers.process import wait_until
from demo.servers.redis import RedisServer
from demo.servers.secured_kafka import SecuredKafka, Tokens
from matyan_celery.checks.kafka import check_kafka
from storage.store import open_store
from tasks.outbox import OutboxPublisher, Published
from tasks.settings import Settings, load_settings
from tests.conftest import Programs
from tests.integration.certificates import Authority
from tests.integration.token_endpoint import AUDIENCE, CLIENT, ISSUER, SECRET, TokenEndpoint
from tests.integration.traffic import all_numbers, log_records, read_numbers, read_topic, wait_applied

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

USER, PASSWORD = "alice", "hunter2 of alice"
RUNS: Final = 4


class Secured(NamedTuple):
    """The session's broker, and the files around it."""

    kafka: SecuredKafka
    authority: Path
    stranger: Path
    ours: Path
    token_url: str

    def tls(self, listener: str = "tls-good") -> dict[str, str]:
        """Settings of a client that comes by TLS."""
        return {
            "KAFKA_BOOTSTRAP_SERVERS": self.kafka.servers(listener),
            "KAFKA_SECURITY_PROTOCOL": "SSL",
            "KAFKA_SSL_CA_LOCATION": str(self.authority),
        }

    def scram(self) -> dict[str, str]:
        """Settings of a client that is a user."""
        return self.tls("scram") | {
            "KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
            "KAFKA_SASL_MECHANISM": "SCRAM-SHA-512",
            "KAFKA_SASL_USERNAME": USER,
            "KAFKA_SASL_PASSWORD": PASSWORD,
        }

    def oauth(self, **changed: str) -> dict[str, str]:
        """Settings of a client that has tokens."""
        config = {
            "sasl.oauthbearer.method": "oidc",
            "sasl.oauthbearer.client.id": CLIENT,
            "sasl.oauthbearer.client.secret": SECRET,
            "sasl.oauthbearer.token.endpoint.url": self.token_url,
            "sasl.oauthbearer.scope": "kafka",
        }
        return self.tls("oauth") | {
            "KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
            "KAFKA_SASL_MECHANISM": "OAUTHBEARER",
            "KAFKA_CONFIG": json.dumps(config | {name.replace("_", "."): value for name, value in changed.items()}),
        }

    def mutual(self) -> dict[str, str]:
        """Settings of a client that has a certificate."""
        return self.tls("tls-mutual") | {
            "KAFKA_SSL_CERTIFICATE_LOCATION": str(self.ours),
            "KAFKA_SSL_KEY_LOCATION": str(self.ours),
        }


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    missing = missing_for_kafka()
    if missing is not None:
        pytest.skip(f"no real Kafka: {missing}")
    folder = tmp_path_factory.mktemp("secured")
    authority, stranger = Authority(folder / "files"), Authority(folder / "strange", "stranger")
    certificates = {
        "good": authority.issue("good"),
        "expired": authority.issue("expired", expired=True),
        "elsewhere": authority.issue("elsewhere", address="10.9.9.9"),
    }
    with TokenEndpoint() as endpoint:
        tokens = Tokens(endpoint.keys_url, AUDIENCE, ISSUER)
        with SecuredKafka(folder, certificates, authority.file, tokens) as kafka:
            kafka.add_user(USER, PASSWORD)
            yield Secured(kafka, authority.file, stranger.file, authority.issue("ours"), endpoint.url)


@pytest.fixture
def settings(secured: Secured, redis: RedisServer, tmp_path: Path) -> dict[str, str]:
    """In place of those for the plain broker: topics of the test's own."""
    name = uuid4().hex[:12]
    for topic, partitions in ((f"data-{name}", 4), (f"control-{name}", 1)):
        secured.kafka.create_topic(topic, partitions, {"retention.ms": "-1"})
    return {
        "STORAGE_URL": f"sqlite:///{tmp_path / 'store.db'}",
        "REDIS_URL": redis.url,
        "KAFKA_DATA_INGESTION_TOPIC": f"data-{name}",
        "KAFKA_CONTROL_EVENTS_TOPIC": f"control-{name}",
        "INGEST_GROUP": f"group-{name}",
        "CONTROL_GROUP": f"group-{name}-control",
        "LOG_LEVEL": "INFO",
    }


def load(**given: str) -> Settings:
    return load_settings(None, **{name.lower(): value for name, value in given.items()})


@pytest.mark.parametrize("way", ["scram", "oauth"])
def test_bridge_worker_outbox_doctor_and_wait_go_that_way(
    way: str, secured: Secured, programs: Programs, settings: dict[str, str]
) -> None:
    settings |= secured.scram() if way == "scram" else secured.oauth()
    data, control, plain = settings["KAFKA_DATA_INGESTION_TOPIC"], settings["KAFKA_CONTROL_EVENTS_TOPIC"], secured.kafka
    assert programs.run("wait", "--for", "kafka,topics", "--timeout", "30")[0] == 0
    programs.worker().start()
    bridge = programs.bridge()
    bridge.start()

    producer = Producer(load(**settings).kafka_client())
    for item in log_records(RUNS, range(5)):
        producer.produce(data, item.record.value, item.record.key, partition=item.partition)
    deleted = {"type": "delete_run", "run_id": "d" * 32, "timestamp": "2026-01-01T00:00:00Z", "payload": {}}
    producer.produce(data, json.dumps(deleted).encode(), b"d" * 32)
    assert producer.flush(60) == 0
    wait_applied(plain.bootstrap_servers, settings["INGEST_GROUP"], data, seconds=120)
    assert read_numbers(settings["STORAGE_URL"]) == all_numbers(RUNS, 5)
    wait_until(lambda: len(read_topic(plain.bootstrap_servers, control)) == 1, "the event is published", seconds=60)
    wait_applied(plain.bootstrap_servers, settings["CONTROL_GROUP"], control, seconds=120)

    findings = json.loads(programs.run("doctor", "--json")[1])
    looked = {finding["subject"]: finding["well"] for finding in findings}
    assert looked["kafka"]
    assert looked["topics"]
    assert looked["groups"]
    assert bridge.stop() == 0


def mistakes(secured: Secured) -> dict[str, tuple[dict[str, str], str]]:
    """Settings with one mistake each, and what is said of it."""
    tls, scram, oauth = secured.tls(), secured.scram(), secured.oauth()
    refused = "correct KAFKA_SASL_USERNAME and KAFKA_SASL_PASSWORD"
    authority = "name the file of the authority that signed it in KAFKA_SSL_CA_LOCATION"
    plain = {"KAFKA_SECURITY_PROTOCOL": ""}
    return {
        "a wrong password": (scram | {"KAFKA_SASL_PASSWORD": "wrong"}, refused),
        "an unknown user": (scram | {"KAFKA_SASL_USERNAME": "bob"}, refused),
        "a wrong mechanism": (
            scram | {"KAFKA_SASL_MECHANISM": "PLAIN"},
            "it does not know the mechanism PLAIN, but SCRAM-SHA-512: correct KAFKA_SASL_MECHANISM",
        ),
        "an expired certificate": (
            secured.tls("tls-expired"),
            "its certificate does not hold now (certificate has expired: renew it at the brokers",
        ),
        "a certificate of another name": (
            secured.tls("tls-elsewhere"),
            "KAFKA_SSL_ENDPOINT_IDENTIFICATION_ALGORITHM to none",
        ),
        "no authority": (tls | {"KAFKA_SSL_CA_LOCATION": ""}, authority),
        "another authority": (tls | {"KAFKA_SSL_CA_LOCATION": str(secured.stranger)}, authority),
        "no certificate of ours": (
            secured.tls("tls-mutual"),
            "set KAFKA_SSL_CERTIFICATE_LOCATION and KAFKA_SSL_KEY_LOCATION",
        ),
        "no TLS to a listener of TLS": (tls | plain, "that listener speaks TLS: set KAFKA_SECURITY_PROTOCOL to SSL"),
        "SASL without TLS to one with it": (
            scram | {"KAFKA_SECURITY_PROTOCOL": "SASL_PLAINTEXT"},
            "that listener speaks TLS: set KAFKA_SECURITY_PROTOCOL to SASL_SSL",
        ),
        "TLS to a plain listener": (
            tls | {"KAFKA_BOOTSTRAP_SERVERS": secured.kafka.bootstrap_servers},
            "that listener does not speak TLS: set KAFKA_SECURITY_PROTOCOL to PLAINTEXT",
        ),
        "SASL over TLS to SASL without": (
            scram | {"KAFKA_BOOTSTRAP_SERVERS": secured.kafka.servers("scram-plain")},
            "that listener does not speak TLS: set KAFKA_SECURITY_PROTOCOL to SASL_PLAINTEXT",
        ),
        "no user to a listener that wants one": (
            tls | {"KAFKA_BOOTSTRAP_SERVERS": secured.kafka.servers("scram")},
            "set KAFKA_SECURITY_PROTOCOL to SASL_SSL, with KAFKA_SASL_*",
        ),
        "the same without TLS": (
            plain | {"KAFKA_BOOTSTRAP_SERVERS": secured.kafka.servers("scram-plain")},
            "set KAFKA_SECURITY_PROTOCOL to SASL_PLAINTEXT, with KAFKA_SASL_*",
        ),
        "a user to a listener that wants none": (
            scram | {"KAFKA_BOOTSTRAP_SERVERS": secured.kafka.servers("tls-good")},
            "that listener takes no SASL: set KAFKA_SECURITY_PROTOCOL to SSL",
        ),
        "a wrong secret of the client": (
            secured.oauth(sasl_oauthbearer_client_secret="wrong"),
            'no token can be had for it ({"error": "invalid_client"}: look at sasl.oauthbearer.token.endpoint.url',
        ),
        "no endpoint for tokens": (
            secured.oauth(sasl_oauthbearer_token_endpoint_url="http://127.0.0.1:1/token"),
            "look at sasl.oauthbearer.token.endpoint.url, .client.id and .client.secret in KAFKA_CONFIG",
        ),
        "nothing there": (oauth | {"KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1"}, "is KAFKA_BOOTSTRAP_SERVERS right"),
    }


def test_each_mistake_is_one_sentence_that_names_the_setting(secured: Secured) -> None:
    """Of the doctor and `wait`, whose check is called here, and of the bridge's log, whose lookup is."""

    def ask(given: dict[str, str]) -> tuple[str, str]:
        settings = load(**given)
        finding = check_kafka(settings)
        assert not finding.well
        with Lookup(settings.kafka_client(), "group") as lookup:
            try:
                lookup.cluster_id()
            except KafkaAway as error:
                return str(finding), str(lookup.explain(error))
        pytest.fail("Kafka answered")

    made = mistakes(secured)
    with ThreadPoolExecutor(6) as pool:
        said = dict(zip(made, pool.map(ask, [given for given, _ in made.values()]), strict=True))
    for name, (given, words) in made.items():
        for sentence in said[name]:
            assert words in sentence.replace(")", ""), f"{name}: {sentence}"
            assert "\n" not in sentence
            assert "Traceback" not in sentence
            assert PASSWORD not in sentence
            assert SECRET not in sentence
        assert said[name][0].startswith(f"Kafka at {given['KAFKA_BOOTSTRAP_SERVERS']} does not answer (")


def test_certificates_of_our_own_and_names_that_do_not_matter_are_taken(secured: Secured) -> None:
    other = secured.tls("tls-elsewhere") | {"KAFKA_SSL_ENDPOINT_IDENTIFICATION_ALGORITHM": "none"}
    for given in (secured.mutual(), other, secured.tls()):
        assert check_kafka(load(**given)).well


def test_the_bridge_says_why_it_waits_and_goes_on_when_that_is_mended(
    secured: Secured, programs: Programs, settings: dict[str, str], tmp_path: Path
) -> None:
    user = f"user-{uuid4().hex[:8]}"
    settings |= secured.scram() | {"KAFKA_SASL_USERNAME": user}
    sentence = "correct KAFKA_SASL_USERNAME and KAFKA_SASL_PASSWORD"
    bridge = programs.bridge()
    bridge.start()
    bridge.wait_output(sentence, 120)
    code, said = programs.run("wait", "--for", "kafka", "--timeout", "1")
    assert (code, sentence in said, "Traceback" in said) == (1, True, False)

    publisher = OutboxPublisher(load(**settings), patience=3.0)
    with open_store(f"sqlite:///{tmp_path / 'outbox.db'}") as store, capture_logs() as logs:
        store.engine.transact(lambda transaction: store.outbox.put(transaction, "run", b"{}", 1.0))
        assert publisher.publish_waiting(store, now=100.0) == Published(0, 1)
        assert sentence in next(line["error"] for line in logs if "events are left" in line["event"])
        publisher.close()

        secured.kafka.add_user(user, PASSWORD)
        bridge.wait_output("assigned", 120)
        publisher = OutboxPublisher(load(**settings), patience=60.0)
        assert publisher.publish_waiting(store, now=100.0) == Published(1, 0)
        publisher.close()
    assert "Traceback" not in bridge.output()
    assert bridge.stop() == 0
