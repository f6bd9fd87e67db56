"""An experiment played through the fold that the service runs, with units drawn by the caller."""

from __future__ import annotations

from typing import Any

import msgspec

from bandit_service.core import events as ev
from bandit_service.core.experiments import trial as fold
from bandit_service.core.experiments.spec import Experiment, Guardrail, Variant
from bandit_service.core.experiments.steering import steer
from policies import ArmId

_GOLDEN = 0.618033988749895
_ARMS = (ArmId("small"), ArmId("large"))


def two(weights: tuple[float, float] = (0.5, 0.5), **fields: Any) -> Experiment:
    """An experiment of a control `a` and one other variant `b`, by quality."""
    variants = tuple(
        Variant(key=key, arm="small", weight=weight)
        for key, weight in zip("ab", weights, strict=True)
    )
    return Experiment(**{"id": "e", "variants": variants, "primary": "quality", **fields})


def limit(least: float) -> Guardrail:
    """Quality must not be below."""
    return Guardrail(metric="quality", min=least)


class Played:
    """One experiment with what it has seen; `now` counts decisions."""

    def __init__(self, spec: Experiment) -> None:
        self.spec, self.trial, self.now = spec, fold.Trial(), 0.0
        self.change(spec)

    def change(self, spec: Experiment, **fields: Any) -> None:
        """The experiment as it now stands, running."""
        before = None if self.trial.begun is None else self.spec
        event = ev.ExperimentChanged(ts=self.now, experiment=spec, status="running", **fields)
        fold.changed(self.trial, before, event)
        self.spec = spec

    def decide(
        self, member: str, variant: str, *, split: float | None = None, ts: float | None = None
    ) -> ev.Decided:
        """One decision for a unit, whose variant the caller drew."""
        self.now = self.now + 1.0 if ts is None else ts
        if split is None:
            split = self.weights[[one.key for one in self.spec.served].index(variant)]
        drawn = int(2.0 * (self.now * _GOLDEN % 1.0))  # even, and no multiple of anything
        event = ev.Decided(
            ts=self.now,
            id="",
            embedding=b"",
            tokens=1,
            willingness_to_pay=0.1,
            arms=_ARMS,
            propensities=(0.5, 0.5),
            scores=(0.0, 0.0),
            drawn=drawn,
            policy="p",
            key="",
            list_cost_usd=0.0,
            expected_cost_usd=0.0,
            price=0.0,
            experiment=self.spec.id,
            variant=variant,
            split=split,
            member=member,
        )
        fold.decided(self.trial, self.spec, event)
        return event

    def value(
        self, event: ev.Decided, value: float, metric: str = "quality", before: float | None = None
    ) -> None:
        """What came back for a decision."""
        fold.valued(self.trial, self.spec, event, metric, value, before, self.now)

    def steer(self) -> None:
        """Move the weights as the service does."""
        for change in steer(self.spec, self.trial, self.now):
            if change.weights is not None:
                pairs = zip(self.spec.served, change.weights, strict=True)
                moved = tuple(msgspec.structs.replace(one, weight=w) for one, w in pairs)
                self.change(msgspec.structs.replace(self.spec, variants=moved))

    @property
    def weights(self) -> list[float]:
        """With what probability a new unit gets each variant."""
        return self.trial.epochs[-1].weights
