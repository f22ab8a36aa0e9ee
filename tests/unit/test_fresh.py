"""A question is asked once more of a client that has looked at the cluster anew."""

from __future__ import annotations

from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from bridge.fresh import KafkaAway, ask_freshly


class FakeClient:
    """Knows of a partition only once it has looked."""

    def __init__(self, *, reachable: bool = True) -> None:
        self.looked = 0
        self.asked = 0
        self._reachable = reachable

    def list_topics(self, *, timeout: float) -> Any:
        self.looked += 1
        if not self._reachable:
            raise KafkaException(KafkaError(KafkaError._TRANSPORT))

    def ask(self) -> str:
        self.asked += 1
        if not self.looked:
            raise KafkaException(KafkaError(KafkaError._UNKNOWN_PARTITION))
        return "answer"


def test_an_answer_needs_no_look() -> None:
    client = FakeClient()
    assert ask_freshly((client,), lambda: "answer", seconds=1) == "answer"
    assert client.looked == 0


def test_what_the_client_did_not_know_it_learns() -> None:
    client = FakeClient()
    assert ask_freshly((client,), client.ask, seconds=1) == "answer"
    assert (client.looked, client.asked) == (1, 2)


@pytest.mark.parametrize(
    "error", [KafkaException(KafkaError(KafkaError._TIMED_OUT)), KafkaAway("no bounds"), TimeoutError()]
)
def test_what_fails_again_is_away(error: Exception) -> None:
    client = FakeClient()

    def fail() -> None:
        client.asked += 1
        raise error

    with pytest.raises(KafkaAway, match=r".+"):
        ask_freshly((client,), fail, seconds=1)
    assert (client.looked, client.asked) == (1, 2)


def test_a_cluster_that_cannot_be_looked_at_is_away() -> None:
    client = FakeClient(reachable=False)
    with pytest.raises(KafkaAway, match="Unknown partition"):
        ask_freshly((client,), client.ask, seconds=1)
    assert client.asked == 1


def test_a_final_error_is_an_answer() -> None:
    client = FakeClient()
    with pytest.raises(KafkaException, match="Unknown partition"):
        ask_freshly((client,), client.ask, seconds=1, final=frozenset({KafkaError._UNKNOWN_PARTITION}))
    assert client.looked == 0


def test_our_own_faults_are_not_kafkas() -> None:
    client = FakeClient()
    with pytest.raises(ZeroDivisionError):
        ask_freshly((client,), lambda: 1 // 0, seconds=1)
    assert client.looked == 0
