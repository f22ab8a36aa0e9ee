"""The page of metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from matyan_celery.reference.tables import NOTE, make_table
from tasks.metrics import METRICS, Kind, Metric, Role

if TYPE_CHECKING:
    from collections.abc import Iterable

_INTRODUCTION: Final = """\
Each process shows its own at `METRICS_PORT`, at any path but the probes' (`/livez`, `/readyz`, `/startupz`). A worker's
children are added up by their parent, dead ones included, so a counter does not fall back when a child is killed. The
stock workers' eleven have their names, labels, buckets and meaning; what one process showed there is shared between the
bridge and the workers here, so sum over all. The `process_*` and `python_*` metrics are those of the process that
answers, a worker's parent for example.
"""
_STOCK: Final = ("matyan_ingestion_", "matyan_control_")


def write_metrics() -> str:
    """The page."""
    stock = [metric for metric in METRICS if metric.name.startswith(_STOCK)]
    ours = [metric for metric in METRICS if metric not in stock]
    lines = [NOTE, "# Metrics", "", _INTRODUCTION]
    lines += ["## The stock workers'", "", *_table(stock), ""]
    lines += ["## Ours", "", *_table(ours), ""]
    return "\n".join(lines)


def _table(metrics: Iterable[Metric]) -> list[str]:
    rows = ((f"`{m.name}`", m.kind.value, _labels(m), _roles(m), _meaning(m)) for m in metrics)
    return make_table(("name", "kind", "labels", "shown by", "meaning"), rows)


def _labels(metric: Metric) -> str:
    return ", ".join(f"`{label}`" for label in metric.labels)


def _roles(metric: Metric) -> str:
    if metric.roles == tuple(Role):
        return "all"
    return "worker" if Role.WORKER in metric.roles else ", ".join(metric.roles)


def _meaning(metric: Metric) -> str:
    if metric.kind is Kind.HISTOGRAM:
        return f"{metric.meaning} Buckets: {', '.join(f'{bucket:g}' for bucket in metric.buckets)}."
    return metric.meaning
