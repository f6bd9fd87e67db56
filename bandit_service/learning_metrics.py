"""Metrics of what is learned and what it costs, from the events that are applied."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from bandit_service.core import events as ev
from bandit_service.core.world import World
from bandit_service.learning_health import LearningHealth
from policies import ArmId

_PROPENSITY_BUCKETS = (0.001, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)


class LearningMetrics:
    """`decided` and `happened` where things happen, `look` before a scrape, on the event loop.

    bounded: the label of an arm. baseline: the arm that savings are counted against.
    """

    def __init__(
        self, registry: CollectorRegistry, bounded: Callable[[str], str], baseline: str
    ) -> None:
        r = registry
        self.health = LearningHealth()
        self._bounded, self._baseline, self._dearest = bounded, baseline, ""
        self._explored = Counter(
            "bandit_decisions_explored", "Decisions that drew another than the likeliest arm.",
            registry=r,
        )  # fmt: skip
        self._propensity = Histogram(
            "bandit_decision_propensity", "Probability with which the drawn arm was drawn.",
            buckets=_PROPENSITY_BUCKETS, registry=r,
        )  # fmt: skip
        self._expired = Counter(
            "bandit_decisions_expired", "Decisions that left unrewarded.", registry=r
        )
        self._arm_rewards = Counter(
            "bandit_arm_rewards", "Decisions that got their scalar reward, by arm.",
            ["arm"], registry=r,
        )  # fmt: skip
        self._cost = Counter(
            "bandit_cost_usd", "Cost that was reported, USD, by arm.", ["arm"], registry=r
        )
        self._expected_cost = Counter(
            "bandit_expected_cost_usd", "What the same decisions were expected to cost, USD.",
            registry=r,
        )  # fmt: skip
        self._baseline_cost = Counter(
            "bandit_baseline_cost_usd", "What the baseline arm was expected to cost for the same "
            "decisions, USD.", ["baseline"], registry=r,
        )  # fmt: skip
        by_arm = (
            ("bandit_arm_reward_mean", "Mean reward of an arm's own decisions, forgetting."),
            ("bandit_arm_value_estimate", "Mean reward had every query gone to the arm, estimated "
             "from the propensities (self-normalised inverse weighting), forgetting."),
            ("bandit_arm_elo_rating", "Elo of the comparisons since the process started."),
        )  # fmt: skip
        self._by_arm = {name: Gauge(name, what, ["arm"], registry=r) for name, what in by_arm}
        overall = (
            ("bandit_reward_mean", "Mean reward of all decisions, forgetting."),
            ("bandit_regret_estimate", "Best arm's value estimate less the mean reward; below 0 "
             "where routing beats every single arm."),
            ("bandit_propensity_min", "Least propensity of an eligible arm, last 1000 decisions."),
            ("bandit_arm_entropy_ratio",
             "Entropy of the last 1000 drawn arms; 1 for an even split."),
            ("bandit_quality_error_mean", "Mean distance of expected from reported quality."),
            ("bandit_quality_bias_mean", "Mean of expected less reported quality."),
        )  # fmt: skip
        self._overall = {name: Gauge(name, what, registry=r) for name, what in overall}
        self._offered = Gauge("bandit_arms_offered", "Arms that may be chosen.", registry=r)

    def decided(self, event: ev.Decided, arm: str) -> None:
        """One decision for an arm, by its label."""
        if self.health.decided(arm, event.propensity, event.propensities):
            self._explored.inc()
        self._propensity.observe(event.propensity)

    def happened(self, event: ev.AnyEvent, world: World) -> None:
        """One event that was applied to the world as it is now."""
        match event:
            case ev.Rewarded() if not event.correction:
                self._taught(event, world)
            case ev.Compared():
                self.health.compared(event.winner, event.loser, event.tie)
            case ev.DecisionsExpired():
                self._expired.inc(len(event.ids))
            case ev.ArmAdded() | ev.ArmUpdated() | ev.ArmRetired():
                self._dearest = ""
            case _:
                pass

    def _taught(self, event: ev.Rewarded, world: World) -> None:
        pending = world.pending.get(event.decision_id)
        decided = None if pending is None else pending.decided
        arm = self._bounded(event.arm if decided is None else decided.arm)
        if event.reward is not None:
            self._arm_rewards.labels(arm).inc()
            if pending is None or decided is None:
                self.health.settled(arm, 1.0, event.reward)
            else:
                self.health.settled(
                    arm, decided.propensity, event.reward,
                    pending.learned.get("quality"), decided.expected_quality,
                )  # fmt: skip
        if event.cost_usd is None or decided is None:
            return
        self._cost.labels(arm).inc(max(0.0, event.cost_usd))
        self._expected_cost.inc(max(0.0, decided.expected_cost_usd))
        baseline = world.arms.get(ArmId(self.baseline(world)))
        if baseline is not None:
            usd = baseline.expected_cost_usd(decided.tokens)
            self._baseline_cost.labels(self._bounded(baseline.spec.id)).inc(max(0.0, usd))

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
        """Set the gauges; those without a value are left out or at 0."""
        health, offered = self.health, len(world.offered())
        self._offered.set(offered)
        values = {
            "bandit_reward_mean": health.rewards.value,
            "bandit_regret_estimate": health.regret(),
            "bandit_propensity_min": health.least_propensity(),
            "bandit_arm_entropy_ratio": health.entropy(offered),
            "bandit_quality_error_mean": health.quality_error.value,
            "bandit_quality_bias_mean": health.quality_bias.value,
        }
        for name, value in values.items():
            self._overall[name].set(float("nan") if value is None else value)
        means = ("bandit_arm_reward_mean", health.by_arm), (
            "bandit_arm_value_estimate", health.corrected)  # fmt: skip
        for name, by_arm in means:
            for arm, mean in by_arm.items():
                if mean.value is not None:
                    self._by_arm[name].labels(arm).set(mean.value)
        for id, rating in health.elo.items():
            self._by_arm["bandit_arm_elo_rating"].labels(self._bounded(id)).set(rating)
