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
from bandit_service.telemetry.learning_health import LearningHealth
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
        self.health = LearningHealth()
        self._bounded, self._baseline, self._dearest = bounded, baseline, ""
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

    def decided(self, event: ev.Decided, arm: str) -> bool:
        """One decision for an arm, by its label; whether it explored."""
        self._propensity.observe(event.propensity)
        free = not (event.experiment and event.policy == "fixed")
        if free:
            self._estimates.decided(event)
        return self.health.decided(arm, event.propensity, event.propensities, free)

    def heard(self, what: Resolved, world: World) -> None:
        """One event that was applied to the world as it is now."""
        match what.event:
            case ev.Rewarded() as event if not event.correction:
                self._taught(event, what, world)
            case ev.Compared() as event:
                self.health.compared(event.winner, event.loser, event.tie)
            case ev.DecisionsExpired() as event:
                self._expired.inc(len(event.ids))
            case ev.ArmAdded() | ev.ArmUpdated() | ev.ArmRetired():
                self._dearest = ""
            case ev.DriftDetected() as event:
                self.drift.detected(event)
            case _:
                pass

    def _taught(self, event: ev.Rewarded, what: Resolved, world: World) -> None:
        pending, decided = what.pending, what.decided
        arm = self._bounded(what.arm)
        if event.reward is not None:
            self._arm_rewards(arm).inc()
            self._reward_value.observe(event.reward)
            self._estimates.settled(arm, "" if decided is None else decided.policy, event.reward)
            if pending is None or decided is None:
                self.health.settled(arm, 1.0, event.reward)
            else:
                self.health.settled(
                    arm, decided.propensity, event.reward,
                    pending.learned.get("quality"), decided.expected_quality,
                )  # fmt: skip
        if event.cost_usd is None or decided is None:
            return
        self._cost(arm).inc(max(0.0, event.cost_usd))
        self.health.paid(decided.expected_cost_usd, event.cost_usd)
        self._expected_cost.inc(max(0.0, decided.expected_cost_usd))
        baseline = world.arms.get(ArmId(self.baseline(world)))
        if baseline is not None:
            usd = baseline.expected_cost_usd(decided.tokens)
            self._baseline_cost(self._bounded(baseline.spec.id)).inc(max(0.0, usd))

    def baseline(self, world: World) -> str:
        """The arm that savings are counted against: the configured one, else the dearest."""
        if self._baseline in world.arms:
            return self._baseline
        if not self._dearest:
            specs = [record.spec for record in world.offered()]
            priced = [(each.usd_per_mtok_in + each.usd_per_mtok_out, each.id) for each in specs]
            self._dearest = max(priced)[1] if priced else ""
        return self._dearest

    def look(self, world: World) -> None:
        """Set the gauges: NaN without a value, and no series of an arm that is not offered."""
        health = self.health
        offered = {self._bounded(record.spec.id) for record in world.offered()}
        foremost = self._foremost(offered)
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
        by_arm: dict[metrics.GaugeOf, Mapping[str, float | None]] = {
            metrics.ARM_REWARD_MEAN: {arm: one.value for arm, one in health.by_arm.items()},
            metrics.ARM_REWARD_CHANGE: health.changes(),
            metrics.ARM_VALUE: {arm: one.value for arm, one in health.corrected.items()},
            metrics.ARM_ELO: {self._bounded(id): elo for id, elo in health.elo.items()},
        }
        for each, values in by_arm.items():
            gauge = self._by_arm[each.name]
            shown = offered if each is metrics.ARM_REWARD_MEAN else foremost
            for arm, number in values.items():
                if number is not None and arm in shown:
                    gauge(arm).set(number)
            gauge.only((arm,) for arm in values.keys() & shown)

    def _foremost(self, offered: set[str]) -> set[str]:
        """The arms of most outcomes lately: of the others little is known, or nothing new."""
        weight = {arm: one.weight for arm, one in self.health.by_arm.items()}
        ordered = sorted(offered, key=lambda arm: (-weight.get(arm, 0.0), arm))
        return set(ordered[: metrics.MOST_ESTIMATED])
