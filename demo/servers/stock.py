"""The stock Matyan programs as processes: backend, frontier and user interface.

Over an embedded store the backend runs with `tests/fdb_double` first on its path, so that its ``fdb`` is the double and
its cluster file names our SQLite store. Clients send to the frontier, the user interface's pages ask the backend.
"""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Final

from demo.servers.process import Process, free_port

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

DOUBLE: Final = Path(__file__).parents[2] / "tests" / "fdb_double"
_HOST: Final = "127.0.0.1"
# Ours, or of whoever started us; they would come before what is given.
_CLEARED: Final = dict.fromkeys(("VIRTUAL_ENV", "PYTHONPATH", "PYTHONHOME", "S3_REGION", "S3_PUBLIC_ENDPOINT")) | {
    "MATYAN_ENVIRONMENT": "development",
    "BLOB_BACKEND_TYPE": "s3",
    "METRICS_ENABLED": "false",
}
_READY_SECONDS: Final = 120.0  # they import a great deal


def store_environment(store_url: str, folder: Path) -> dict[str, str | None]:
    """What opens a store of ours in a stock program.

    Args:
        store_url: of a FoundationDB, or of an embedded store that exists.
        folder: for the file that stands for a cluster file where there is none.
    """
    if store_url.startswith("fdb://"):
        return {"PYTHONPATH": None, "FDB_CLUSTER_FILE": store_url.removeprefix("fdb://")}
    folder.mkdir(parents=True, exist_ok=True)
    cluster_file = folder / "stock.cluster"
    cluster_file.write_text(f"{store_url}\n")
    return {"PYTHONPATH": str(DOUBLE), "FDB_CLUSTER_FILE": str(cluster_file)}


class StockServer(Process):
    """One of them, with an address.

    Args:
        name: for messages, and of its log file.
        command: program and arguments, without those of the address.
        folder: for its log, and its working directory.
        environment: its settings.
        probe: a path that answers 200 once it is up.
        port: a free one if not given.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        folder: Path,
        environment: Mapping[str, str | None],
        *,
        probe: str,
        port: int | None = None,
    ) -> None:
        self.port = free_port() if port is None else port
        self._probe = probe
        folder.mkdir(parents=True, exist_ok=True)
        super().__init__(
            name,
            [*command, "--host", _HOST, "--port", str(self.port)],
            folder / f"{name}.log",
            environment={**_CLEARED, **environment},
            folder=folder,
            ready_seconds=_READY_SECONDS,
        )

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://{_HOST}:{self.port}"

    def is_ready(self) -> bool:
        """Whether its probe answers."""
        try:
            with urllib.request.urlopen(self.url + self._probe, timeout=5) as answer:  # noqa: S310 - http it is
                return bool(answer.status == 200)
        except (OSError, urllib.error.URLError):
            return False


class StockBackend(StockServer):
    """The REST API that the user interface reads, and that deletes runs.

    Args:
        python: one that has the stock packages, see `make_stock_environment`.
        folder: for its log and its cluster file.
        store_url: of the store; an embedded one must exist.
        settings: Kafka's and S3's, by their names in the environment.
        origins: addresses of the pages that may ask it.
    """

    def __init__(
        self, python: Path, folder: Path, store_url: str, settings: Mapping[str, str], *, origins: Sequence[str] = ()
    ) -> None:
        super().__init__(
            "stock-backend",
            [str(python), "-m", "uvicorn", "matyan_backend.app:app"],
            folder,
            {
                **settings,
                **store_environment(store_url, folder),
                "CORS_ORIGINS": json.dumps(list(origins)),
            },
            probe="/health/ready/",
        )


class StockFrontier(StockServer):
    """What clients send to: it produces to Kafka, and signs uploads to S3.

    Args:
        python: one that has the stock packages.
        folder: for its log.
        settings: Kafka's and S3's, by their names in the environment.
    """

    def __init__(self, python: Path, folder: Path, settings: Mapping[str, str]) -> None:
        command = [str(python), "-m", "uvicorn", "matyan_frontier.app:app"]
        super().__init__("stock-frontier", command, folder, settings, probe="/health/ready/")


class StockUi(StockServer):
    """The pages. They ask the backend from within the browser, so the backend must allow our address as an origin.

    Args:
        python: one that has the stock packages.
        folder: for its log.
        backend: the backend's address.
        port: where; the backend is told before we start.
    """

    def __init__(self, python: Path, folder: Path, backend: str, port: int) -> None:
        environment = {
            "MATYAN_UI_API_HOST_BASE": backend,
            "MATYAN_UI_API_BASE_PATH": "/api/v1",
            "MATYAN_UI_BASE_PATH": "",
            "MATYAN_UI_API_AUTH_TOKEN": "",
        }
        command = [str(python), "-c", "import matyan_ui; matyan_ui.exec_()"]
        super().__init__("stock-ui", command, folder, environment, probe="/", port=port)


def page_origins(port: int) -> list[str]:
    """The names under which a browser may have opened pages at a port of this machine."""
    return [f"http://{host}:{port}" for host in (_HOST, "localhost")]
