"""The values of this process' metrics. Counters and histograms are Prometheus' own; gauges are shown as a whole."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from tasks.metrics import Kind, Metric, Role, metrics_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from prometheus_client.core import Metric as Family

Values = dict[tuple[str, ...], float]


class Meter(Collector):
    """Counts and shows. Safe to use from several threads.

    It is made before a worker forks and filled in the children: nothing of Prometheus is made before `begin`, nor
    counted before it.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._counters: dict[str, Counter] = {}
        self._histograms: dict[str, Histogram] = {}
        self._shown: dict[tuple[Metric, str], Values] = {}
        self._ages: dict[Metric, float] = {}

    def begin(self, role: Role) -> None:
        """Make the counters and histograms of a role in this process, at 0. Beginning twice is fine."""
        for metric in metrics_of(role):
            if metric.kind is Kind.COUNTER and metric.name not in self._counters:
                made = Counter(metric.name, metric.meaning, metric.labels, registry=self.registry)
                for value in metric.known:
                    made.labels(value)
                self._counters[metric.name] = made
            elif metric.kind is Kind.HISTOGRAM and metric.name not in self._histograms:
                self._histograms[metric.name] = Histogram(
                    metric.name, metric.meaning, metric.labels, buckets=metric.buckets, registry=self.registry
                )

    def count(self, metric: Metric, amount: float = 1, *labels: str) -> None:
        """Add to a counter.

        Args:
            metric: which; not counted in a process that has not begun as one of its roles.
            amount: what to add.
            labels: their values, in the order of the declaration.
        """
        counter = self._counters.get(metric.name)
        if counter is not None:
            (counter.labels(*labels) if labels else counter).inc(amount)

    def observe(self, metric: Metric, value: float) -> None:
        """Add to a histogram; see `count`."""
        histogram = self._histograms.get(metric.name)
        if histogram is not None:
            histogram.observe(value)

    def show(self, metric: Metric, values: Mapping[tuple[str, ...], float], *, owner: str = "") -> None:
        """Show these values of a gauge from now on, and no others of this owner's.

        Args:
            metric: which.
            values: by label values.
            owner: whose they are, where several show parts of one gauge.
        """
        self._shown[metric, owner] = dict(values)

    def show_age(self, metric: Metric) -> None:
        """Show a gauge that is 0 now, and grows by one a second until this is called again."""
        self._ages[metric] = time.monotonic()

    def collect(self) -> Iterable[Family]:
        """The gauges, for Prometheus."""
        families: dict[str, GaugeMetricFamily] = {}
        for (metric, _), values in list(self._shown.items()):
            for labels, value in values.items():
                _family(families, metric).add_metric(labels, value)
        for metric, since in list(self._ages.items()):
            _family(families, metric).add_metric((), time.monotonic() - since)
        return list(families.values())


def _family(families: dict[str, GaugeMetricFamily], metric: Metric) -> GaugeMetricFamily:
    if metric.name not in families:
        families[metric.name] = GaugeMetricFamily(metric.name, metric.meaning, labels=metric.labels)
    return families[metric.name]


class Retries:
    """Counts the tries of transactions, and tells a task which of them were its own.

    Args:
        note: also called at each.
    """

    def __init__(self, note: Callable[[], None]) -> None:
        self._note = note
        self._mine = threading.local()

    def add(self) -> None:
        """A transaction of this thread is tried again."""
        self._mine.count = self.mine() + 1
        self._note()

    def mine(self) -> int:
        """Tries so far in this thread."""
        return int(getattr(self._mine, "count", 0))
