"""What the dashboards show: plain data, from which they are generated and their queries tested."""

from __future__ import annotations

from dataclasses import dataclass

R = "[$__rate_interval]"


@dataclass(frozen=True, slots=True)
class Panel:
    """One panel. unit is Grafana's; queries are pairs of PromQL and legend."""

    title: str
    unit: str
    queries: tuple[tuple[str, str], ...]
    help: str = ""
    width: int = 12
    kind: str = "timeseries"
    stacked: bool = False


def _rate(metric: str, by: str = "") -> str:
    return f"sum by ({by}) (rate({metric}{R}))" if by else f"sum(rate({metric}{R}))"


def _quantile(q: str, metric: str, by: str = "") -> str:
    labels = f"le, {by}" if by else "le"
    return f"histogram_quantile({q}, sum by ({labels}) (rate({metric}_bucket{R})))"


def _one(
    title: str,
    unit: str,
    expr: str,
    legend: str = "",
    *,
    help: str = "",  # noqa: A002 - as the panel calls it
    width: int = 12,
    kind: str = "timeseries",
    stacked: bool = False,
) -> Panel:
    return Panel(title, unit, ((expr, legend),), help, width, kind, stacked)


_ERRORS = f'sum(rate(bandit_http_requests_total{{code=~"5.."}}{R})) or vector(0)'
_SAVED = "sum(bandit_baseline_cost_usd_total) - sum(bandit_cost_usd_total)"

