"""Logs of every process: one line an event on standard error, JSON where nobody is looking, readable on a terminal."""

from __future__ import annotations

import logging
import sys
from typing import Any

import structlog

from storage.masking import mask_url


def configure_logs(level: str) -> None:
    """Send our events and those of libraries to standard error in one form.

    Args:
        level: the lowest level that is written, ``INFO`` for example.
    """
    shared: list[structlog.typing.Processor] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    terminal = sys.stderr.isatty()
    ending: list[structlog.typing.Processor] = (
        # A plain traceback: the rich one shows local variables, and with them settings.
        [structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)]
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
