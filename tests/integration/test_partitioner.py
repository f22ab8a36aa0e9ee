"""Our producers put a run where the stock backend's aiokafka puts it: the order of its records hangs on that."""

from __future__ import annotations

import subprocess
from uuid import UUID

import pytest
from confluent_kafka import KafkaError, Message, Producer

from demo.frontier import Frontier
from demo.servers.kafka import KafkaServer
from tasks.outbox import OutboxPublisher
from tasks.settings import load_settings
from tests.conftest import MakeTopic
from tests.integration.stock_backend import NoStockBackend, stock_python

pytestmark = [pytest.mark.integration, pytest.mark.stock, pytest.mark.timeout(300)]

PARTITIONS = 12
KEYS = [UUID(int=number * 0x9E3779B97F4A7C15F39CC0605CEDC835 % 2**128).hex for number in range(1_000)]
KEYS += ["a", "ab", "abc", "abcd", "größe", "x" * 300, *(f"run-{number}" for number in range(20))]
STOCK = """
import asyncio, sys
from aiokafka import AIOKafkaProducer
async def main():
    servers, topic, *keys = sys.stdin.read().splitlines()
    async with AIOKafkaProducer(bootstrap_servers=servers) as producer:
        sent = [await producer.send(topic, b"{}", key=key.encode()) for key in keys]
        await producer.flush()
        for one in sent:
            print((await one).partition)
asyncio.run(main())
"""


@pytest.fixture(scope="module")
def python() -> str:
    try:
        return str(stock_python())
    except NoStockBackend as error:
        pytest.skip(str(error))


def test_a_thousand_runs_lie_where_the_stock_backend_puts_them(
    python: str, kafka: KafkaServer, make_topic: MakeTopic
) -> None:
    topic, servers = make_topic(PARTITIONS), kafka.bootstrap_servers
    given = "\n".join([servers, topic, *KEYS])
    done = subprocess.run([python, "-c", STOCK], input=given, capture_output=True, text=True, check=True, timeout=120)
    by_stock = dict(zip(KEYS, map(int, done.stdout.split()), strict=True))
    assert len(set(by_stock.values())) == PARTITIONS

    publisher = OutboxPublisher(load_settings(None, kafka_bootstrap_servers=servers), patience=60.0)
    frontier = Frontier(servers, topic)
    for producer in (publisher._producer(), frontier._producer):
        assert send(producer, topic) == by_stock
    publisher.close()


def send(producer: Producer, topic: str) -> dict[str, int]:
    """Where each key's record went."""
    places: dict[str, int] = {}

    def note(error: KafkaError | None, message: Message) -> None:
        key, partition = message.key(), message.partition()
        assert error is None
        assert isinstance(key, bytes)
        assert partition is not None
        places[key.decode()] = partition

    for key in KEYS:
        producer.produce(topic, b"{}", key.encode(), on_delivery=note)
    assert producer.flush(60) == 0
    return places
