"""Every kind of record that Kafka takes comes through bridge and worker whole, into its dead letter and out again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

import pytest
from confluent_kafka import Producer

from demo.servers.kafka import KafkaServer
from storage.batch import NO_TIME, Headers
from storage.recorded import parse_recorded
from tests.conftest import MakeTopic, Programs
from tests.integration.traffic import wait_applied

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

RUN: Final = "0" * 31 + "1"
HEADERS: Final[Headers] = (
    ("traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
    ("twice", b"1"),
    ("twice", b"2"),
    ("raw", b"\xff\x00"),
    ("empty", b""),
    ("none", None),
    ("größe", "Maß".encode()),
)
BAD: Final[list[tuple[bytes | None, bytes | None, int, Headers]]] = [  # key, value, time, headers
    (None, None, 1_000, ()),
    (RUN.encode(), None, NO_TIME, HEADERS),
    (None, b"no JSON", NO_TIME, ()),
    (b"", b"", -5, HEADERS[:1]),
    (b"\xfe\xff", b"\xff", 0, HEADERS[3:]),
    (RUN.encode(), b"no JSON", 1_000, (("large", b"x" * 300_000),)),
]


def test_dead_letters_keep_whole_records_and_their_lines_are_replayed(
    programs: Programs, settings: dict[str, str], kafka: KafkaServer, make_topic: MakeTopic, tmp_path: Path
) -> None:
    topic = settings["KAFKA_DATA_INGESTION_TOPIC"] = make_topic(1)
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers})
    for key, value, time, headers in BAD:
        # To this producer 0 means now.
        producer.produce(topic, value, key, timestamp=time or 1, headers=list(headers))
    payload = {"message": "good", "level": 20, "timestamp": 1.0}
    good = {"type": "log_record", "run_id": RUN, "timestamp": "2026-01-01T00:00:00Z", "payload": payload}
    producer.produce(topic, json.dumps(good).encode(), RUN.encode(), headers=list(HEADERS))
    assert producer.flush(60) == 0

    programs.worker().start()
    bridge = programs.bridge()
    bridge.start()
    wait_applied(kafka.bootstrap_servers, settings["INGEST_GROUP"], topic, seconds=120)
    assert bridge.stop() == 0

    code, shown = programs.run("dead-letters", "show", "--json")
    assert code == 0
    letters = [parse_recorded(line).record for line in shown.splitlines()]
    assert [(letter.key, letter.value, letter.timestamp_ms or 1, letter.headers) for letter in letters] == [
        (key, value, time or 1, headers) for key, value, time, headers in BAD
    ]
    assert programs.run("dead-letters", "requeue", "--all")[0] == 1, "what fails again stays"
    assert programs.run("dead-letters", "show", "--json") == (0, shown)

    file = tmp_path / "letters.jsonl"
    file.write_text(shown)
    other = f"sqlite:///{tmp_path / 'other.db'}"
    assert programs.run("replay", "--topic", topic, str(file), STORAGE_URL=other)[0] == 0
    assert programs.run("dead-letters", "show", "--json", STORAGE_URL=other) == (0, shown)
