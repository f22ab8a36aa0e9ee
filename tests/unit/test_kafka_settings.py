"""What librdkafka refuses, and what may not stand in KAFKA_CONFIG: named, each, in one sentence, without secrets."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient

from bridge.lookup import Lookup
from bridge.main import check_kafka_settings
from bridge.membership import Membership
from bridge.reader import describe_consumer, make_consumer
from bridge.route import ingest_route
from matyan_celery.checks.kafka import look_at_kafka
from storage.store import open_store
from tasks.errors import WrongSettingError
from tasks.kafka_clients import find_refusals
from tasks.outbox import OutboxPublisher
from tasks.settings import Settings, load_settings
from tests.unit.test_settings import give

NOWHERE = "127.0.0.1:1"


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def settings_with(config: str, **settings: str) -> Settings:
    return load_settings(None, kafka_bootstrap_servers=NOWHERE, kafka_config=config, **settings)


# -- what may stand in KAFKA_CONFIG ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "read"),
    [
        ('{"a": "text"}', "text"),
        ('{"a": 45000}', "45000"),
        ('{"a": 1e3}', "1000"),
        ('{"a": 0.5}', "0.5"),
        ('{"a": -1}', "-1"),
        ('{"a": true}', "true"),
        ('{"a": false}', "false"),
        ('{"a": ""}', ""),
    ],
)
def test_values_are_texts_numbers_and_switches(config: str, read: str, monkeypatch: pytest.MonkeyPatch) -> None:
    give(monkeypatch, KAFKA_CONFIG=config)
    assert load_settings().kafka_client()["a"] == read


def test_numbers_and_switches_are_taken_by_librdkafka() -> None:
    settings = settings_with('{"socket.keepalive.enable": true, "fetch.max.bytes": 1e7, "linger.ms": 0.5}')
    check_kafka_settings(settings)
    OutboxPublisher(settings).check()


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ('{"a.b": null}', ['"a.b" is null: give a text, a number, true or false']),
        ('{"a.b": [1], "c.d": {}}', ['"a.b" is a list: give a text', '"c.d" is an object: give a text']),
        ('{"a.b": {"x": "hunter2"}}', ['"a.b" is an object']),
        ('{"a.b": 1, "a.b": 2}', ['"a.b" stands there twice']),
        ("[]", ["not a JSON object"]),
        ('"hunter2"', ["not a JSON object"]),
        ("7", ["not a JSON object"]),
        ('{"a.b": "hunter2"', ["no JSON (", "give an object such as {"]),
        ('{"group.id": "x"}', ['"group.id" is not yours to set here: set INGEST_GROUP and CONTROL_GROUP']),
        ('{"client.id": "x"}', ['"client.id" is not yours to set here']),
        ('{"bootstrap.servers": "x"}', ['"bootstrap.servers" is not yours to set here: set KAFKA_BOOTSTRAP_SERVERS']),
        ('{"enable.auto.commit": true}', ['"enable.auto.commit" is not yours to set here']),
        ('{"transactional.id": "x"}', ['"transactional.id" is not yours to set here']),
        ('{"error_cb": "x", "logger": "y"}', ['"error_cb" cannot be set in JSON', '"logger" cannot be set in JSON']),
    ],
)
def test_what_may_not_stand_there_is_named(config: str, words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    give(monkeypatch, KAFKA_CONFIG=config)
    with pytest.raises(WrongSettingError) as raised:
        load_settings()
    assert str(raised.value).startswith("wrong settings: KAFKA_CONFIG='***': ")
    for each in words:
        assert each in str(raised.value)
    assert "hunter2" not in str(raised.value)


def test_ours_may_stand_there_as_they_are() -> None:
    settings_with('{"enable.auto.commit": false, "enable.idempotence": "True", "auto.offset.reset": "error"}')


# -- what librdkafka refuses -----------------------------------------------------------------------------------------

REFUSED = [
    ('{"foo.bar": 1, "bar.foo": 2}', {}, ['"foo.bar" in KAFKA_CONFIG: No such', '"bar.foo" in KAFKA_CONFIG: No such']),
    ('{"socket.timeout.ms": "soon"}', {}, ['"socket.timeout.ms" in KAFKA_CONFIG: Invalid value for']),
    ('{"socket.timeout.ms": 1}', {}, ['"socket.timeout.ms" in KAFKA_CONFIG: ', "outside allowed range"]),
    ('{"socket.keepalive.enable": "often", "debug": "me"}', {}, ['"socket.keepalive.enable" in', '"debug" in']),
    (
        '{"security.protocol": "ssl"}',
        {"kafka_ssl_ca_location": "/nowhere/ca.pem"},
        ["KAFKA_SSL_CA_LOCATION", "cannot read /nowhere/ca.pem (No such file or directory)"],
    ),
    (
        "{}",
        {"kafka_security_protocol": "SSL", "kafka_ssl_key_location": "no.pem"},
        ["KAFKA_SSL_KEY_LOCATION", "cannot use no.pem (it is no PEM file"],
    ),
    (
        "{}",
        {"kafka_security_protocol": "sasl_ssl", "kafka_sasl_mechanism": "ROT13"},
        ["KAFKA_SASL_MECHANISM (sasl.mechanism): Unsupported SASL mechanism: ROT13"],
    ),
    ("{}", {"kafka_security_protocol": "sasl_plaintext"}, ["KAFKA_SASL_MECHANISM is empty, and "]),
    (
        "{}",
        {"kafka_security_protocol": "sasl_ssl", "kafka_sasl_mechanism": "PLAIN"},
        ["KAFKA_SASL_MECHANISM", "sasl.username and sasl.password must be set"],
    ),
    (
        '{"sasl.oauthbearer.method": "oidc"}',
        {"kafka_security_protocol": "sasl_ssl", "kafka_sasl_mechanism": "OAUTHBEARER"},
        ['"sasl.oauthbearer.method" in KAFKA_CONFIG', "`sasl.oauthbearer.token.endpoint.url` is mandatory"],
    ),
    (
        '{"plugin.library.paths": "nothing-of-this-name"}',
        {},
        ['"plugin.library.paths" in KAFKA_CONFIG: dlopen() failed'],
    ),
]


@pytest.mark.parametrize(("config", "given", "words"), REFUSED)
def test_what_every_client_refuses_is_named_at_every_start(
    config: str, given: dict[str, str], words: list[str]
) -> None:
    Path("no.pem").write_text("not a key")
    settings = settings_with(config, **given)
    with pytest.raises(WrongSettingError) as by_bridge:
        check_kafka_settings(settings)
    with pytest.raises(WrongSettingError) as by_worker:
        OutboxPublisher(settings).check()
    with pytest.raises(WrongSettingError) as by_lookup:
        Lookup(settings.kafka_client(), "group")
    (finding,) = look_at_kafka(settings)
    assert not finding.well
    for said in (str(by_bridge.value), str(by_worker.value), str(by_lookup.value), finding.sentence):
        assert said.startswith("wrong settings: ")
        assert "Traceback" not in said
        for each in words:
            assert each in said


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ('{"acks": 1}', '"acks" in KAFKA_CONFIG: `acks` must be set to `all` when `enable.idempotence` is true'),
        ('{"max.in.flight": 10}', '"max.in.flight" in KAFKA_CONFIG: '),
    ],
)
def test_what_only_the_producer_refuses_stops_workers_and_is_found_by_the_doctor(config: str, words: str) -> None:
    settings = settings_with(config)
    check_kafka_settings(settings)
    with pytest.raises(WrongSettingError) as raised:
        OutboxPublisher(settings).check()
    assert words in str(raised.value)
    (finding,) = look_at_kafka(settings)
    assert words in finding.sentence


def test_what_only_the_consumer_refuses_stops_the_bridge_alone() -> None:
    settings = settings_with('{"session.timeout.ms": 60000, "max.poll.interval.ms": 50000}')
    OutboxPublisher(settings).check()
    with pytest.raises(WrongSettingError) as raised:
        check_kafka_settings(settings)
    for name in ("session.timeout.ms", "max.poll.interval.ms"):
        assert f'"{name}" in KAFKA_CONFIG' in str(raised.value)
    Lookup(settings.kafka_client(), "group").close()  # it joins no group


def test_both_group_protocols_are_accepted_and_what_the_new_one_refuses_is_named() -> None:
    check_kafka_settings(settings_with('{"group.protocol": "classic"}'))
    settings = settings_with('{"group.protocol": "consumer"}')
    check_kafka_settings(settings)
    OutboxPublisher(settings).check()
    Lookup(settings.kafka_client(), "group").close()
    with pytest.raises(WrongSettingError, match=r'"session\.timeout\.ms" in KAFKA_CONFIG'):
        check_kafka_settings(settings_with('{"group.protocol": "consumer", "session.timeout.ms": 20000}'))


@pytest.mark.parametrize("milliseconds", [8_000, 20_000, 44_999])
def test_a_short_max_poll_interval_breaks_nothing(milliseconds: int) -> None:
    """Lookups never join the group, whose session timeout of 45 s would be too long for it."""
    settings = settings_with(f'{{"max.poll.interval.ms": {milliseconds}}}')
    Lookup(settings.kafka_client(), "group").close()
    check_kafka_settings(settings)
    config, route = settings.kafka_client(), ingest_route(settings)
    membership = Membership(config, route.group)
    described = describe_consumer(config, route, membership)
    assert described["session.timeout.ms"] == min(10_000, milliseconds)
    make_consumer(config, route, membership, print, print).close()


def test_what_is_set_there_wins_over_our_own_tuning() -> None:
    config = settings_with('{"fetch.wait.max.ms": 500, "session.timeout.ms": 45000}').kafka_client()
    described = describe_consumer(config, ingest_route(load_settings(None)), Membership(config, "group"))
    assert (described["fetch.wait.max.ms"], described["session.timeout.ms"]) == ("500", "45000")


def test_a_secret_in_librdkafkas_text_is_not_shown() -> None:
    def refuse(config: dict[str, object]) -> None:
        if "sasl.oauthbearer.client.secret" in config:
            msg = f"cannot use {config['sasl.oauthbearer.client.secret']}"
            raise ValueError(msg)

    (said,) = find_refusals(refuse, {"sasl.oauthbearer.client.secret": "hunter2"})
    assert said == '"sasl.oauthbearer.client.secret" in KAFKA_CONFIG: cannot use ***'


def test_properties_of_other_clients_change_nothing_and_fill_no_log() -> None:
    """In a process of its own, since librdkafka writes past Python."""
    code = (
        "from tasks.settings import load_settings\n"
        "from tasks.outbox import OutboxPublisher\n"
        "from bridge.lookup import Lookup\n"
        "from bridge.main import check_kafka_settings\n"
        "settings = load_settings(None)\n"
        "check_kafka_settings(settings)\n"
        "publisher = OutboxPublisher(settings)\n"
        "publisher.check()\n"
        "publisher._producer()\n"
        "Lookup(settings.kafka_client(), 'group').close()\n"
    )
    config = '{"fetch.min.bytes": 1, "max.poll.interval.ms": 300000, "acks": "all", "compression.type": "lz4"}'
    environment = {**os.environ, "KAFKA_BOOTSTRAP_SERVERS": "", "KAFKA_CONFIG": config}
    environment["KAFKA_BOOTSTRAP_SERVERS"] = "127.0.0.1:1"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment, timeout=120
    )
    assert "CONFWARN" not in done.stderr + done.stdout


@pytest.mark.parametrize("make", [Producer, AdminClient, Consumer])
def test_a_good_configuration_is_refused_by_nobody(make: type) -> None:
    assert find_refusals(make, {"group.id": "g", "compression.type": "zstd", "client.rack": "a"}) == []


@pytest.mark.parametrize(
    "command", [["-m", "bridge"], ["-m", "matyan_celery", "status"], ["-m", "celery", "-A", "tasks", "worker"]]
)
def test_programs_end_with_the_sentence_and_no_traceback(command: list[str], tmp_path: Path) -> None:
    open_store(f"sqlite:///{tmp_path / 'store.db'}").close()  # that there is one
    environment = {
        **os.environ,
        "KAFKA_CONFIG": '{"foo.bar": true}',
        "KAFKA_BOOTSTRAP_SERVERS": NOWHERE,
        "STORAGE_URL": f"sqlite:///{tmp_path / 'store.db'}",
        "METRICS_PORT": "0",
        "HEARTBEAT_FOLDER": str(tmp_path / "heartbeats"),
    }
    done = subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, check=False, env=environment, timeout=240
    )
    assert done.returncode != 0
    assert '"foo.bar" in KAFKA_CONFIG: No such configuration property: "foo.bar"' in done.stderr
    assert "Traceback" not in done.stderr