DASHBOARDS: dict[str, tuple[Panel, ...]] = {
    "Overview": (
        _one("Decisions per second", "reqps", _rate("bandit_decisions_total"),
             width=6, kind="stat"),
        _one("Errors", "percentunit", f"({_ERRORS}) / {_rate('bandit_http_requests_total')}",
             width=6, kind="stat"),
        _one("Decide, 99th percentile", "s", "histogram_quantile(0.99, sum by (le) (rate("
             'bandit_decision_stage_seconds_bucket{stage="total"}[$__rate_interval])))',
             width=6, kind="stat"),
        _one("Saved against the baseline arm", "currencyUSD", _SAVED, width=6, kind="stat"),
        _one("Requests by endpoint", "reqps", _rate("bandit_http_requests_total", "endpoint"),
             "{{endpoint}}"),
        _one("Requests by status", "reqps", _rate("bandit_http_requests_total", "code"),
             "{{code}}"),
        Panel("Latency by endpoint", "s", (
            (_quantile("0.5", "bandit_http_request_duration_seconds", "endpoint"),
             "{{endpoint}} p50"),
            (_quantile("0.99", "bandit_http_request_duration_seconds", "endpoint"),
             "{{endpoint}} p99"))),
        _one("Stages of a decide, 99th percentile", "s",
             _quantile("0.99", "bandit_decision_stage_seconds", "stage"), "{{stage}}"),
        _one("Event-loop lag, 99th percentile", "s",
             _quantile("0.99", "bandit_event_loop_lag_seconds")),
        Panel("Under way and let in", "short", (
            ("sum by (kind) (bandit_requests_under_way)", "{{kind}}"),
            ("sum by (kind) (bandit_requests_allowed)", "{{kind}} allowed"),
            ("sum(bandit_embedding_queue_texts)", "texts that wait"))),
        _one("Refused by reason", "reqps", _rate("bandit_requests_shed_total", "reason"),
             "{{reason}}"),
        Panel("Process", "short", (
            (f"rate(process_cpu_seconds_total{R})", "cores {{instance}}"),
            ("process_resident_memory_bytes / 1e9", "memory, GB {{instance}}"))),
    ),
    "Learning": (
        _one("Traffic by arm", "percentunit", f"{_rate('bandit_arm_decisions_total', 'arm')} / "
             f"scalar({_rate('bandit_decisions_total')})", "{{arm}}", stacked=True),
        _one("Mean reward by arm", "short", "avg by (arm) (bandit_arm_reward_mean)", "{{arm}}",
             help="Of the decisions that went to the arm; it forgets."),
        _one("Value estimate by arm", "short", "avg by (arm) (bandit_arm_value_estimate)",
             "{{arm}}", help="Had every query gone to the arm, from the logged propensities."),
        _one("Elo by arm", "short", "avg by (arm) (bandit_arm_elo_rating)", "{{arm}}",
             help="Of comparisons since the process started."),
        Panel("Reward and regret", "short", (
            ("avg(bandit_reward_mean)", "mean reward"),
            ("avg(bandit_regret_estimate)", "regret to the best arm"))),
        Panel("Exploration", "percentunit", (
            (f'sum(rate(bandit_decisions_total{{mode="explore"}}{R})) / '
             f"{_rate('bandit_decisions_total')}",
             "explored"),
            ("min(bandit_propensity_min)", "least propensity"),
            ("avg(bandit_arm_entropy_ratio)", "entropy of arms"))),
        _one("Propensity of the drawn arm", "short",
             f"sum by (le) (rate(bandit_decision_propensity_bucket{R}))", "{{le}}",
             kind="heatmap"),
        Panel("Expected and reported quality", "short", (
            ("avg(bandit_quality_error_mean)", "distance"),
            ("avg(bandit_quality_bias_mean)", "bias")),
            help="Only of policies that expect a quality."),
        _one("Rewards by outcome", "reqps", _rate("bandit_rewards_total", "outcome"),
             "{{outcome}}"),
        Panel("Delay of rewards", "s", (
            (_quantile("0.5", "bandit_reward_delay_seconds"), "p50"),
            (_quantile("0.95", "bandit_reward_delay_seconds"), "p95"))),
        Panel("Pending and remembered", "short", (
            ("max(bandit_pending_decisions)", "pending decisions"),
            ("max(bandit_history_queries)", "remembered queries"),
            (_rate("bandit_decisions_expired_total"), "expired per second"))),
        _one("Comparisons", "reqps", _rate("bandit_comparisons_total", "outcome"), "{{outcome}}"),
    ),
    "Experiments": (
        _one("Decisions by policy", "reqps", _rate("bandit_decisions_total", "policy"),
             "{{policy}}"),
        _one("Serving policy", "short", "max by (policy) (bandit_serving_policy_info)",
             "{{policy}}"),
    ),
    "Money": (
        _one("Cost by arm, USD per hour", "currencyUSD",
             f"3600 * {_rate('bandit_cost_usd_total', 'arm')}", "{{arm}}", stacked=True),
        Panel("Cost and the baseline arm's, USD", "currencyUSD", (
            ("sum(bandit_cost_usd_total)", "reported"),
            ("sum(bandit_expected_cost_usd_total)", "expected"),
            ("sum by (baseline) (bandit_baseline_cost_usd_total)", "all by {{baseline}}"))),
        _one("Saved against the baseline arm", "currencyUSD", _SAVED),
        _one("Cost per decision", "currencyUSD", f"{_rate('bandit_cost_usd_total')} / "
             f"{_rate('bandit_decisions_total')}"),
        Panel("Budgets: spent, held, limit", "currencyUSD", (
            ("max by (budget) (bandit_budget_spent_usd)", "{{budget}} spent"),
            ("max by (budget) (bandit_budget_held_usd)", "{{budget}} held"),
            ("max by (budget) (bandit_budget_limit_usd)", "{{budget}} limit"))),
        _one("Budgets: used", "percentunit", "max by (budget) ((bandit_budget_spent_usd + "
             "bandit_budget_held_usd) / bandit_budget_limit_usd)", "{{budget}}"),
        _one("Saved by providers' prompt caches, USD per hour", "currencyUSD",
             f"3600 * {_rate('bandit_cached_prompt_saved_usd_total')}"),
    ),
    "Upstreams": (
        _one("Arms: 1 offered, 0 masked", "short", "min by (arm) (bandit_upstream_up)",
             "{{arm}}"),
        _one("Failures by arm and kind", "reqps", _rate("bandit_upstream_failures_total",
             "arm, kind"), "{{arm}} {{kind}}"),
        _one("Mean time of an answer by arm", "s", f"{_rate('bandit_upstream_seconds_sum', 'arm')}"
             f" / {_rate('bandit_upstream_seconds_count', 'arm')}", "{{arm}}"),
        Panel("Time of an answer and to its first token", "s", (
            (_quantile("0.95", "bandit_upstream_duration_seconds"), "answer p95"),
            (_quantile("0.95", "bandit_upstream_first_token_seconds"), "first token p95"))),
        _one("Tokens per second, median", "short",
             _quantile("0.5", "bandit_upstream_tokens_per_second")),
        _one("Turns of conversations", "reqps", _rate("bandit_conversation_turns_total", "stayed"),
             "stayed: {{stayed}}"),
    ),
    "Storage": (
        _one("Events per second", "short", "sum(deriv(bandit_log_offset[$__rate_interval]))"),
        Panel("Durable commit", "s", (
            (_quantile("0.5", "bandit_log_sync_seconds"), "p50"),
            (_quantile("0.99", "bandit_log_sync_seconds"), "p99"))),
        _one("Append and apply a batch, 99th percentile", "s",
             _quantile("0.99", "bandit_learn_seconds")),
        _one("Size of the log", "bytes", "max by (instance) (bandit_log_size_bytes)",
             "{{instance}}"),
        Panel("Backlog", "short", (
            ("sum(bandit_log_backlog)", "decisions that wait"),
            ("sum(bandit_decisions_unlogged_total)", "decisions lost"),
            ("min(bandit_log_writable)", "writable"))),
        Panel("Snapshots", "s", (
            ("time() - max(bandit_snapshot_timestamp_seconds)", "age of the newest"),
            ("max(bandit_recovery_seconds)", "recovery at the start"))),
        _one("Events after the newest snapshot", "short",
             "max by (instance) (bandit_log_offset - bandit_snapshot_offset)", "{{instance}}"),
        _one("Upkeep that failed", "short", "sum(bandit_upkeep_failures_total)"),
        _one("Embedding cache, share of hits", "percentunit",
             f'sum(rate(bandit_embedding_cache_total{{result="hit"}}{R})) / '
             f"{_rate('bandit_embedding_cache_total')}"),
        _one("Embedding model, 99th percentile", "s",
             _quantile("0.99", "bandit_embedding_model_seconds")),
    ),
}  # fmt: skip
