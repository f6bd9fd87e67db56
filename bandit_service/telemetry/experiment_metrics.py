"""Metrics by experiment and variant, for as many of them as have room."""

from __future__ import annotations

from collections.abc import Iterator

from bandit_service.core.experiments.conclusions import shown_difference
from bandit_service.core.experiments.spec import Experiment
from bandit_service.core.experiments.steering import breaches
from bandit_service.core.experiments.trial import Trial
from bandit_service.core.world import World
from bandit_service.telemetry import metrics

_RUNNING_FIRST = ("running", "holdout", "paused", "starting", "stopped", "draft")


class ExperimentMetrics:
    """`decided` where things happen, `look` before a scrape, on the event loop.

    Running experiments come before others, newer before older; what is beyond the bounds counts as
    `other`, and what is deleted is removed.
    """

    def __init__(self, made: metrics.Metrics) -> None:
        self._metrics = made
        self._labelled: dict[str, int] = {}
        self._seen: set[tuple[str, ...]] = set()

    def decided(self, experiment: str, variant: str) -> None:
        """One decision of a variant, or of one of its shadows."""
        known = experiment in self._labelled
        labels = (experiment, variant) if known else (metrics.OTHER, metrics.OTHER)
        self._seen.add(labels)
        self._metrics.experiment_decisions(*labels).inc()

    def admit(self, world: World) -> None:
        """Choose which experiments have labels of their own."""
        room, chosen = metrics.MAX_VARIANTS, dict[str, int]()
        for id in sorted(
            world.experiments.trials, key=lambda id: _order(world.experiments.trials[id])
        ):
            variants = len(world.experiments.specs[id].variants)
            if len(chosen) < metrics.MAX_EXPERIMENTS and variants <= room:
                chosen[id] = variants
                room -= variants
        self._labelled = chosen

    def look(self, world: World) -> None:
        """Set the gauges from what each experiment has seen."""
        self.admit(world)
        self._seen = {
            labels
            for labels in self._seen
            if labels[0] in self._labelled or labels[0] == metrics.OTHER
        }
        self._metrics.experiment_decisions.only(self._seen)
        shown: list[tuple[str, ...]] = []
        effects: list[tuple[str, ...]] = []
        for id in self._labelled:
            spec, trial = world.experiments.specs[id], world.experiments.trials[id]
            if trial.begun is None:
                continue
            self._metrics.experiment_srm(id).set(trial.split_p)
            for one, weight in zip(spec.served, trial.effective(spec), strict=True):
                shown.append((id, one.key))
                self._metrics.experiment_units(id, one.key).set(trial.sides[one.key].units)
                self._metrics.experiment_weight(id, one.key).set(weight)
            broken = {key for key, _ in breaches(spec, trial)} | trial.held.keys()
            for one in spec.served[1:]:
                self._metrics.experiment_guardrails(id, one.key).set(one.key in broken)
            for key, bound, value in _effects(spec, trial):
                effects.append((id, key, bound))
                self._metrics.experiment_effect(id, key, bound).set(value)
        for gauge in (
            self._metrics.experiment_units,
            self._metrics.experiment_weight,
            self._metrics.experiment_guardrails,
        ):
            gauge.only(shown)
        self._metrics.experiment_srm.only({(id,) for id, _ in shown})
        self._metrics.experiment_effect.only(effects)


def _order(trial: Trial) -> tuple[int, float]:
    return _RUNNING_FIRST.index(trial.status), -(trial.begun or 0.0)


def _effects(spec: Experiment, trial: Trial) -> Iterator[tuple[str, str, float]]:
    """(variant, bound, value) of each variant of which there is enough data."""
    for one in spec.served[1:]:
        gap = shown_difference(spec, trial, one)
        if gap is not None:
            yield one.key, "low", gap.low
            yield one.key, "mean", gap.estimate
            yield one.key, "high", gap.high
