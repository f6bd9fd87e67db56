"""The present named metrics with their weights by route, and the values of each by arm: a fold.

A value is kept as it was reported, next to the resulting quality, so that other weights can be
applied later (docs/adr/0019).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import msgspec

from bandit_service.core import codec
from bandit_service.core import events as ev
from bandit_service.core.feature import takes
from bandit_service.core.metric_spec import NamedMetric, quality_of
from bandit_service.core.resolved import Resolved
from policies import ArmId


@dataclass
class Tally:
    """The sum of what came, and of how many."""

    total: float = 0.0
    weight: float = 0.0

    def add(self, value: float, weight: float) -> None:
        """Add `value`, which is weighted already; withdrawn values have both below 0."""
        self.total += value
        self.weight += weight


@dataclass
class NamedMetrics:
    """specs: those in force, by name. stale: some decisions may still be learned by earlier
    weights.

    tallies: by metric and arm. by_route: the weights that a route has in the place of the metrics'
    own, for routes with any.
    """

    specs: dict[str, NamedMetric] = field(default_factory=dict)
    stale: bool = False
    tallies: dict[str, dict[ArmId, Tally]] = field(default_factory=dict)
    by_route: dict[str, dict[str, float]] = field(default_factory=dict, metadata=codec.IF_ANY)

    def __bool__(self) -> bool:
        """Whether there ever was one."""
        return bool(self.specs or self.stale or self.tallies or self.by_route)

    def of(self, route: str) -> NamedMetrics:
        """The same metrics with the weights of a route, "" being the default one."""
        weights = self.by_route.get(route)
        if weights is None:
            return self
        return NamedMetrics(
            {
                name: msgspec.structs.replace(spec, weight=weights.get(name, spec.weight))
                for name, spec in self.specs.items()
            }
        )

    def quality(self, signals: Mapping[str, float], expected: float) -> float | None:
        """The quality of signals by the present weights; None if no signal has a weight.

        expected: as of `quality_of`.
        """
        return quality_of(self.specs.values(), signals, expected)

    def said(self, signals: Iterable[str]) -> bool:
        """Whether any of these was said, and not only taken for something."""
        return any(
            name in self.specs and self.specs[name].weight > 0.0 and not self.specs[name].implicit
            for name in signals
        )

    def weighs(self, names: Iterable[str]) -> bool:
        """Whether the quality depends on any of these."""
        return any(name in self.specs and self.specs[name].weight > 0.0 for name in names)

    def check(self, signals: Mapping[str, float]) -> None:
        """Refused for a value that its metric cannot have."""
        for name, value in signals.items():
            spec = self.specs.get(name)
            if spec is not None:  # of a session, a part may be credited
                spec.check(value, whole=spec.scope == "decision")

    def mean(self, name: str, arm: ArmId) -> float | None:
        """The mean of a metric's values on an arm; None without values."""
        found = self.tallies.get(name, {}).get(arm)
        return found.total / found.weight if found is not None and found.weight > 0.0 else None

    @takes(ev.MetricsChanged)
    def _changed(self, event: ev.MetricsChanged, _: Resolved) -> None:
        self.specs = {one.name: one for one in event.metrics}
        self.stale = True
        kept = {name for name, one in self.specs.items() if one.scope == "decision"}
        for name in [name for name in self.tallies if name not in kept]:
            del self.tallies[name]

    @takes(ev.MetricsWeighed)
    def _weighed(self, _: ev.MetricsWeighed, __: Resolved) -> None:
        self.stale = False

    @takes(ev.RouteChanged)
    def _route(self, event: ev.RouteChanged, _: Resolved) -> None:
        self._weigh(event.route.id, event.route.weights)

    @takes(ev.RouteRemoved)
    def _unroute(self, event: ev.RouteRemoved, _: Resolved) -> None:
        self._weigh(event.id, {})

    def _weigh(self, route: str, weights: dict[str, float]) -> None:
        """Give a route these weights. A new mapping, so that `reweigh_all` sees the change."""
        if self.by_route.get(route, {}) == weights:
            return
        others = {id: each for id, each in self.by_route.items() if id != route}
        self.by_route = {**others, route: weights} if weights else others
        self.stale = self.stale or bool(self.specs)

    @takes(ev.Rewarded)
    def _rewarded(self, event: ev.Rewarded, what: Resolved) -> None:
        if not self.specs or what.pending is None or not what.known:
            return
        for name, value in event.metrics.items():
            if name in self.specs and self.specs[name].scope == "decision":
                before = what.before.get(name)
                self.tally(name, what.arm).add(value - (before or 0.0), float(before is None))
        for name in event.revoked:
            if name in self.tallies and name in what.before:
                self.tally(name, what.arm).add(-what.before[name], -1.0)

    def tally(self, name: str, arm: ArmId) -> Tally:
        """Where the values of a metric on an arm are summed."""
        return self.tallies.setdefault(name, {}).setdefault(arm, Tally())
