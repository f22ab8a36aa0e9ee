"""Alerts, dashboard and Prometheus' configuration, held to promtool and to each other."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tasks.metrics import METRICS
from tests.deploy.tools import CHART, ROOT, find_program

HERE = Path(__file__).parent
ALERTS = CHART / "files" / "alerts.yaml"
DASHBOARD = CHART / "files" / "matyan-celery.json"
STOCK = [metric.name for metric in METRICS[:11]]  # the stock workers', whose dashboard must go on working


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


def test_the_dashboard_shows_every_metric() -> None:
    shown = {name for panel in read_panels() for target in panel["targets"] for name, _ in find_selectors(target)}
    assert STOCK[0] == "matyan_ingestion_messages_consumed_total"
    assert STOCK[-1] == "matyan_control_processing_duration_seconds"
    for metric in METRICS:
        assert metric.name in shown, metric.name


def test_alerts_and_dashboard_ask_for_metrics_and_labels_that_there_are() -> None:
    labels = {metric.name: set(metric.labels) for metric in METRICS}
    asked = 0
    for query in [*read_alerts(), *(target for panel in read_panels() for target in panel["targets"])]:
        for name, chosen in find_selectors(query):
            assert name in labels, f"there is no {name}"
            assert set(re.findall(r"(\w+)=", chosen)) <= labels[name], f"{name}{{{chosen}}}"
            asked += 1
    assert asked > 60


def find_selectors(query: dict[str, Any]) -> list[tuple[str, str]]:
    """The metrics of ours in a query, each with what its labels must be; buckets stand for their histogram."""
    found = re.findall(r"(matyan_\w+)(?:\{([^}]*)\})?", query["expr"])
    return [(name.removesuffix("_bucket"), chosen) for name, chosen in found]


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
