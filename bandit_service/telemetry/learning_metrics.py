"""Metrics of rewards, costs and savings, from the applied events."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence

from prometheus_client import Gauge

from bandit_service.core import events as ev
from bandit_service.core.judge_grades import altogether
from bandit_service.core.named_metrics import Tally
from bandit_service.core.resolved import Resolved
from bandit_service.core.routes import AUTO
from bandit_service.core.sessions import merged
from bandit_service.core.world import World
from bandit_service.telemetry import metrics
from bandit_service.telemetry.drift_metrics import DriftMetrics
from bandit_service.telemetry.estimates import Estimates
from bandit_service.telemetry.families.make import Children
from bandit_service.telemetry.learning import LearningFold
from bandit_service.telemetry.learning_health import Mean, changes
from policies import ArmId

AT_ONCE = 256
"""Costs that are counted together."""


class LearningMetrics:
    """`decided` and `heard` where things happen, `look` before a scrape, on the event loop.

    bounded: the label of an arm. baseline: the arm that savings are counted against.
    """

    def __init__(self, made: metrics.Metrics, bounded: Callable[[str], str], baseline: str) -> None:
        self._metrics = made
        self.fold = LearningFold(baseline)
        self._bounded = bounded
        self.drift = DriftMetrics(made, bounded)
        self._estimates = Estimates(made, bounded)
        self._paid: list[tuple[str, float, float, tuple[ArmId, float] | None]] = []

    def decided(self, events: Sequence[ev.Decided]) -> list[bool]:
        """Answered decisions;

        returns whether each explored: drew another arm than the likeliest.
        """
        self._estimates.decided(event for event in events if event.by_chance)
        return [event.propensity < max(event.propensities) for event in events]

    def heard(self, what: Resolved, world: World) -> None:
        """One event that was applied to the world as it is now."""
        would_cost = self.fold.heard(what, world)
        match what.event:
            case ev.Rewarded() as event if not event.correction:
                self._rewarded(event, what, would_cost)
            case ev.DecisionsExpired() as event:
                self._metrics.expired.inc(len(event.ids))
            case ev.DriftDetected() as event:
                self.drift.detected(event)
            case _:
                pass

    def _rewarded(
        self, event: ev.Rewarded, what: Resolved, would_cost: tuple[ArmId, float] | None
    ) -> None:
        arm, decided = self._bounded(what.arm), what.decided
        if event.reward is not None:
            self._metrics.arm_rewards(arm).inc()
            self._metrics.reward_value.observe(event.reward)
            self._estimates.settled(arm, "" if decided is None else decided.policy, event.reward)
        if event.cost_usd is None or decided is None:
            return
        self._paid.append((arm, event.cost_usd, decided.expected_cost_usd, would_cost))
        if len(self._paid) >= AT_ONCE:
            self.count()

    def count(self) -> None:
        """Count the costs that were told of: for many at once, and before a scrape."""
        told, self._paid = self._paid, []
        costs, baselines = defaultdict[str, float](float), defaultdict[str, float](float)
        for arm, usd, _, would_cost in told:
            costs[arm] += max(0.0, usd)
            if would_cost is not None:
                baselines[would_cost[0]] += max(0.0, would_cost[1])
        for arm, usd in costs.items():
            self._metrics.cost(arm).inc(usd)
        for baseline, usd in baselines.items():
            self._metrics.baseline_cost(self._bounded(baseline)).inc(usd)
        if told:
            self._metrics.expected_cost.inc(sum(max(0.0, expected) for _, _, expected, _ in told))

    def look(self, world: World) -> None:
        """Set the gauges: NaN without a value, and no series of an arm that is not offered."""
        health, made = self.fold.all.health, self._metrics
        by_label = self._by_label(health.by_arm)
        offered = {self._bounded(record.spec.id) for record in world.offered()}
        foremost = _foremost(offered, by_label)
        self.drift.look(world, foremost)
        self._estimates.look(foremost)
        self._look_at_metrics(world)
        self._look_at_judges(world)
        self._look_at_routes(world)
        self._metrics.arms_offered.set(len(world.offered()))
        best = health.best()
        overall = {
            made.reward_mean: health.rewards.value,
            made.regret: health.regret(),
            made.regret_samples: None if best is None else best.effective,
            made.propensity_min: health.least_propensity(),
            made.entropy: health.entropy(len(world.offered())),
            made.quality_error: health.quality_error.value,
            made.quality_bias: health.quality_bias.value,
            made.quality_calibration: health.quality.error(),
            made.cost_calibration: health.cost.ratio(),
            made.cost_bias: health.cost.bias(),
        }
        for metric, value in overall.items():
            metric.set(float("nan") if value is None else value)
        for policy, told in world.calibrations.known().items():
            self._metrics.propensity_calibration(policy).set(told.p_value())
        values = self._by_label(health.corrected)
        by_arm: dict[Children[Gauge], Mapping[str, float | None]] = {
            made.arm_reward_mean: {arm: one.value for arm, one in by_label.items()},
            made.arm_reward_change: changes(by_label, self._by_label(health.lately)),
            made.arm_value: {arm: one.value for arm, one in values.items()},
            made.arm_elo: {self._bounded(id): elo for id, elo in health.elo.items()},
        }
        for gauge, numbers in by_arm.items():
            shown = offered if gauge is made.arm_reward_mean else foremost
            for arm, number in numbers.items():
                if number is not None and arm in shown:
                    gauge(arm).set(number)
            gauge.only((arm,) for arm in numbers.keys() & shown)

    def _look_at_metrics(self, world: World) -> None:
        """What came of each named metric, by arm: those beyond the labels count as one."""
        found: dict[tuple[str, str], Tally] = {}
        for name, by_arm in merged(world.named.tallies, world.sessions.tallies).items():
            for arm, tally in by_arm.items():
                sums = found.setdefault((name, self._bounded(arm)), Tally())
                sums.add(tally.total, tally.weight)
        found = {labels: one for labels, one in found.items() if one.weight > 0.0}
        for labels, one in found.items():
            self._metrics.metric_mean(*labels).set(one.total / one.weight)
            self._metrics.metric_values(*labels).set(one.weight)
        for gauge in (self._metrics.metric_mean, self._metrics.metric_values):
            gauge.only(found)

    def _look_at_routes(self, world: World) -> None:
        """What came of each route, where there are several; those that are gone have no series."""
        made = self._metrics
        routes = self.fold.all.routes if world.routes.specs else {}
        there = {id: routes[id] for id in (AUTO, *world.routes.specs) if id in routes}
        shown: dict[Children[Gauge], dict[str, float | None]] = {
            made.route_reward_mean: {id: seen.lately.value for id, seen in there.items()},
            made.route_quality_mean: {
                id: seen.signals["quality"].said()["mean"] for id, seen in there.items()
            },
        }
        for gauge, values in shown.items():
            known = {id: value for id, value in values.items() if value is not None}
            for id, value in known.items():
                gauge(id).set(value)
            gauge.only((id,) for id in known)

    def _look_at_judges(self, world: World) -> None:
        """How far each judge agrees with people, by what it goes by now."""
        judging, made = world.judging, self._metrics
        found = {
            (judge,): altogether(judging.routes(judge, basis).values())
            for judge, basis in judging.newest.items()
        }
        for labels, pairs in found.items():
            apart = pairs.mean_absolute_difference
            made.judge_pairs(*labels).set(pairs.pairs)
            made.judge_apart(*labels).set(float("nan") if apart is None else apart)
        for gauge in (made.judge_pairs, made.judge_apart):
            gauge.only(found)

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
    return set(ordered[: metrics.MAX_ESTIMATED])
