"""A real Prometheus as a process, with our configuration and alerts, and the questions that it answers."""

from __future__ import annotations

import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from demo.servers.process import Process, free_port
from tests.deploy.tools import CHART, ROOT, find_program


class QueryError(Exception):
    """Prometheus does not understand a query; the message is its own."""


class PrometheusServer(Process):
    """``prometheus`` with the configuration of compose, but for where it finds the processes.

    Args:
        folder: for its log, configuration and data.
        targets: ports on 127.0.0.1, by the role of what answers there.
    """

    def __init__(self, folder: Path, targets: Mapping[str, int]) -> None:
        self.port = free_port()
        config = yaml.safe_load((ROOT / "observability" / "prometheus.yaml").read_text())
        assert config["rule_files"] == ["alerts.yaml"]
        config["rule_files"] = [str(CHART / "files" / "alerts.yaml")]
        config["global"] |= {"scrape_interval": "1s", "evaluation_interval": "1s"}
        (ours,) = [job for job in config["scrape_configs"] if job["job_name"] == "matyan-celery"]
        assert [name for place in ours["dns_sd_configs"] for name in place["names"]] == list(targets)
        del ours["dns_sd_configs"]
        ours["static_configs"] = [{"targets": [f"127.0.0.1:{port}" for port in targets.values()]}]
        config["scrape_configs"] = [ours]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "prometheus.yaml").write_text(yaml.safe_dump(config))
        command = [str(find_program("prometheus", "prometheus")), f"--config.file={folder / 'prometheus.yaml'}"]
        command += [f"--storage.tsdb.path={folder / 'data'}", f"--web.listen-address=127.0.0.1:{self.port}"]
        super().__init__("prometheus", command, folder / "prometheus.log", ready_seconds=60)

    def is_ready(self) -> bool:
        """Whether it answers."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/-/ready", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The series that a query gives now: each its labels (``metric``) and its value (time and text).

        Raises:
            QueryError: it is none.
        """
        return list(self._ask("query", query=expression)["result"])

    def rules(self) -> dict[str, dict[str, Any]]:
        """The alerts by name, as Prometheus has them."""
        return {rule["name"]: rule for group in self._ask("rules")["groups"] for rule in group["rules"]}

    def targets(self) -> dict[int, str]:
        """The last error of each target, by its port; empty text: none."""
        found = self._ask("targets")["activeTargets"]
        return {int(target["labels"]["instance"].rpartition(":")[2]): target["lastError"] for target in found}

    def _ask(self, what: str, **parameters: str) -> dict[str, Any]:
        address = f"http://127.0.0.1:{self.port}/api/v1/{what}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(address, timeout=20) as answer:
                return dict(json.load(answer)["data"])
        except urllib.error.HTTPError as error:
            raise QueryError(json.load(error)["error"]) from error
