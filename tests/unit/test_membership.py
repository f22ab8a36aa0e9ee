"""How a bridge is in its group: settings by protocol, strangers, and what refuses it for good."""

from __future__ import annotations

from typing import Any, cast

import pytest
from confluent_kafka import Consumer, KafkaError

from bridge.membership import InstanceTaken, Membership
from storage.errors import Refused

CLASSIC = Membership({"group.instance.id": "bridge-0"}, "workers")
NEW = Membership({"group.protocol": "consumer", "group.instance.id": "bridge-0"}, "workers")


class GivenUp:
    """What a client says that has given up: the error that made it do so is in the text alone."""

    def __init__(self, code: int) -> None:
        self._text = f"Fatal error: {KafkaError(code).str()}: Fatal consumer error: {KafkaError(code).str()}"

    def code(self) -> int:
        return KafkaError._FATAL

    def str(self) -> str:
        return self._text


def given_up(code: int) -> KafkaError:
    return cast(KafkaError, GivenUp(code))


def test_each_protocol_gets_its_settings() -> None:
    assert set(CLASSIC.defaults) | set(CLASSIC.fixed) == {"session.timeout.ms", "partition.assignment.strategy"}
    assert not NEW.defaults
    assert not NEW.fixed
    assert not Membership({"group.protocol": "classic"}, "workers").is_new


def test_strangers_are_named() -> None:
    assert CLASSIC.find_foreign(["matyan-bridge", "matyan-bridge"]) is None
    found = CLASSIC.find_foreign(["matyan-bridge", "aiokafka-0.14.0", "aiokafka-0.14.0"])
    assert found == "the group 'workers' has other members: aiokafka-0.14.0; stop them first"
    found = NEW.find_foreign(["aiokafka-0.14.0"])
    assert found is not None
    assert "cannot be mixed" in found
    assert "group.protocol=consumer" in found


def test_a_drainer_is_alone() -> None:
    assert CLASSIC.find_foreign(["matyan-bridge"], ours="") is not None
    assert CLASSIC.find_foreign([], ours="") is None


@pytest.mark.parametrize(
    ("membership", "code", "fatal", "named"),
    [
        (CLASSIC, KafkaError.INCONSISTENT_GROUP_PROTOCOL, False, "group.protocol=classic"),
        (NEW, KafkaError.GROUP_ID_NOT_FOUND, True, "group.protocol=consumer"),
        (CLASSIC, KafkaError.INVALID_SESSION_TIMEOUT, False, "session.timeout.ms"),
        (CLASSIC, KafkaError.FENCED_INSTANCE_ID, True, "group.instance.id='bridge-0'"),
        (NEW, KafkaError.UNSUPPORTED_ASSIGNOR, True, "not supported by the consumer group"),
    ],
)
def test_what_will_not_pass_by_itself_is_refused(membership: Membership, code: int, fatal: bool, named: str) -> None:
    with pytest.raises(Refused, match=named):
        membership.check(given_up(code) if fatal else KafkaError(code))


def test_an_id_that_another_has_is_waited_for() -> None:
    with pytest.raises(InstanceTaken, match="each bridge needs an id of its own"):
        NEW.check(given_up(KafkaError.UNRELEASED_INSTANCE_ID))


def test_what_passes_by_itself_is_nothing() -> None:
    for code in (KafkaError._TRANSPORT, KafkaError._AUTO_OFFSET_RESET, KafkaError.REBALANCE_IN_PROGRESS):
        CLASSIC.check(KafkaError(code))


class Recorded:
    """What a consumer is told at its end."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def unsubscribe(self) -> None:
        self.told.append("unsubscribe")

    def poll(self, timeout: float) -> Any:
        self.told.append("poll")

    def close(self) -> None:
        self.told.append("close")


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({}, ["close"]),
        ({"group.instance.id": "x"}, ["unsubscribe", "poll", "close"]),
        ({"group.instance.id": "x", "group.protocol": "consumer"}, ["close"]),
    ],
)
def test_a_static_member_says_that_it_leaves(config: dict[str, str], told: list[str]) -> None:
    consumer = Recorded()
    Membership(config, "workers").leave(cast(Consumer, consumer))
    assert consumer.told == told
