"""Traces through real processes: from a record's header by way of the bridge to the worker, received over OTLP."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from confluent_kafka import Producer
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from demo.servers.kafka import KafkaServer
from demo.servers.process import wait_until
from tests.conftest import Programs
from tests.integration.traffic import log_records, wait_applied

pytestmark = pytest.mark.integration

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


class Receiver:
    """Takes spans over OTLP/HTTP."""

    def __init__(self) -> None:
        self.spans: list[tuple[str, Span]] = []
        spans = self.spans

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                request = ExportTraceServiceRequest.FromString(body)
                for resource in request.resource_spans:
                    names = {a.key: a.value.string_value for a in resource.resource.attributes}
                    for scope in resource.scope_spans:
                        spans.extend((names["service.name"], span) for span in scope.spans)
                self.send_response(200)
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def named(self, service: str, name: str) -> list[Span]:
        return [span for by, span in self.spans if (by, span.name) == (service, name)]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    receiver = Receiver()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.endpoint)
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "200")
    monkeypatch.delenv("OTEL_SERVICE_NAME", raising=False)
    yield receiver
    receiver.close()


def test_a_records_trace_goes_on_in_the_worker(
    programs: Programs, receiver: Receiver, kafka: KafkaServer, topic: str, group: str
) -> None:
    bridge, worker = programs.bridge(TRACING="true"), programs.worker(TRACING="true")
    bridge.start()
    worker.start()
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers})
    (traced, plain) = (item.record for item in log_records(2, range(1)))
    header = ("traceparent", f"00-{TRACE}-{SPAN}-01".encode())
    producer.produce(topic, traced.value, traced.key, partition=0, headers=[header])
    producer.produce(topic, plain.value, plain.key, partition=1)
    producer.produce(topic, b"no JSON", b"bad-run", partition=2)
    assert producer.flush(30) == 0
    wait_applied(kafka.bootstrap_servers, group, topic, seconds=60)
    wait_until(
        lambda: len(receiver.named("matyan-celery-worker", "matyan.ingest")) >= 3, "three tasks' spans", seconds=30
    )
    sent = {span.span_id: span for span in receiver.named("matyan-celery-bridge", "send batch")}
    links = [(link.trace_id.hex(), link.span_id.hex()) for span in sent.values() for link in span.links]
    assert links == [(TRACE, SPAN)]
    for task in receiver.named("matyan-celery-worker", "matyan.ingest"):
        parent = sent[task.parent_span_id]
        assert task.trace_id == parent.trace_id
        attributes = {a.key: a.value for a in task.attributes}
        assert attributes["messaging.destination.name"].string_value == topic
        assert attributes["matyan.state"].string_value == "applied"

    lines = [json.loads(line) for line in worker.output().splitlines() if line.startswith("{")]
    (dead,) = [line for line in lines if line["event"] == "dead letter"]
    assert (dead["topic"], dead["partition"], dead["offset"], dead["run"]) == (topic, 2, 0, "bad-run")
    assert (dead["reason"], dead["lane"] in range(8)) == ("invalid", True)
    assert bytes.fromhex(dead["trace_id"]) in {span.trace_id for span in sent.values()}


@pytest.mark.parametrize(("at_bridge", "at_worker"), [("true", "false"), ("false", "true")])
def test_one_side_alone_may_trace(
    programs: Programs, receiver: Receiver, kafka: KafkaServer, topic: str, group: str, at_bridge: str, at_worker: str
) -> None:
    bridge, worker = programs.bridge(TRACING=at_bridge), programs.worker(TRACING=at_worker)
    bridge.start()
    worker.start()
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers})
    for item in log_records(1, range(3)):
        producer.produce(topic, item.record.value, item.record.key, partition=0)
    assert producer.flush(30) == 0
    wait_applied(kafka.bootstrap_servers, group, topic, seconds=60)
    wait_until(lambda: bool(receiver.spans), "a span", seconds=30)
    assert {by for by, _ in receiver.spans} == {f"matyan-celery-{'bridge' if at_bridge == 'true' else 'worker'}"}
