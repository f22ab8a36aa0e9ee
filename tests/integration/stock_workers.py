"""The stock ingestion and control workers as processes, over FoundationDB or, by the double, an embedded store."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from demo.servers.process import Process
from demo.servers.stock import store_environment

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

INGEST_GROUP: Final = "ingestion-workers"  # both are fixed in the stock workers
CONTROL_GROUP: Final = "control-workers"
_READY: Final = {"ingest-worker": "Ingestion worker started", "control-worker": "Control worker started"}


class StockWorker(Process):
    """``matyan-backend ingest-worker`` or ``control-worker``.

    It has no handler for SIGTERM: it ends at once, and its group notices only when its session has run out (10 s).

    Args:
        python: one that has the stock backend, see `stock_python`.
        store_url: of the store; an embedded one must be there.
        folder: for its log and cluster file.
        settings: names and values of CONTRACT 8.3, such as KAFKA_BOOTSTRAP_SERVERS.
        command: which of the two.
        name: for messages, and of its log file.
    """

    def __init__(
        self,
        python: Path,
        store_url: str,
        folder: Path,
        settings: Mapping[str, str],
        *,
        command: str = "ingest-worker",
        name: str = "stock",
    ) -> None:
        self._ready = _READY[command]
        super().__init__(
            name,
            [str(python.parent / "matyan-backend"), command],
            folder / f"{name}.log",
            environment={
                **store_environment(store_url, folder),
                "VIRTUAL_ENV": None,
                "METRICS_PORT": "0",
                "LOG_LEVEL": "INFO",
                **settings,
            },
            folder=folder,
            ready_seconds=90,
        )

    def is_ready(self) -> bool:
        """Whether it has joined its group."""
        return self._ready in self.output()
