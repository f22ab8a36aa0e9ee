"""Logs of every process: one line an event on standard error, JSON where nobody is looking, readable on a terminal."""

from __future__ import annotations

import logging
import sys
from typing import Any

import structlog

from storage.masking import mask_url


def configure_logs(level: str, form: str = "auto", *, traced: bool = False) -> None:
    """Send our events and those of libraries to standard error in one form.

    What is bound to the context (`structlog.contextvars`: the run, partition, lane that a task works on) stands in
    each line, those of libraries too.

    Args:
        level: the lowest level that is written, ``INFO`` for example.
        form: ``json``, ``console``, or ``auto``: for people on a terminal, JSON elsewhere.
        traced: say in each line which trace it belongs to.
    """
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    if traced:
        shared.append(_add_trace)
    terminal = form == "console" or (form == "auto" and sys.stderr.isatty())
    ending: list[structlog.typing.Processor] = (
        # A plain traceback: the rich one shows local variables, and with them settings.
        [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback)]
        if terminal
        else [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    )
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *ending, _mask],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # Celery says "received" and "succeeded" for each task, and kombu more: our own line a batch says what happened.
    for name in ("celery.worker.strategy", "celery.app.trace", "kombu"):
        logging.getLogger(name).setLevel(max(logging.WARNING, logging.getLevelName(level.upper())))


def _mask(_: object, __: str, line: Any) -> str:
    """The finished line without passwords, whoever wrote them into it."""
    return mask_url(line)


def _add_trace(_: object, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    from opentelemetry import trace

    context = trace.get_current_span().get_span_context()
    if context.is_valid:
        event["trace_id"] = format(context.trace_id, "032x")
        event["span_id"] = format(context.span_id, "016x")
    return event
