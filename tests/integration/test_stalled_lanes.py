"""A batch that nobody works on is a stalled lane in status and on the page, until it moves."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from redis import Redis

from demo.servers.kafka import KafkaServer
from demo.servers.process import wait_until
from demo.servers.redis import RedisServer
from storage.stalls import Stall, Stalls
from storage.store import Store, open_store
from tests.conftest import Programs
from tests.integration.browser import Browser
from tests.integration.commands import run_command
from tests.integration.traffic import all_numbers, log_records, produce, read_numbers, wait_applied

pytestmark = pytest.mark.integration

RUNS = 6


def stalls(store: Store) -> list[Stall]:
    return Stalls(store.ledger).find(store.engine)


def test_a_lane_that_stands_still(
    kafka: KafkaServer,
    redis: RedisServer,
    topic: str,
    group: str,
    programs: Programs,
    settings: dict[str, str],
    tmp_path: Path,
    browser: Browser,
) -> None:
    bridge = programs.bridge(STALL_SECONDS="1")
    bridge.start()
    bridge.wait_output('"partitions": [0, 1, 2, 3]', 60)
    # Sent now: Kafka deletes records of 1970 after half a minute.
    records = [item._replace(record=item.record._replace(timestamp_ms=0)) for item in log_records(RUNS, range(20))]
    produce(kafka.bootstrap_servers, topic, records)
    with open_store(settings["STORAGE_URL"]) as store:
        wait_until(lambda: bool(stalls(store)), "the bridge has noted what stands still", seconds=60)  # no worker runs
        lanes = stalls(store)
        assert {stall.source.topic for stall in lanes} == {topic}
        report = json.loads(run_command(settings, tmp_path, "status", "--json").stdout)
        assert any("have not moved for" in sentence for sentence in report["wrong"])
        assert report["stalls"]

        flower = programs.flower()
        flower.start()
        browser.open(flower.url.replace("://", f"://{flower.login}@") + "/recovery")
        browser.wait_text(f"{lanes[0].source} lane {lanes[0].lane}")
        epochs = {stall.source: stall.epoch for stall in stalls(store)}
        with Redis.from_url(redis.url) as client:
            client.flushall()  # as if Redis had lost them: what is requeued is in it again
            browser.find("#requeue-all")[0].click()
            browser.wait_text("takes the partition over again")
            wait_until(lambda: bool(client.keys("ingest.*")), "the bridge has sent them again", seconds=60)
        wait_until(
            lambda: all(stall.epoch != epochs.get(stall.source) for stall in stalls(store)),
            "the epochs are new",
            seconds=60,
        )

        programs.worker(concurrency=2).start()
        wait_applied(kafka.bootstrap_servers, group, topic, seconds=60)
        assert stalls(store) == []
    assert read_numbers(settings["STORAGE_URL"]) == all_numbers(RUNS, 20)
