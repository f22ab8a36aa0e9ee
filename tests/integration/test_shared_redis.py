"""Two installations share one database of one Redis: nothing of one reaches the other, and each counts its own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from demo.servers.kafka import KafkaServer
from demo.servers.process import wait_until
from demo.servers.redis import RedisServer
from tasks.celeryconfig import find_queues
from tasks.settings import load_settings
from tests.conftest import MakeTopic, Programs
from tests.integration.flower_answers import queue_lengths, worker_names
from tests.integration.traffic import all_numbers, log_records, produce, read_numbers, wait_applied

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

RUNS = 8
QUICK = {"STALL_SECONDS": "2"}
RIGHTS = {  # a channel that is listened to must be named as it is: Redis matches no pattern against a pattern
    "one": ("~a:*", "&a:/0.celery.pidbox", "&a:/0.celeryev/*"),
    "two": (
        *("~b.*", "~*.b.celery.pidbox", "~_kombu.binding.*b.*", "~_kombu.binding_permanent.*b.*"),
        "~_kombu.binding_deadlines",  # when tables of bindings may go, of all who share the database
        *("&/0.b.celery.pidbox", "&/0.b.celeryev/*"),
    ),
}


def condition(programs: Programs, **given: str) -> dict[str, Any]:
    _, output = programs.run("status", "--json", **given)
    found: dict[str, Any] = json.loads(output)["redis"]
    return found


def test_two_installations_share_a_database(
    kafka: KafkaServer,
    redis: RedisServer,
    make_topic: MakeTopic,
    group: str,
    programs: Programs,
    settings: dict[str, str],
    tmp_path: Path,
) -> None:
    """One is told apart by its keys, the other by the names of its queues; Redis lets neither touch anything else."""
    with Redis(port=redis.port) as client:
        for name, patterns in RIGHTS.items():
            client.execute_command("ACL", "SETUSER", name, "reset", "on", f">{name}", "+@all", "-@admin", *patterns)
    shared: dict[str, dict[str, str]] = {
        name: {
            option: prefix,
            "REDIS_URL": redis.url.replace("://", f"://{name}:{name}@"),
            "STORAGE_URL": f"sqlite:///{tmp_path / name}.db",
            "KAFKA_DATA_INGESTION_TOPIC": make_topic(),
            "KAFKA_CONTROL_EVENTS_TOPIC": make_topic(1),
            "INGEST_GROUP": f"{group}-{name}",
            "CONTROL_GROUP": f"{group}-{name}-control",
            **QUICK,
        }
        for name, option, prefix in (("one", "REDIS_KEY_PREFIX", "a:"), ("two", "QUEUE_PREFIX", "b."))
    }
    workers = {name: programs.worker(f"worker-{name}", concurrency=1, **given) for name, given in shared.items()}
    for name, given in shared.items():
        programs.bridge(f"bridge-{name}", **given).start()
        workers[name].start()
    servers = kafka.bootstrap_servers
    for name, count in (("one", 20), ("two", 30)):
        produce(servers, shared[name]["KAFKA_DATA_INGESTION_TOPIC"], log_records(RUNS, range(count)))
    for name, count in (("one", 20), ("two", 30)):
        wait_applied(servers, f"{group}-{name}", shared[name]["KAFKA_DATA_INGESTION_TOPIC"], seconds=120)
        assert read_numbers(shared[name]["STORAGE_URL"]) == all_numbers(RUNS, count)

    workers["two"].stop()
    produce(servers, shared["two"]["KAFKA_DATA_INGESTION_TOPIC"], log_records(RUNS, range(30, 40)))
    wait_until(
        lambda: sum(condition(programs, **shared["two"])["queues"].values()) > 0, "they wait", seconds=90, pause=1.0
    )
    one, two = (condition(programs, **given) for given in shared.values())
    assert (set(one["queues"].values()), two["workers"]) == ({0}, {})
    assert list(one["workers"]) == [f"worker-one@{tmp_path.name}"]
    assert all(name.startswith("b.") for name in two["queues"])

    flowers = {
        name: programs.flower(login="demo:demo", prefix="", config=None, **given) for name, given in shared.items()
    }
    for flower in flowers.values():
        flower.launch()
    wait_until(lambda: all(flower.is_ready() for flower in flowers.values()), "Flower is there", seconds=120)
    assert worker_names(flowers["one"]) == {f"worker-one@{tmp_path.name}"}
    assert worker_names(flowers["two"]) == set()
    assert set(queue_lengths(flowers["one"]).values()) == {0}
    lengths = queue_lengths(flowers["two"])
    assert sum(lengths.values()) >= sum(two["queues"].values())  # some of them have been sent again since
    assert set(lengths) == set(two["queues"]) == set(find_queues(load_settings(None, queue_prefix="b.")))

    workers["two"].start()
    wait_applied(servers, f"{group}-two", shared["two"]["KAFKA_DATA_INGESTION_TOPIC"], seconds=120)
    assert read_numbers(shared["two"]["STORAGE_URL"]) == all_numbers(RUNS, 40)
