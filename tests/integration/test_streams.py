"""The whole product on real servers and all recorded streams, while workers are killed and Redis forgets everything.

On both stores: the embedded one, and a real FoundationDB that is killed too, in the middle of what it commits.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from random import Random

import psutil
import pytest

from demo.servers.foundationdb import FoundationCluster
from demo.servers.kafka import KafkaServer
from demo.servers.process import wait_until
from demo.servers.product import WorkerProcess
from demo.servers.redis import RedisServer
from tests.conformance.vectors import SHARED
from tests.conftest import MakeTopic, Programs
from tests.integration.traffic import final_state, is_applied, load_streams, produce, replay_singly, wait_applied

STREAMS = SHARED.parent / "streams" / "all-in-topic-order.jsonl.gz"
SEED = 20261124
KILLS, FLUSHES, BRIDGE_KILLS, STORE_KILLS = 24, 4, 3, 6

needs_streams = pytest.mark.skipif(not STREAMS.is_file(), reason=f"no recorded streams at {STREAMS}")


@pytest.fixture
def topic(make_topic: MakeTopic) -> str:
    return make_topic(6)


@pytest.fixture(params=["sqlite", "foundationdb"])
def cluster(request: pytest.FixtureRequest) -> FoundationCluster | None:
    """The store's server, where it has one."""
    return request.getfixturevalue("foundationdb") if request.param == "foundationdb" else None


@pytest.fixture
def settings(settings: dict[str, str], cluster: FoundationCluster | None) -> dict[str, str]:
    return settings if cluster is None else {**settings, "STORAGE_URL": cluster.url}


def kill_some(random: Random, worker: WorkerProcess) -> str:
    """SIGKILL to a worker's child, or to the whole worker, which is then started again."""
    children = psutil.Process(worker.pid).children()
    if children and random.random() < 0.7:
        victim = random.choice(children)
        os.kill(victim.pid, signal.SIGKILL)
        return "child"
    worker.kill()
    worker.launch()
    return "worker"


@needs_streams
@pytest.mark.integration
@pytest.mark.timeout(900)
def test_all_streams_survive_kills_and_flushes(
    kafka: KafkaServer,
    redis: RedisServer,
    cluster: FoundationCluster | None,
    topic: str,
    group: str,
    programs: Programs,
    settings: dict[str, str],
    tmp_path: Path,
) -> None:
    random = Random(SEED)
    records = load_streams(STREAMS)
    small = {"STALL_SECONDS": "0.7", "BATCH_RECORDS": "60"}
    bridge = programs.bridge(**small)
    workers = [programs.worker(f"worker-{name}", concurrency=2, **small) for name in "ab"]
    for process in (bridge, *workers):
        process.start()

    # Each server process of the cluster's costs a restart of some seconds; so fewer of the others die beside it.
    if cluster is None:
        events = ["kill"] * KILLS + ["flush"] * FLUSHES + ["bridge"] * BRIDGE_KILLS
    else:
        events = ["kill"] * (KILLS // 2) + ["flush"] * 2 + ["bridge"] * 2 + ["store"] * STORE_KILLS
    slices = len(events)
    random.shuffle(events)
    killed = []
    by_partition = [[record for record in records if record.partition == number] for number in range(6)]
    for number, event in enumerate(events):
        for stream in by_partition:
            produce(
                kafka.bootstrap_servers,
                topic,
                stream[number * len(stream) // slices : (number + 1) * len(stream) // slices],
            )
        time.sleep(random.uniform(0, 0.3))  # how far it gets before the blow is part of what is drawn
        if event == "kill":
            worker = workers[random.randrange(2)]
            wait_until(worker.is_ready, "the worker is there to be killed", seconds=60)
            killed.append(kill_some(random, worker))
        elif event == "flush":
            redis.flush()
        elif event == "store" and cluster is not None:
            cluster.kill()
            cluster.start()
        else:
            bridge.kill()
            bridge.start()
    wait_applied(kafka.bootstrap_servers, group, topic, seconds=300)
    assert len(killed) == events.count("kill")
    assert {"child", "worker"} == set(killed)
    assert bridge.stop() == 0
    for worker in workers:
        worker.stop()
    assert is_applied(kafka.bootstrap_servers, group, topic)

    replay_singly(f"sqlite:///{tmp_path / 'replay.db'}", records)
    expected = final_state(f"sqlite:///{tmp_path / 'replay.db'}")
    found = final_state(settings["STORAGE_URL"])
    assert len(expected) > 80_000
    assert found == expected
