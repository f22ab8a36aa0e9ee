"""Settings of logs, metrics, health and Flower."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from tasks.heartbeat import DEFAULT_FOLDER
from tasks.settings.kinds import Section


class OperationSettings(Section):
    """What operators look at."""

    log_level: Annotated[str, Field(pattern="(?i)^(debug|info|warning|error|critical)$")] = "INFO"
    """The lowest level that is logged."""
    log_format: Literal["auto", "json", "console"] = "auto"
    """One JSON object a line, or text for people; ``auto``: text on a terminal."""
    metrics_enabled: bool = True
    """Accepted and not used, as by the stock workers: METRICS_PORT=0 switches the server off."""
    metrics_port: Annotated[int, Field(ge=0, le=65_535)] = 9090
    """Port of metrics and health, one a process; 0: no server. Two processes on one machine need two."""
    metrics_host: str = "0.0.0.0"  # noqa: S104 - Prometheus and the kubelet come from outside
    """Address that this server listens on; 0.0.0.0: all."""
    heartbeat_folder: Annotated[str, Field(min_length=1)] = DEFAULT_FOLDER
    """Where a process leaves its heartbeat for ``matyan-celery health``, one file a role."""
    heartbeat_stale_seconds: Annotated[float, Field(ge=5)] = 60.0
    """A process whose loop has not turned for so long counts as hung."""
    tracing: bool = False
    """Make spans of batches and tasks, and send them by OTLP over HTTP (needs ``matyan-celery[otel]``). Where to, the
    variables of OpenTelemetry say, OTEL_EXPORTER_OTLP_ENDPOINT for example."""
    recovery_allow_unauthenticated: bool = False
    """Let Flower's recovery page write even where Flower runs without authentication."""
