"""PickLLM's reward, in the one place that both of its learners read it."""

from __future__ import annotations

import math
from dataclasses import dataclass

from policies._checks import LEAST, finite, one_of, within
from policies._types import Rewarded

FORMS = ("ratio", "additive", "service")
_BELOW_ONE = 1.0 - 1e-9


@dataclass(frozen=True, slots=True)
class RewardForm:
    """What one settled answer is worth, in [0, 1).

    ratio:    R = (w_a·a − w_c·c) / W,  W = w_l·log₁₀(l)/t
    additive: R = (w_a·a − w_c·c) + 1 − W, which is the same where W is 1
    service:  R = the service's own scalar reward

    a: quality; c: USD; l: latency in milliseconds, at least 10, since log₁₀ nears 0 below and
    the fraction blows up; t: log₁₀ of the latency that is neutral. Without a latency W is 1;
    an answer that came without quality is worth the service's reward in every form.
    Source of the ratio: a secondary source's reading of arXiv 2412.12170.
    """

    form: str
    accuracy_weight: float
    cost_weight: float | None
    latency_weight: float
    latency_scale: float

    def __post_init__(self) -> None:
        one_of("reward", self.form, FORMS)
        within("accuracy_weight", self.accuracy_weight, 0.0)
        if self.cost_weight is not None:
            within("cost_weight", self.cost_weight, 0.0)
        within("latency_weight", self.latency_weight, LEAST)
        within("latency_scale", self.latency_scale, LEAST)

    def of(self, event: Rewarded) -> float | None:
        """The reward in [0, 1) of an event that settles its decision; None for any other."""
        if event.reward is None:
            return None
        if self.form == "service" or event.quality is None:
            return self._cut(event.reward)
        cost = event.expected_cost_usd if event.cost_usd is None else event.cost_usd
        weight = self.cost_weight
        if weight is None:
            weight = 1.0 / event.context.willingness_to_pay
        gain = self.accuracy_weight * event.quality - weight * cost
        if event.latency_s is None:
            return self._cut(gain)
        ms = max(1000.0 * finite("latency_s", event.latency_s), 10.0)
        waiting = self.latency_weight * math.log10(ms) / self.latency_scale
        return self._cut(gain / waiting if self.form == "ratio" else gain + 1.0 - waiting)

    @staticmethod
    def _cut(reward: float) -> float:
        return min(_BELOW_ONE, max(0.0, finite("reward", reward)))
