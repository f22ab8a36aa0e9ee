"""Traces: links from records to batches, parents from batches to tasks; and nothing of it where it is off."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from celery import Celery
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from bridge.traces import find_parents
from storage.batch import Record
from tasks import tracing
from tasks.errors import WrongSettingError
from tasks.metrics import Role
from tests.unit.test_apply import batch, metric

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
PARENT = f"00-{TRACE}-{SPAN}-01"
BATCH = batch(metric(1), metric(2), metric(3), first=5)
LOOKED = """
import sys, bridge.main, tasks.celery
print([name for name in sys.modules if name.startswith(("opentelemetry.sdk.trace", "opentelemetry.exporter"))])
"""


@pytest.fixture
def spans() -> Iterator[InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    tracing.start_tracing(Role.WORKER, SimpleSpanProcessor(exporter))
    yield exporter
    tracing.stop_tracing()


def with_headers(*headers: tuple[str, bytes | None]) -> Record:
    return BATCH.records[0]._replace(headers=headers)


def test_a_batch_links_to_the_traces_of_its_records(spans: InMemorySpanExporter) -> None:
    traced = with_headers(("other", b"x"), ("traceparent", PARENT.encode()))
    twice = with_headers(("traceparent", PARENT.encode()), ("traceparent", b"nonsense"), ("traceparent", None))
    sent = replace(BATCH, records=(traced, BATCH.records[1], twice))
    assert find_parents(sent) == [PARENT, "nonsense"]
    with tracing.batch_span(BATCH, "matyan.ingest", find_parents(sent)):
        headers: dict[str, Any] = {}
        tracing._inject(headers=headers)
    (span,) = spans.get_finished_spans()
    assert (span.name, span.kind, span.parent) == ("send batch", SpanKind.PRODUCER, None)
    assert [(format(link.context.trace_id, "032x"), format(link.context.span_id, "016x")) for link in span.links] == [
        (TRACE, SPAN)
    ]
    assert span.attributes is not None
    assert span.attributes["messaging.kafka.offset"] == 5
    assert span.attributes["matyan.last_offset"] == 7
    assert headers["traceparent"].split("-")[1] == format(span.context.trace_id, "032x")


def by_name(spans: InMemorySpanExporter) -> dict[str, ReadableSpan]:
    return {span.name: span for span in spans.get_finished_spans()}


def test_a_task_is_the_child_of_what_sent_it_and_the_parent_of_what_it_sends(spans: InMemorySpanExporter) -> None:
    sent: dict[str, Any] = {}
    app = Celery("test", broker="memory://", set_as_current=False)

    @app.task(name="outer", bind=True)  # type: ignore[untyped-decorator] # Celery has no types
    def outer(self: Any) -> None:
        tracing.annotate(**{"matyan.run": "r1"})
        tracing._inject(headers=sent)

    @app.task(name="broken", bind=True)  # type: ignore[untyped-decorator] # Celery has no types
    def broken(self: Any) -> None:
        msg = "it broke"
        raise ValueError(msg)

    tracing.connect_signals()
    outer.apply(headers={"traceparent": PARENT, "other": 5})
    broken.apply()
    found = by_name(spans)
    span = found["outer"]
    assert span.parent is not None
    assert (format(span.parent.trace_id, "032x"), format(span.parent.span_id, "016x")) == (TRACE, SPAN)
    assert span.attributes is not None
    assert (span.attributes["matyan.run"], span.attributes["celery.state"]) == ("r1", "SUCCESS")
    assert sent["traceparent"].split("-")[1:3] == [TRACE, format(span.context.span_id, "016x")]
    assert found["broken"].parent is None
    assert found["broken"].status.status_code is StatusCode.ERROR
    app.close()


def test_off_means_no_span_and_no_import() -> None:
    assert not tracing.is_tracing()
    with tracing.batch_span(BATCH, "matyan.ingest", [PARENT]):
        tracing.annotate(ignored=True)
    headers: dict[str, Any] = {}
    tracing._inject(headers=headers)
    assert headers == {}
    assert find_parents(replace(BATCH, records=(with_headers(("traceparent", PARENT.encode())),))) == []
    # Redis' client loads the SDK's metrics where it finds them; spans and exporters would be ours.
    done = subprocess.run([sys.executable, "-c", LOOKED], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_on_without_opentelemetry_is_a_wrong_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.tracing.importlib.util.find_spec", lambda name: None)
    with pytest.raises(WrongSettingError, match=r"TRACING=true: .*pip install 'matyan-celery\[otel\]'"):
        tracing.check_installed()
