"""Makes metrics in a registry, and keeps what of each is documented."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Summary

# A decide on a given embedding is to take about a millisecond and one with text about ten, at the
# 99th percentile; so buckets are dense around these, and end where a client has given up.
STAGE_BUCKETS = (0.0001, 0.0003, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 1.0)
HTTP_BUCKETS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.5, 2.0, 10.0, 60.0)
DISK_BUCKETS = (0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
ANSWER_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
DELAY_BUCKETS = (0.1, 1.0, 10.0, 60.0, 600.0, 3600.0, 21_600.0, 86_400.0, 604_800.0)
PROPENSITY_BUCKETS = (0.001, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
REWARD_BUCKETS = (-0.5, -0.1, 0.0, 0.2, 0.4, 0.6, 0.8, 0.9, 1.0)
RATE_BUCKETS = (1.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0)
BATCH_BUCKETS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0)

M = TypeVar("M", Counter, Gauge, Summary, Histogram)


class Children(Generic[M]):
    """The children of a metric by their label values, each looked up in the metric only once."""

    def __init__(self, metric: M) -> None:
        self._metric: M = metric
        self._children: dict[tuple[str, ...], M] = {}

    def __call__(self, *values: str) -> M:
        """The child with these label values, in the order of the labels."""
        child = self._children.get(values)
        if child is None:
            child = self._children[values] = self._metric.labels(*values)
        return child

    def only(self, kept: Iterable[tuple[str, ...]]) -> None:
        """Remove every child but these."""
        for values in self._children.keys() - set(kept):
            self._metric.remove(*values)
            del self._children[values]


@dataclass(frozen=True, slots=True)
class Declared:
    """What of a metric is documented."""

    name: str
    kind: str
    help: str
    labels: tuple[str, ...]


class Maker:
    """Creates metrics in one registry, and records the declared ones."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self.declared: list[Declared] = []

    def counter(self, name: str, text: str) -> Counter:
        """A number that only grows while the process runs."""
        return self._made(Counter, "counter", name, text)

    def counters(self, name: str, text: str, labels: tuple[str, ...]) -> Children[Counter]:
        """The same by labels."""
        return Children(self._made(Counter, "counter", name, text, labels))

    def gauge(self, name: str, text: str) -> Gauge:
        """A value that can go up and down."""
        return self._made(Gauge, "gauge", name, text)

    def gauges(self, name: str, text: str, labels: tuple[str, ...]) -> Children[Gauge]:
        """The same by labels."""
        return Children(self._made(Gauge, "gauge", name, text, labels))

    def summaries(self, name: str, text: str, labels: tuple[str, ...]) -> Children[Summary]:
        """A count and a sum, by labels."""
        return Children(self._made(Summary, "summary", name, text, labels))

    def histogram(self, name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
        """Counts by bucket, and a sum."""
        return self._made(Histogram, "histogram", name, text, buckets=buckets)

    def histograms(
        self, name: str, text: str, buckets: tuple[float, ...], labels: tuple[str, ...]
    ) -> Children[Histogram]:
        """The same by labels."""
        return Children(self._made(Histogram, "histogram", name, text, labels, buckets=buckets))

    def _made(
        self,
        metric: type[M],
        kind: str,
        name: str,
        text: str,
        labels: tuple[str, ...] = (),
        **more: Any,
    ) -> M:
        self.declared.append(Declared(name, kind, text, labels))
        return metric(name, text, labels, registry=self._registry, **more)
