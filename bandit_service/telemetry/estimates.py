"""Metrics of how likely arms are, and of how well arms and policies are known."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Set

from bandit_service.core import events as ev
from bandit_service.statistics.moments import Moments
from bandit_service.telemetry import metrics
from bandit_service.telemetry.probabilities import Probabilities
from policies import ArmId


class Estimates:
    """`decided` and `settled` where things happen, `look` before a scrape.

    bounded: the label of an arm.
    """

    def __init__(self, made: metrics.Metrics, bounded: Callable[[str], str]) -> None:
        self._metrics = made
        self._bounded = bounded
        self._probabilities = Probabilities()
        self._arms: dict[str, Moments] = defaultdict(Moments)
        self._policies: dict[str, Moments] = defaultdict(Moments)

    def decided(self, events: Iterable[ev.Decided]) -> None:
        """Decisions in which chance had a say."""
        self._probabilities.decided((one.policy, one.arms, one.propensities) for one in events)

    def settled(self, arm: str, policy: str, reward: float) -> None:
        """The scalar reward of an arm, by its label and the deciding policy;

        "" for an outcome without a decision.
        """
        self._arms[arm].add(reward)
        if policy:
            self._policies[policy].add(reward)

    def look(self, arms: Set[str]) -> None:
        """Set the gauges; of the arms only these have bounds."""
        shown = dict(_probable(self._probabilities.means(), self._bounded))
        for labels, probability in shown.items():
            self._metrics.arm_probability(*labels).set(probability)
        self._metrics.arm_probability.only(shown)
        bounds = {
            (arm, bound): value
            for arm in arms & self._arms.keys()
            for bound, value in _known(self._arms[arm]).items()
            if bound != "mean"
        }
        for labels, value in bounds.items():
            self._metrics.arm_reward_bound(*labels).set(value)
        self._metrics.arm_reward_bound.only(bounds)
        for policy, moments in self._policies.items():
            for bound, value in _known(moments).items():
                self._metrics.policy_value(policy, bound).set(value)


def _known(moments: Moments) -> dict[str, float]:
    said = moments.said()
    return {bound: said[bound] for bound in ("low", "mean", "high") if said[bound] is not None}


def _probable(
    means: Mapping[str, Mapping[ArmId, float]], bounded: Callable[[str], str]
) -> Iterator[tuple[tuple[str, str], float]]:
    """(policy, arm) and probability: of each policy the likeliest arms, the others as one."""
    room = max(2, metrics.MAX_PROBABILITIES // max(1, len(means)))
    for policy, by_arm in means.items():
        labelled: dict[str, float] = {}
        for arm, probability in by_arm.items():
            label = bounded(arm)
            labelled[label] = labelled.get(label, 0.0) + probability
        others = labelled.pop(metrics.OTHER, 0.0)
        likeliest = sorted(labelled, key=lambda label: (-labelled[label], label))
        if len(likeliest) + (others > 0.0) > room:
            others += sum(labelled[label] for label in likeliest[room - 1 :])
            likeliest = likeliest[: room - 1]
        for label in likeliest:
            yield (policy, label), labelled[label]
        if others > 0.0:
            yield (policy, metrics.OTHER), others
