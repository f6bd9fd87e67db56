"""Metrics of costs and budgets."""

from __future__ import annotations

from bandit_service.telemetry.families.make import Maker

_FULLEST = "a budget's fullest account"


class MoneyFamily:
    """An attribute for each of them."""

    def __init__(self, make: Maker) -> None:
        self.cost = make.counters("bandit_cost_usd_total", "Reported cost by arm, USD.", ("arm",))
        self.route_decisions = make.counters(
            "bandit_route_decisions_total",
            "Decisions by route, except the default route.",
            ("route",),
        )
        self.route_cost = make.counters(
            "bandit_route_cost_usd_total",
            "Reported cost by route, except the default route, USD.",
            ("route",),
        )
        self.route_reward_mean = make.gauges(
            "bandit_route_reward_mean",
            "Moving mean reward of a route's decisions; `auto` is the default route.",
            ("route",),
        )
        self.route_quality_mean = make.gauges(
            "bandit_route_quality_mean",
            "Mean quality of a route's decisions since the process started; `auto` is the default "
            "route.",
            ("route",),
        )
        self.route_rewards = make.counters(
            "bandit_route_rewards_total",
            "Scalar rewards that a route's policy learned, by route.",
            ("route",),
        )
        self.expected_cost = make.counter(
            "bandit_expected_cost_usd_total", "Expected cost of the same decisions, USD."
        )
        self.baseline_cost = make.counters(
            "bandit_baseline_cost_usd_total",
            "Expected cost of the baseline arm for the same decisions, USD.",
            ("baseline",),
        )
        self.budget_limit = make.gauges(
            "bandit_budget_limit_usd", f"Limit of {_FULLEST}, USD.", ("budget",)
        )
        self.budget_spent = make.gauges(
            "bandit_budget_spent_usd", f"Spend of {_FULLEST} in this window, USD.", ("budget",)
        )
        self.budget_held = make.gauges(
            "bandit_budget_held_usd",
            f"Reserved for running requests on {_FULLEST}, USD.",
            ("budget",),
        )
        self.budget_leased = make.gauges(
            "bandit_budget_leased_usd",
            f"What other replicas of the log may spend on {_FULLEST}, USD.",
            ("budget",),
        )
        self.budget_left = make.gauges(
            "bandit_budget_left_usd",
            f"Neither spent, reserved nor leased by other replicas, on {_FULLEST}, USD.",
            ("budget",),
        )
        self.budget_price = make.gauges(
            "bandit_budget_shadow_price",
            f"Shadow price of {_FULLEST}: the willingness to pay is divided by 1 + this; "
            "0 while the spend is not ahead of the clock.",
            ("budget",),
        )
        self.budget_ends = make.gauges(
            "bandit_budget_window_end_timestamp_seconds",
            "When a budget's window ends.",
            ("budget",),
        )
