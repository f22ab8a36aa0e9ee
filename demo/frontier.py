"""What a Matyan client logs, in the stock frontier's wire form, into Kafka; and a memory of what was sent.

Field order and forms are those of recorded traffic (CONTRACT 7.1): compact JSON in UTF-8, ``type, run_id, timestamp,
payload``, the run id as key, all payload fields of metrics and objects present.
"""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from confluent_kafka import Producer

from storage.contexts import identify_context
from tasks.kafka_clients import PARTITIONER

if TYPE_CHECKING:
    from collections.abc import Callable

_FLUSH_SECONDS = 120.0  # for machines that have a lot else to do

Place = tuple[str, int, str]  # run, context id, sequence name


@dataclass
class Sent:
    """Everything that was sent, for the check at the end.

    Attributes:
        records: how many records.
        points: by run, context id and sequence name: the values, by step.
        contexts: by run: contexts by id.
        params: by run: the hparams.
        tags: by run.
        experiments: by run.
        blobs: by run: S3 keys by artifact path.
        finished: runs that ended.
        bad: records that can never be applied.
    """

    records: int = 0
    points: dict[Place, dict[int, Any]] = field(default_factory=lambda: defaultdict(dict))
    contexts: dict[str, dict[int, Any]] = field(default_factory=lambda: defaultdict(dict))
    params: dict[str, dict[str, Any]] = field(default_factory=dict)
    tags: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    experiments: dict[str, str] = field(default_factory=dict)
    blobs: dict[str, dict[str, str]] = field(default_factory=lambda: defaultdict(dict))
    finished: set[str] = field(default_factory=set)
    bad: int = 0


def _upload_nothing(key: str, body: bytes) -> None:
    """For who has no blob store; the records are the same."""


class Frontier:
    """Sends messages, and remembers them.

    Args:
        bootstrap_servers: Kafka.
        topic: the ingestion topic.
        upload: given the key and the bytes of each blob, before the record that refers to it.
    """

    def __init__(
        self, bootstrap_servers: str, topic: str, upload: Callable[[str, bytes], object] = _upload_nothing
    ) -> None:
        self.sent = Sent()
        self.upload = upload
        self._topic = topic
        self._producer = Producer(
            {
                "bootstrap.servers": bootstrap_servers,
                "linger.ms": 5,
                "partitioner": PARTITIONER,  # frontier and backend must agree on a run's partition
                "log_level": 3,
            }
        )

    def send(self, kind: str, run: str, payload: dict[str, Any]) -> None:
        """Send one message."""
        now = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
        envelope = {"type": kind, "run_id": run, "timestamp": now, "payload": payload}
        self.send_bytes(run, json.dumps(envelope, separators=(",", ":"), ensure_ascii=False).encode())

    def send_bytes(self, run: str, value: bytes) -> None:
        """Send a record as it is."""
        while True:
            try:
                self._producer.produce(self._topic, value, run.encode())
                break
            except BufferError:
                self._producer.poll(0.05)
        self._producer.poll(0)
        self.sent.records += 1

    def delete(self, run: str) -> None:
        """What the API sends when a person deletes a run."""
        self.send("delete_run", run, {})

    def partitions(self) -> list[int]:
        """The topic's partitions."""
        return list(self._producer.list_topics(self._topic, timeout=10).topics[self._topic].partitions)

    def flush(self) -> None:
        """Wait until Kafka has everything.

        Raises:
            TimeoutError: it has not within two minutes.
        """
        left = self._producer.flush(_FLUSH_SECONDS)
        if left:
            msg = f"Kafka did not take {left} records within {_FLUSH_SECONDS:g} s"
            raise TimeoutError(msg)

    def point(self, run: str, context: dict[str, Any] | None, name: str, step: int, value: Any) -> None:
        """Remember a point of a sequence; a later one of the same step takes its place."""
        number = identify_context(context)
        self.sent.points[run, number, name][step] = value
        self.sent.contexts[run][number] = context or {}


class RunLogger:
    """One run, as a client sees it.

    Args:
        frontier: where to.
        run: run id, 32 hexadecimal digits.
        clock: the client's time, for metrics.
    """

    def __init__(self, frontier: Frontier, run: str, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._frontier = frontier
        self._run = run
        self._clock = clock
        self._lines = 0
        self._records = 0
        self._send("create_run", {"client_datetime": self._now(), "force_resume": False})

    def _now(self) -> str:
        return self._clock().isoformat()

    def _send(self, kind: str, payload: dict[str, Any]) -> None:
        self._frontier.send(kind, self._run, payload)

    def metric(self, name: str, value: float, step: int, epoch: int, context: dict[str, Any] | None) -> None:
        """A point of a metric."""
        payload = {
            "name": name,
            "value": value,
            "step": step,
            "epoch": epoch,
            "context": context,
            "dtype": "float",
            "client_datetime": self._now(),
        }
        self._send("log_metric", payload)
        self._frontier.point(self._run, context, name, step, value)

    def custom(self, name: str, value: dict[str, Any], step: int, context: dict[str, Any] | None) -> None:
        """A custom object: text, distribution, figure, ..."""
        payload = {
            "name": name,
            "value": value,
            "step": step,
            "epoch": None,
            "context": context,
            "dtype": value["type"],
        }
        self._send("log_custom_object", payload)
        self._frontier.point(self._run, context, name, step, value)

    def hparams(self, value: dict[str, Any]) -> None:
        """The run's parameters."""
        self._send("log_hparams", {"value": {"hparams": value}})
        self._frontier.sent.params[self._run] = value

    def tag(self, name: str) -> None:
        """A tag."""
        self._send("add_tag", {"tag_name": name})
        self._frontier.sent.tags[self._run].add(name)

    def untag(self, name: str) -> None:
        """A tag taken off."""
        self._send("remove_tag", {"tag_name": name})
        self._frontier.sent.tags[self._run].discard(name)

    def describe(self, experiment: str, name: str) -> None:
        """The run's experiment and name."""
        self._send("set_run_property", {"experiment": experiment})
        self._send("set_run_property", {"name": name})
        self._frontier.sent.experiments[self._run] = experiment

    def line(self, text: str) -> None:
        """A line of the terminal."""
        self._send("log_terminal_line", {"line": text, "step": self._lines})
        self._frontier.point(self._run, None, "logs", self._lines, text)
        self._lines += 1

    def record(self, message: str, level: int) -> None:
        """A log record; its step is found by the worker."""
        seconds = self._clock().timestamp()
        info = ["train.py", 42]
        self._send("log_record", {"message": message, "level": level, "timestamp": seconds, "logger_info": info})
        value = {"message": message, "log_level": level, "timestamp": seconds, "args": None, "logger_info": info}
        self._frontier.point(self._run, None, "__log_records", self._records, value)
        self._records += 1

    def blob(self, path: str, body: bytes) -> None:
        """An artifact, uploaded."""
        key = f"{self._run}/{path}"
        self._frontier.upload(key, body)
        self._send("blob_ref", {"s3_key": key, "artifact_path": path, "content_type": "application/octet-stream"})
        self._frontier.sent.blobs[self._run][path] = key

    def finish(self) -> None:
        """The end of the run."""
        self._send("finish_run", {})
        self._frontier.sent.finished.add(self._run)
