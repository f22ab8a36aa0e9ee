"""Traces of batches and tasks by OpenTelemetry; nothing of it is imported unless TRACING is on.

    a producer's span ··link··▶ "send batch" (bridge) ──child──▶ "matyan.ingest" (worker) ──child──▶ "matyan.cleanup"

The producer's context comes in a record's Kafka header ``traceparent``. A batch holds records of many traces, so its
span has links to them in place of a parent. Between processes the context travels in the headers of Celery's messages,
which a worker without tracing, or of an older release, passes over. Where spans go is for the SDK's own variables to
say (``OTEL_EXPORTER_OTLP_ENDPOINT``, ``OTEL_SERVICE_NAME``, ...).
"""

from __future__ import annotations

import importlib.util
import os
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from tasks.errors import WrongSettingError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from contextlib import AbstractContextManager

    from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
    from opentelemetry.trace import Tracer

    from storage.batch import Batch
    from tasks.metrics import Role

HEADER: Final = "traceparent"
_LINKS: Final = 64  # of one batch's span; the SDK's own bound is 128
_FLUSH_MILLISECONDS: Final = 3_000


@dataclass(frozen=True)
class _Running:
    """The tracing of this process."""

    pid: int
    provider: TracerProvider
    tracer: Tracer


_running: _Running | None = None


def start_tracing(role: Role, processor: SpanProcessor | None = None) -> None:
    """Make spans from here on, in this process. In a worker: in each child, after the fork.

    Args:
        role: what the process is; ``matyan-celery-bridge`` and so on is the service's name unless the SDK is told one.
        processor: takes the spans; the OTLP exporter's over HTTP if not given.

    Raises:
        WrongSettingError: OpenTelemetry is not installed.
    """
    global _running  # noqa: PLW0603 - as logs are, traces are the process'
    check_installed()
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import SERVICE_NAME, OTELResourceDetector, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    if _running is not None and _running.pid == os.getpid():
        return
    resource = Resource({SERVICE_NAME: f"matyan-celery-{role.value}"}).merge(OTELResourceDetector().detect())
    provider = TracerProvider(resource=resource)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()) if processor is None else processor)
    _running = _Running(os.getpid(), provider, provider.get_tracer("matyan-celery"))


def check_installed() -> None:
    """See whether tracing can be started, without importing it: that is for after the fork.

    Raises:
        WrongSettingError: OpenTelemetry is not installed.
    """
    try:
        found = all(importlib.util.find_spec(f"opentelemetry.{part}") for part in ("sdk", "exporter.otlp.proto.http"))
    except ModuleNotFoundError:
        found = False
    if not found:
        msg = "TRACING=true: OpenTelemetry is not installed: pip install 'matyan-celery[otel]', or set TRACING=false"
        raise WrongSettingError(msg)


def stop_tracing() -> None:
    """Send what is left, for a moment. Stopping twice, or without a start, is fine."""
    global _running
    running, _running = _running, None
    if running is not None and running.pid == os.getpid():
        running.provider.force_flush(_FLUSH_MILLISECONDS)
        running.provider.shutdown()


def is_tracing() -> bool:
    """Whether this process makes spans."""
    return _running is not None


def annotate(**fields: str | float | bool) -> None:
    """Note something on the span under way, if there is one."""
    if _running is not None:
        from opentelemetry import trace

        trace.get_current_span().set_attributes(fields)


def batch_span(batch: Batch, task: str, parents: Iterable[str]) -> AbstractContextManager[None]:
    """The span of sending a batch.

    Args:
        batch: what is sent.
        task: the name of its task.
        parents: the ``traceparent`` of its records, where they have one.
    """
    return nullcontext() if _running is None else _batch_span(_running.tracer, batch, task, parents)


@contextmanager
def _batch_span(tracer: Tracer, batch: Batch, task: str, parents: Iterable[str]) -> Iterator[None]:
    from opentelemetry import trace
    from opentelemetry.context import Context

    contexts = (trace.get_current_span(_extract({HEADER: parent})).get_span_context() for parent in parents)
    links = [trace.Link(context) for context in contexts if context.is_valid][:_LINKS]
    with tracer.start_as_current_span(
        "send batch",
        context=Context(),  # no parent: the links are
        kind=trace.SpanKind.PRODUCER,
        links=links,
        attributes={**describe_batch(batch), "matyan.task": task},
    ):
        yield


def describe_batch(batch: Batch) -> dict[str, str | int]:
    """A batch as attributes of a span."""
    return {
        "messaging.system": "kafka",
        "messaging.destination.name": batch.source.topic,
        "messaging.destination.partition.id": str(batch.source.partition),
        "messaging.batch.message_count": len(batch.records),
        "messaging.kafka.offset": batch.first,
        "matyan.last_offset": batch.last,
        "matyan.lane": batch.lane,
        "matyan.attempt": batch.attempt,
    }


# -- Celery's signals --------------------------------------------------------------------------------------------------


def connect_signals() -> None:
    """Let Celery's tasks be spans, and carry the context in their messages. For processes that trace."""
    from celery import signals

    signals.before_task_publish.connect(_inject, weak=False)
    signals.task_prerun.connect(_begin_task, weak=False)
    signals.task_failure.connect(_fail_task, weak=False)
    signals.task_postrun.connect(_end_task, weak=False)


def _inject(headers: dict[str, Any] | None = None, **_: Any) -> None:
    """The message that is about to be sent continues the trace of the span under way."""
    if _running is not None and headers is not None:
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        TraceContextTextMapPropagator().inject(headers)


def _begin_task(task: Any, **_: Any) -> None:
    if _running is None:
        return
    from opentelemetry import context, trace

    request = task.request
    span = _running.tracer.start_span(
        task.name,
        context=_extract(request.headers or {}),
        kind=trace.SpanKind.CONSUMER,
        attributes={"celery.task_id": str(request.id), "celery.retries": int(request.retries or 0)},
    )
    request.matyan_span = span, context.attach(trace.set_span_in_context(span))


def _fail_task(sender: Any, exception: BaseException, **_: Any) -> None:
    found = getattr(sender.request, "matyan_span", None)
    if found is not None:
        from opentelemetry.trace import Status, StatusCode

        found[0].record_exception(exception)
        found[0].set_status(Status(StatusCode.ERROR, type(exception).__name__))


def _end_task(task: Any, state: str | None = None, **_: Any) -> None:
    found = getattr(task.request, "matyan_span", None)
    if found is not None:
        from opentelemetry import context

        span, token = found
        span.set_attribute("celery.state", str(state))
        span.end()
        context.detach(token)
        task.request.matyan_span = None


def _extract(headers: dict[str, Any]) -> Any:
    """The context in a message's headers; an empty one where there is none."""
    from opentelemetry.context import Context
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    carrier = {name: value for name, value in headers.items() if isinstance(value, str)}
    return TraceContextTextMapPropagator().extract(carrier, context=Context())
