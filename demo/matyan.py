"""The stock Matyan programs beside the demo: user interface, backend and frontier (`make demo UI=1`)."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Final

from demo.servers.process import free_port
from demo.servers.stock import StockBackend, StockFrontier, StockUi, page_origins
from demo.servers.stock_environment import is_cached, make_stock_environment
from demo.terminal import say

if TYPE_CHECKING:
    from demo.stage import Stage

SCRIPT: Final = Path(__file__).with_name("client_script.py")


class Matyan:
    """The three programs, running.

    Args:
        stage: what they run on.
        folder: for their logs.
        python: that of the stock packages.
    """

    def __init__(self, stage: Stage, folder: Path, python: Path) -> None:
        self._python = python
        settings = {"KAFKA_BOOTSTRAP_SERVERS": stage.kafka.bootstrap_servers, **stage.s3.settings()}
        port = free_port()
        say("starting the stock Matyan: backend, frontier and user interface, on our store")
        self.backend = StockBackend(python, folder, stage.store_url, settings, origins=page_origins(port))
        self.frontier = StockFrontier(python, folder, settings)
        self.ui = StockUi(python, folder, self.backend.url, port)
        stage.start(self.backend, self.frontier, self.ui)

    def client_command(self) -> str:
        """The shell command that logs a run with the stock client."""
        script = SCRIPT.relative_to(Path.cwd()) if SCRIPT.is_relative_to(Path.cwd()) else SCRIPT
        addresses = f"MATYAN_FRONTIER_URL={self.frontier.url} MATYAN_BACKEND_URL={self.backend.url}"
        return f"{addresses} {shlex.join([str(self._python), str(script)])}"


def prepare_matyan() -> Path:
    """The Python of the stock packages, installed if need be.

    Raises:
        NoStockPackages: there is none, and none can be made; says what to do.
    """
    if not is_cached():
        say("installing the stock Matyan packages in an environment of their own; once, some minutes")
    return make_stock_environment()
