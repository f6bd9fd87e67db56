"""Metrics of what is learned and what it costs, from the events that are applied."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from prometheus_client import CollectorRegistry

from bandit_service.core import events as ev
from bandit_service.core.resolve import Resolved
from bandit_service.core.world import World
from bandit_service.telemetry import metrics
from bandit_service.telemetry.drift_metrics import DriftMetrics
from bandit_service.telemetry.estimates import Estimates
from bandit_service.telemetry.learning import LearningFold
from bandit_service.telemetry.learning_health import Mean, changes
from policies import ArmId

_BY_ARM = (
    metrics.ARM_REWARD_MEAN, metrics.ARM_REWARD_CHANGE, metrics.ARM_VALUE, metrics.ARM_ELO,
)  # fmt: skip
_OVERALL = (
    metrics.REWARD_MEAN, metrics.REGRET, metrics.REGRET_SAMPLES, metrics.PROPENSITY_MIN,
    metrics.ENTROPY,
    metrics.QUALITY_ERROR, metrics.QUALITY_BIAS, metrics.QUALITY_CALIBRATION,
    metrics.COST_CALIBRATION, metrics.COST_BIAS,
)  # fmt: skip


class LearningMetrics:
    """`decided` and `heard` where things happen, `look` before a scrape, on the event loop.

    bounded: the label of an arm. baseline: the arm that savings are counted against.
    """

    def __init__(
        self, registry: CollectorRegistry, bounded: Callable[[str], str], baseline: str
    ) -> None:
        r = registry
        self.fold = LearningFold(baseline)
        self._bounded = bounded
        self._propensity = metrics.PROPENSITY.on(r)
        self._expired = metrics.EXPIRED.on(r)
        self._reward_value = metrics.REWARD_VALUE.on(r)
        self._arm_rewards = metrics.ARM_REWARDS.labelled(r)
        self._cost = metrics.COST.labelled(r)
        self._expected_cost = metrics.EXPECTED_COST.on(r)
        self._baseline_cost = metrics.BASELINE_COST.labelled(r)
        self._by_arm = {each.name: each.labelled(r) for each in _BY_ARM}
        self._overall = {each.name: each.on(r) for each in _OVERALL}
        self._calibration = metrics.PROPENSITY_CALIBRATION.labelled(r)
        self._offered = metrics.ARMS_OFFERED.on(r)
        self.drift = DriftMetrics(r, bounded)
        self._estimates = Estimates(r, bounded)

    def decided(self, event: ev.Decided) -> bool:
        """One decision that was answered; whether it explored: drew what was not the likeliest."""
        self._propensity.observe(event.propensity)
        if not (event.experiment and event.policy == "fixed"):
            self._estimates.decided(event)
        return event.propensity < max(event.propensities)

    def heard(self, what: Resolved, world: World) -> None:
        """One event that was applied to the world as it is now."""
        would_cost = self.fold.heard(what, world)
        match what.event:
            case ev.Rewarded() as event if not event.correction:
                self._rewarded(event, what, would_cost)
            case ev.DecisionsExpired() as event:
                self._expired.inc(len(event.ids))
            case ev.DriftDetected() as event:
                self.drift.detected(event)
            case _:
                pass

    def _rewarded(
        self, event: ev.Rewarded, what: Resolved, would_cost: tuple[ArmId, float] | None
    ) -> None:
        arm, decided = self._bounded(what.arm), what.decided
        if event.reward is not None:
            self._arm_rewards(arm).inc()
            self._reward_value.observe(event.reward)
            self._estimates.settled(arm, "" if decided is None else decided.policy, event.reward)
        if event.cost_usd is None or decided is None:
            return
        self._cost(arm).inc(max(0.0, event.cost_usd))
        self._expected_cost.inc(max(0.0, decided.expected_cost_usd))
        if would_cost is not None:
            baseline, usd = would_cost
            self._baseline_cost(self._bounded(baseline)).inc(max(0.0, usd))

    def look(self, world: World) -> None:
        """Set the gauges: NaN without a value, and no series of an arm that is not offered."""
        health = self.fold.all.health
        by_label = self._by_label(health.by_arm)
        offered = {self._bounded(record.spec.id) for record in world.offered()}
        foremost = _foremost(offered, by_label)
        self.drift.look(world, foremost)
        self._estimates.look(foremost)
        self._offered.set(len(world.offered()))
        best = health.best()
        overall = {
            metrics.REWARD_MEAN: health.rewards.value,
            metrics.REGRET: health.regret(),
            metrics.REGRET_SAMPLES: None if best is None else best.effective,
            metrics.PROPENSITY_MIN: health.least_propensity(),
            metrics.ENTROPY: health.entropy(len(world.offered())),
            metrics.QUALITY_ERROR: health.quality_error.value,
            metrics.QUALITY_BIAS: health.quality_bias.value,
            metrics.QUALITY_CALIBRATION: health.quality.error(),
            metrics.COST_CALIBRATION: health.cost.ratio(),
            metrics.COST_BIAS: health.cost.bias(),
        }
        for metric, value in overall.items():
            self._overall[metric.name].set(float("nan") if value is None else value)
        for policy, told in world.calibration.items():
            self._calibration(policy).set(told.p_value())
        values = self._by_label(health.corrected)
        by_arm: dict[metrics.GaugeOf, Mapping[str, float | None]] = {
            metrics.ARM_REWARD_MEAN: {arm: one.value for arm, one in by_label.items()},
            metrics.ARM_REWARD_CHANGE: changes(by_label, self._by_label(health.lately)),
            metrics.ARM_VALUE: {arm: one.value for arm, one in values.items()},
            metrics.ARM_ELO: {self._bounded(id): elo for id, elo in health.elo.items()},
        }
        for each, numbers in by_arm.items():
            gauge = self._by_arm[each.name]
            shown = offered if each is metrics.ARM_REWARD_MEAN else foremost
            for arm, number in numbers.items():
                if number is not None and arm in shown:
                    gauge(arm).set(number)
            gauge.only((arm,) for arm in numbers.keys() & shown)

    def _by_label(self, means: Mapping[str, Mean]) -> dict[str, Mean]:
        """By the label of the arm: those beyond the labels count as one."""
        found: dict[str, Mean] = {}
        for arm, mean in means.items():
            found.setdefault(self._bounded(arm), Mean()).merge(mean)
        return found


def _foremost(offered: set[str], by_label: Mapping[str, Mean]) -> set[str]:
    """The arms of most outcomes lately: of the others little is known, or nothing new."""
    weight = {arm: one.weight for arm, one in by_label.items()}
    ordered = sorted(offered, key=lambda arm: (-weight.get(arm, 0.0), arm))
    return set(ordered[: metrics.MOST_ESTIMATED])
