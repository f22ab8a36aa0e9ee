"""Metrics and health of one process, together: opened where it starts, closed where it ends."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Self

from tasks.endpoint import Endpoint
from tasks.health import Health
from tasks.metrics import UP, Role
from tasks.settings import WrongSettingError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from types import TracebackType

    from prometheus_client.registry import Collector

    from tasks.meter import Meter
    from tasks.settings import Settings


class Watch:
    """Shows a process to Prometheus and to probes.

    Args:
        settings: port, folder of heartbeats.
        role: what the process is.
        meter: its gauges are shown.
        counts: where its counters and histograms come from.
        needs: see `tasks.health.Health`.

    Raises:
        WrongSettingError: the port or the folder cannot be had.
    """

    def __init__(
        self,
        settings: Settings,
        role: Role,
        meter: Meter,
        counts: Iterable[Collector],
        needs: Mapping[str, float],
    ) -> None:
        folder = Path(settings.heartbeat_folder)
        try:
            self.health = Health(role, folder, stale=settings.heartbeat_stale_seconds, needs=dict(needs))
        except OSError as error:
            msg = f"HEARTBEAT_FOLDER={str(folder)!r}: cannot write there ({error.strerror}): name a folder of ours"
            raise WrongSettingError(msg) from error
        meter.show(UP, {(role.value,): 1})
        self.endpoint: Endpoint | None = None
        if settings.metrics_port:
            collectors = (meter, *counts)
            self.endpoint = Endpoint(settings.metrics_host, settings.metrics_port, self.health, collectors)

    def close(self) -> None:
        """Stop showing it. Closing twice is fine."""
        if self.endpoint is not None:
            self.endpoint.close()
            self.endpoint = None
        self.health.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
