"""Alerts, dashboard and Prometheus' configuration, held to promtool and to each other."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.tools import CHART, ROOT, find_program

HERE = Path(__file__).parent
ALERTS = CHART / "files" / "alerts.yaml"
DASHBOARD = CHART / "files" / "matyan-celery.json"
STOCK = {
    "matyan_ingestion_messages_consumed_total",
    "matyan_ingestion_messages_processed_total",
    "matyan_ingestion_processing_errors_total",
    "matyan_ingestion_batch_size",
    "matyan_ingestion_batch_processing_seconds",
    "matyan_ingestion_txn_estimated_bytes",
    "matyan_ingestion_fdb_retries_total",
    "matyan_control_events_consumed_total",
    "matyan_control_events_processed_total",
    "matyan_control_processing_errors_total",
    "matyan_control_processing_duration_seconds",
}


def run_promtool(*arguments: str | Path) -> None:
    command = [find_program("promtool", "prometheus"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def read_alerts() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]]


def read_panels() -> list[dict[str, Any]]:
    return [panel for panel in json.loads(DASHBOARD.read_text())["panels"] if panel["type"] != "row"]


def test_the_rules_are_rules() -> None:
    run_promtool("check", "rules", ALERTS)


def test_the_alerts_fire_and_are_silent_when_they_should() -> None:
    run_promtool("test", "rules", HERE / "alerts_test.yaml")


def test_each_alert_is_tested() -> None:
    tested = (HERE / "alerts_test.yaml").read_text()
    for alert in read_alerts():
        assert f'"{alert["alert"]}"' in tested or f"alertname: {alert['alert']}\n" in tested, alert["alert"]


def test_each_alert_has_its_entry_in_the_runbook_and_no_other_has() -> None:
    runbook = (ROOT / "docs" / "runbook.md").read_text()
    entries = dict(re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", runbook, re.MULTILINE | re.DOTALL))
    alerts = {alert["alert"]: alert for alert in read_alerts()}
    assert list(entries) == list(alerts), "the same ones, in the same order"
    for name, alert in alerts.items():
        assert alert["annotations"]["runbook_url"] == f"docs/runbook.md#{name.lower()}"
        assert alert["labels"]["severity"] in {"critical", "warning"}
        assert {"summary", "description"} <= set(alert["annotations"])
        assert "**What it means.**" in entries[name]
        assert "**Do.**" in entries[name]


def test_prometheus_takes_its_configuration() -> None:
    run_promtool("check", "config", "--syntax-only", ROOT / "observability" / "prometheus.yaml")


def test_the_dashboard_shows_every_stock_metric() -> None:
    shown = " ".join(target["expr"] for panel in read_panels() for target in panel["targets"])
    for metric in STOCK:
        assert re.search(rf"\b{metric}(_bucket)?\b", shown), metric


def test_the_dashboards_panels_are_in_order() -> None:
    dashboard = json.loads(DASHBOARD.read_text())
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(ids) == len(set(ids))
    taken: dict[tuple[int, int], str] = {}
    for panel in dashboard["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        for cell in [
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        ]:
            assert cell not in taken, f"{panel['title']} lies on {taken[cell]}"
            taken[cell] = panel["title"]


def test_all_queries_of_the_dashboard_are_queries(tmp_path: Path) -> None:
    rules = [
        {"record": f"panel:{panel['id']}:{target['refId']}", "expr": target["expr"]}
        for panel in read_panels()
        for target in panel["targets"]
    ]
    assert len(rules) > 40
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    run_promtool("check", "rules", tmp_path / "rules.yaml")


def test_a_wrong_query_would_be_found(tmp_path: Path) -> None:
    wrong = {"groups": [{"name": "wrong", "rules": [{"record": "a", "expr": "sum by (le"}]}]}
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(wrong))
    with pytest.raises(AssertionError, match="parse error"):
        run_promtool("check", "rules", tmp_path / "rules.yaml")
