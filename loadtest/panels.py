"""What the dashboards show: plain data, from which they are generated and their queries tested."""

from __future__ import annotations

from dataclasses import dataclass

R = "[$__rate_interval]"


@dataclass(frozen=True, slots=True)
class Panel:
    """One panel. unit is Grafana's; queries are pairs of PromQL and legend.

    low, high: bounds of the axis. alarm: from here on it is red; alarm_below: up to here. log:
    the axis is logarithmic. exemplars: decisions are shown as points that lead to them.
    """

    title: str
    unit: str
    queries: tuple[tuple[str, str], ...]
    help: str = ""
    width: int = 12
    kind: str = "timeseries"
    stacked: bool = False
    low: float | None = None
    high: float | None = None
    alarm: float | None = None
    alarm_below: float | None = None
    log: bool = False
    exemplars: bool = False


@dataclass(frozen=True, slots=True)
class Page:
    """One dashboard: rows of panels by their titles."""

    about: str
    rows: tuple[tuple[str, tuple[Panel, ...]], ...]

    @property
    def panels(self) -> tuple[Panel, ...]:
        """All of them, in their order."""
        return tuple(panel for _, panels in self.rows for panel in panels)


def _rate(metric: str, by: str = "") -> str:
    return f"sum by ({by}) (rate({metric}{R}))" if by else f"sum(rate({metric}{R}))"


def _quantile(q: str, metric: str, by: str = "", only: str = "") -> str:
    labels = f"le, {by}" if by else "le"
    return f"histogram_quantile({q}, sum by ({labels}) (rate({metric}_bucket{only}{R})))"


def _mean(metric: str, by: str = "") -> str:
    return f"{_rate(f'{metric}_sum', by)} / {_rate(f'{metric}_count', by)}"


def _stat(title: str, unit: str, expr: str, **more: float | str) -> Panel:
    return Panel(title, unit, ((expr, ""),), **{"width": 6, "kind": "stat"} | more)  # type: ignore[arg-type]


def _one(title: str, unit: str, expr: str, legend: str = "", **more: object) -> Panel:
    return Panel(title, unit, ((expr, legend),), **more)  # type: ignore[arg-type]


_ERRORS = f'(sum(rate(bandit_http_requests_total{{code=~"5.."}}{R})) or vector(0))'
_ALL = _rate("bandit_http_requests_total")
_SAVED = "sum(bandit_baseline_cost_usd_total) - sum(bandit_cost_usd_total)"
_TOTAL = '{stage="total"}'

OVERVIEW = Page("Is it healthy? Rate, errors and duration, and what is full.", (
    ("In ten seconds", (
        _stat("Decisions per second", "reqps", _rate("bandit_decisions_total")),
        _stat("Errors of the service", "percentunit", f"{_ERRORS} / {_ALL}", alarm=0.01),
        _stat("Decide, 99th percentile", "s",
              _quantile("0.99", "bandit_decision_stage_seconds", only=_TOTAL), alarm=0.1),
        _stat("Saved against the baseline arm", "currencyUSD", _SAVED,
              help="By cost alone, of the decisions whose cost was reported."),
        _stat("Alerts that fire", "short",
              'count(ALERTS{alertname=~"Bandit.*", alertstate="firing"}) or vector(0)', alarm=1),
        _stat("Arms masked since they fail", "short",
              "count(min by (arm) (bandit_upstream_up) < 1) or vector(0)", alarm=1),
        _stat("Decisions that get a reward", "percentunit",
              f"clamp_max({_rate('bandit_arm_rewards_total')} / "
              f"{_rate('bandit_decisions_total')}, 1)",
              alarm_below=0.01,
              help="Rewards over decisions of the same minutes; rewards come later than these."),
        _stat("Mean reward less the best arm's", "short", "-avg(bandit_regret_estimate)",
              help="Above 0 where routing beats every single arm."),
    )),
    ("Rate, errors, duration", (
        _one("Requests by endpoint", "reqps", _rate("bandit_http_requests_total", "endpoint"),
             "{{endpoint}}", low=0),
        _one("Requests by status", "reqps", _rate("bandit_http_requests_total", "code"),
             "{{code}}", low=0),
        Panel("Latency by endpoint", "s", (
            (_quantile("0.5", "bandit_http_request_duration_seconds", "endpoint"),
             "{{endpoint}} p50"),
            (_quantile("0.99", "bandit_http_request_duration_seconds", "endpoint"),
             "{{endpoint}} p99")), log=True),
        _one("Stages of a decide, 99th percentile", "s",
             _quantile("0.99", "bandit_decision_stage_seconds", "stage"), "{{stage}}", log=True,
             exemplars=True, help="A point is one decision; it leads to why its arm was drawn."),
        Panel("Answered with an error, and why", "reqps", (
            (_rate("bandit_requests_rejected_total", "reason"), "{{reason}}"),
            (_rate("bandit_requests_shed_total", "reason"), "shed: {{reason}}"),
            (_rate("bandit_requests_denied_total", "reason"), "key: {{reason}}"))),
        Panel("Stages that failed, and decisions by mode", "reqps", (
            (_rate("bandit_fallbacks_total", "stage"), "{{stage}} failed"),
            (_rate("bandit_decisions_total", "mode"), "{{mode}}"))),
    )),
    ("Saturation", (
        Panel("Under way and let in", "short", (
            ("sum by (kind) (bandit_requests_under_way)", "{{kind}}"),
            ("sum by (kind) (bandit_requests_allowed)", "{{kind}}, allowed"),
            ("sum(bandit_embedding_queue_texts)", "texts that wait")), low=0),
        Panel("Event-loop lag", "s", (
            (_quantile("0.5", "bandit_event_loop_lag_seconds"), "p50"),
            (_quantile("0.99", "bandit_event_loop_lag_seconds"), "p99")), low=0),
        Panel("Embedding model", "s", (
            (_quantile("0.5", "bandit_embedding_model_seconds"), "p50 of a call"),
            (_quantile("0.99", "bandit_embedding_model_seconds"), "p99 of a call")), low=0),
        Panel("Embedding: texts in a call, share of cache hits", "short", (
            (_mean("bandit_embedding_batch_texts"), "texts in a call"),
            (f'sum(rate(bandit_embedding_cache_total{{result="hit"}}{R})) / '
             f"{_rate('bandit_embedding_cache_total')}", "cache hits")), low=0),
        Panel("Process", "short", (
            (f"rate(process_cpu_seconds_total{R})", "cores {{instance}}"),
            ("process_resident_memory_bytes / 1e9", "memory, GB {{instance}}")), low=0),
        Panel("Running", "short", (
            ("count by (version) (bandit_build_info)", "version {{version}}"),
            ("count by (digest) (bandit_config_info)", "settings {{digest}}"),
            ("max by (policy) (bandit_serving_policy_info)", "policy {{policy}}")), low=0),
        Panel("Configuration changed at run time", "short", (
            ("max by (instance) (bandit_configuration_revision)", "revision {{instance}}"),
            ("max by (instance) (bandit_configuration_file_behind)", "file behind {{instance}}"),
            ("sum by (result) (bandit_configuration_reloads_total) or vector(0)",
             "file {{result}}")), low=0),
    )),
))  # fmt: skip

LEARNING = Page("Does it learn, and why did an arm lose its traffic?", (
    ("Arms", (
        _one("Traffic by arm", "percentunit", f"{_rate('bandit_arm_decisions_total', 'arm')} / "
             f"scalar({_rate('bandit_arm_decisions_total')})", "{{arm}}", stacked=True, low=0,
             high=1),
        _one("Mean reward by arm", "short", "avg by (arm) (bandit_arm_reward_mean)", "{{arm}}",
             help="Of the decisions that went to the arm; it forgets."),
        _one("Mean of named metrics by arm", "short",
             "avg by (metric, arm) (bandit_metric_mean)", "{{metric}} {{arm}}",
             help="Of all values that the log tells of; docs/rewards.md."),
        _one("Values of named metrics by arm", "short",
             "sum by (metric, arm) (bandit_metric_values)", "{{metric}} {{arm}}"),
        _one("Mean reward with its 95 % interval, by arm", "short",
             "avg by (arm, bound) (bandit_arm_reward_bound)", "{{arm}} {{bound}}",
             help="95 % confidence sequence of the mean since the start; you may look at it at "
             "any time. Arms whose intervals do not meet differ."),
        _one("Probability of an arm, by policy", "percentunit",
             "avg by (policy, arm) (bandit_arm_probability)", "{{policy}}: {{arm}}", low=0, high=1,
             help="Mean propensity over the newest decisions: what a policy would have, not what "
             "was drawn. An arm at its floor is only explored."),
        _one("Moving change of the reward", "short", "avg by (arm) (bandit_arm_reward_change)",
             "{{arm}}", help="The newest 200 outcomes or so less the newest 2000."),
        _one("Value estimate by arm", "short", "avg by (arm) (bandit_arm_value_estimate)",
             "{{arm}}", help="Had every query gone to the arm, from the logged propensities."),
        _one("Elo by arm", "short", "avg by (arm) (bandit_arm_elo_rating)", "{{arm}}",
             help="Of comparisons since the process started."),
        _one("Rewarded decisions by arm", "reqps", _rate("bandit_arm_rewards_total", "arm"),
             "{{arm}}", low=0),
    )),
    ("Regret and exploration", (
        Panel("Reward and regret", "short", (
            ("avg(bandit_reward_mean)", "mean reward"),
            ("avg(bandit_regret_estimate)", "regret to the best arm")),
            help="Below 0 where routing beats every single arm."),
        Panel("Exploration", "percentunit", (
            (f'(sum(rate(bandit_decisions_total{{mode="explore"}}{R})) or vector(0)) / '
             f"{_rate('bandit_decisions_total')}", "explored"),
            ("min(bandit_propensity_min)", "least propensity"),
            ("avg(bandit_arm_entropy_ratio)", "entropy of arms"),
            ("1 / max(bandit_arms_offered)", "an even share")), low=0, high=1),
        _one("Propensity of the drawn arm", "short",
             f"sum by (le) (increase(bandit_decision_propensity_bucket{R}))", "{{le}}",
             kind="heatmap"),
        _one("Are the logged propensities those drawn with? p-value", "short",
             "min by (policy) (bandit_propensity_calibration_p_value)", "{{policy}}", low=0,
             high=1, alarm_below=0.001,
             help="Valid at any look; below 0.001 no estimate from the log can be trusted."),
        Panel("Is what is expected what is reported?", "short", (
            ("avg(bandit_quality_calibration_error)", "quality, calibration error"),
            ("avg(bandit_quality_error_mean)", "quality, mean distance"),
            ("avg(bandit_quality_bias_mean)", "quality, bias"),
            ("avg(bandit_cost_calibration_error_ratio)", "cost, calibration error"),
            ("avg(bandit_cost_bias_ratio)", "cost, bias")),
            help="Quality only of policies that expect one; cost as share of what was reported."),
        _one("Effective samples behind the regret", "short",
             "avg(bandit_regret_effective_samples)", "of the best arm's estimate", low=0,
             help="The fewer, the less the regret says; arms below 30 are no part of it."),
    )),
    ("Drift", (
        _one("Residual by arm", "short", "avg by (arm) (bandit_arm_residual_mean)", "{{arm}}",
             help="Reward less expected reward; away from 0 the arm is not what it was."),
        _one("Distance of queries to what is recalled", "short",
             "avg(bandit_query_distance_mean)", low=0),
        Panel("Drift alarms since the start", "short", (
            ("sum(bandit_drift_detected_total) or vector(0)", "of arms"),
            ("sum(bandit_arm_alarms_total) or vector(0)", "of arms, the policy's own"),
            ("sum(bandit_query_drift_detected_total) or vector(0)", "of queries")), low=0,
            help="docs/drift.md says what follows from one.", width=24),
    )),
    ("Outcomes", (
        _one("Rewards by outcome", "reqps", _rate("bandit_rewards_total", "outcome"),
             "{{outcome}}", low=0),
        Panel("Delay of rewards", "s", (
            (_quantile("0.5", "bandit_reward_delay_seconds"), "p50"),
            (_quantile("0.95", "bandit_reward_delay_seconds"), "p95")), log=True),
        Panel("Comparisons and duels", "reqps", (
            (_rate("bandit_comparisons_total", "outcome"), "comparisons {{outcome}}"),
            (_rate("bandit_duels_total", "result"), "duels: {{result}}")), low=0),
        Panel("Pending, remembered, expired", "short", (
            ("max(bandit_pending_decisions)", "pending decisions"),
            ("max(bandit_history_queries)", "remembered queries"),
            (_rate("bandit_decisions_expired_total"), "expired per second")), low=0),
        Panel("Refused to learn", "short", (
            ("sum(bandit_policy_learn_failures) or vector(0)", "events refused"),
            ("sum(bandit_policy_uncorrected) or vector(0)", "corrections not taken in")), low=0),
        Panel("Time to learn", "s", (
            (_quantile("0.5", "bandit_learn_seconds"), "append and apply, p50"),
            (_quantile("0.99", "bandit_learn_seconds"), "append and apply, p99")), low=0),
        _one("Values of rewards", "short", f"sum by (le) (increase(bandit_reward_value_bucket{R}))",
             "{{le}}", kind="heatmap", width=24),
    )),
))  # fmt: skip

EXPERIMENTS = Page("Who gets which variant, and what may be concluded.", (
    ("Split", (
        _one("Decisions by variant", "reqps",
             _rate("bandit_experiment_decisions_total", "experiment, variant"),
             "{{experiment}}/{{variant}}", low=0),
        _one("Units by variant", "short", "max by (experiment, variant) (bandit_experiment_units)",
             "{{experiment}}/{{variant}}", low=0),
        _one("Weights", "percentunit", "max by (experiment, variant) (bandit_experiment_weight)",
             "{{experiment}}/{{variant}}", low=0, high=1),
        _one("Is the split as configured? Sequential p-value", "short",
             "min by (experiment) (bandit_experiment_srm_p_value)", "{{experiment}}", low=0,
             high=1, alarm_below=0.001,
             help="Below 0.001 nothing may be concluded: requests of one variant are lost."),
    )),
    ("Effects", (
        _one("Difference to the control, with its confidence sequence", "short",
             "avg by (experiment, variant, bound) (bandit_experiment_effect)",
             "{{experiment}}/{{variant}} {{bound}}",
             help="Of the primary metric; it may be looked at at any time. Absent while there is "
             "not enough data."),
        _one("Broken guardrails", "short",
             "max by (experiment, variant) (bandit_experiment_guardrail_state)",
             "{{experiment}}/{{variant}}", low=0, high=1, alarm=1),
    )),
    ("Policies", (
        _one("Decisions by policy", "reqps", _rate("bandit_decisions_total", "policy"),
             "{{policy}}", low=0),
        _one("Rewards by policy", "reqps", _rate("bandit_rewards_total", "policy"), "{{policy}}",
             low=0),
        _one("Mean reward of what a policy decided, with its confidence sequence", "short",
             "avg by (policy, bound) (bandit_policy_value_estimate)", "{{policy}} {{bound}}",
             width=24,
             help="Comparable where an experiment splits the units between the policies."),
    )),
))  # fmt: skip

MONEY = Page("What does it cost, and what does it save?", (
    ("In ten seconds", (
        _stat("Saved against the baseline arm", "currencyUSD", _SAVED),
        _stat("Saved, share", "percentunit",
              f"({_SAVED}) / sum(bandit_baseline_cost_usd_total)"),
        _stat("Cost per 1000 decisions", "currencyUSD",
              f"1000 * {_rate('bandit_cost_usd_total')} / {_rate('bandit_decisions_total')}"),
        _stat("Least left of a budget", "percentunit",
              "min(bandit_budget_left_usd / bandit_budget_limit_usd)", alarm_below=0.05),
    )),
    ("Cost", (
        _one("Cost by arm, USD per hour", "currencyUSD",
             f"3600 * {_rate('bandit_cost_usd_total', 'arm')}", "{{arm}}", stacked=True, low=0),
        Panel("Cost and the baseline arm's, USD", "currencyUSD", (
            ("sum(bandit_cost_usd_total)", "reported"),
            ("sum(bandit_expected_cost_usd_total)", "expected"),
            ("sum by (baseline) (bandit_baseline_cost_usd_total)", "all by {{baseline}}")),
            low=0),
        Panel("Judging, embeddings, estimates and prompt caches, USD per hour", "currencyUSD", (
            (f"3600 * ({_rate('bandit_judge_cost_usd_total')} or vector(0))", "cost of judging"),
            (f"3600 * ({_rate('bandit_passed_cost_usd_total')} or vector(0))",
             "cost of embeddings passed through"),
            (f"3600 * ({_rate('bandit_estimated_cost_usd_total')} or vector(0))",
             "estimated, for want of a usage"),
            (f"3600 * {_rate('bandit_cached_prompt_saved_usd_total')}",
             "saved by providers' caches")), low=0),
        _one("Prompt tokens that providers had cached", "short",
             _rate("bandit_cached_prompt_tokens_total"), low=0),
    )),
    ("Budgets", (
        Panel("Spent, reserved, left, limit", "currencyUSD", (
            ("max by (budget) (bandit_budget_spent_usd)", "{{budget}} spent"),
            ("max by (budget) (bandit_budget_held_usd)", "{{budget}} reserved"),
            ("max by (budget) (bandit_budget_leased_usd)", "{{budget}} with other replicas"),
            ("min by (budget) (bandit_budget_left_usd)", "{{budget}} left"),
            ("max by (budget) (bandit_budget_limit_usd)", "{{budget}} limit")), low=0),
        Panel("Used, and where the spend is heading", "percentunit", (
            ("max by (budget) ((bandit_budget_spent_usd + bandit_budget_held_usd) / "
             "bandit_budget_limit_usd)", "{{budget}} used"),
            ("max by (budget) ((bandit_budget_spent_usd + clamp_min(deriv("
             "bandit_budget_spent_usd[10m]), 0) * (bandit_budget_window_end_timestamp_seconds - "
             "time())) / bandit_budget_limit_usd)", "{{budget}} forecast")), low=0, alarm=1.05),
        _one("Shadow price of a dollar", "short", "max by (budget) (bandit_budget_shadow_price)",
             "{{budget}}", low=0, width=24,
             help="0 while the spend is not ahead of the clock; willingness to pay is divided by "
             "1 + this."),
    )),
))  # fmt: skip

UPSTREAMS = Page("Do the providers answer?", (
    ("Health", (
        _one("Arms: 1 offered, 0.5 due for a probe, 0 masked", "short",
             "min by (arm) (bandit_upstream_up)", "{{arm}}", low=0, high=1, alarm_below=0.5),
        _one("Failures by arm and kind", "reqps",
             _rate("bandit_upstream_failures_total", "arm, kind"), "{{arm}} {{kind}}", low=0),
        _one("Answers by provider and model", "reqps",
             f"sum by (upstream, model) (rate(bandit_upstream_seconds_count{R}) * on (instance, "
             "arm) group_left (upstream, model) bandit_arm_info)", "{{upstream}} {{model}}",
             low=0),
        _one("Failures by provider", "reqps",
             f"sum by (upstream) (rate(bandit_upstream_failures_total{R}) * on (instance, arm) "
             "group_left (upstream) bandit_arm_info)", "{{upstream}}", low=0),
        _one("Answers by arm", "reqps", _rate("bandit_upstream_seconds_count", "arm"), "{{arm}}",
             low=0),
        _one("Deployments: 1 called, 0.5 due for a probe, 0 masked", "short",
             "min by (arm, deployment) (bandit_deployment_up)", "{{arm}} {{deployment}}", low=0,
             high=1),
        _one("Failures by deployment", "reqps",
             _rate("bandit_deployment_failures_total", "arm, deployment, kind"),
             "{{arm}} {{deployment}} {{kind}}", low=0,
             help="Another deployment was asked, so they are not the arm's failures."),
        Panel("Sent again, and clients that left", "reqps", (
            (_rate("bandit_upstream_sent_again_total", "upstream"), "sent again: {{upstream}}"),
            (_rate("bandit_clients_left_total"), "clients left")), low=0),
    )),
    ("Speed", (
        _one("Mean time of an answer by arm", "s", _mean("bandit_upstream_seconds", "arm"),
             "{{arm}}", low=0),
        Panel("Time of an answer and to its first token", "s", (
            (_quantile("0.95", "bandit_upstream_duration_seconds"), "answer p95"),
            (_quantile("0.95", "bandit_upstream_first_token_seconds"), "first token p95")),
            low=0),
        _one("Tokens per second, median", "short",
             _quantile("0.5", "bandit_upstream_tokens_per_second"), low=0),
        _one("Turns of conversations", "reqps", _rate("bandit_conversation_turns_total", "stayed"),
             "stayed: {{stayed}}", low=0),
        _one("Answers of another model", "reqps",
             _rate("bandit_answered_by_other_model_total", "arm, known"),
             "{{arm}} known: {{known}}", low=0),
        _one("Decisions by route", "reqps", _rate("bandit_route_decisions_total", "route"),
             "{{route}}", low=0),
        _one("Rewards by route", "reqps", _rate("bandit_route_rewards_total", "route"),
             "{{route}}", low=0),
        _one("Mean reward by route", "short", "bandit_route_reward_mean", "{{route}}",
             help="Moving mean of about 2000 outcomes; auto is the default route."),
        _one("Mean quality by route", "short", "bandit_route_quality_mean", "{{route}}",
             help="Since the process started; auto is the default route."),
        _one("Cost by route per hour", "currencyUSD",
             f"3600 * {_rate('bandit_route_cost_usd_total', 'route')}", "{{route}}", low=0),
        _one("Judged answers", "reqps", _rate("bandit_judged_total", "judge, result"),
             "{{judge}}: {{result}}", low=0),
        _one("Judge's score and people's grade apart", "short",
             "bandit_judge_absolute_difference", "{{judge}}", low=0),
        _one("Answers with a judge's score and a person's grade", "short",
             "bandit_judge_pairs", "{{judge}}", low=0),
    )),
))  # fmt: skip

STORAGE = Page("Is the log written, and how long would a restart take?", (
    ("Log", (
        _one("Events per second", "short", f"sum(deriv(bandit_log_offset{R}))", low=0),
        Panel("Durable commit (fsync)", "s", (
            (_quantile("0.5", "bandit_log_sync_seconds"), "p50"),
            (_quantile("0.99", "bandit_log_sync_seconds"), "p99")), log=True),
        Panel("Append to the kernel", "s", (
            (_quantile("0.5", "bandit_log_append_seconds"), "p50"),
            (_quantile("0.99", "bandit_log_append_seconds"), "p99")), log=True),
        _one("Events in one append", "short", _mean("bandit_log_batch_events"), low=0),
        _one("Size of the log", "bytes", "max by (instance) (bandit_log_size_bytes)",
             "{{instance}}", low=0),
        Panel("Oldest and newest offset", "short", (
            ("max by (instance) (bandit_log_first_offset)", "oldest {{instance}}"),
            ("max by (instance) (bandit_log_offset)", "newest {{instance}}"))),
        Panel("Backlog while the disk is full", "short", (
            ("sum(bandit_log_backlog)", "decisions that wait"),
            ("sum(bandit_decisions_unlogged_total)", "decisions lost"),
            ("sum(bandit_cost_waiting_usd)", "costs that wait, USD"),
            ("sum(bandit_cost_lost_usd_total)", "costs lost, USD"),
            ("min(bandit_log_writable)", "writable")), low=0),
        _one("Age of the newest event", "s",
             "time() - max by (instance) (bandit_log_last_event_timestamp_seconds)",
             "{{instance}}", low=0),
    )),
    ("Several processes on one log", (
        Panel("From an event to its application", "s", (
            (_quantile("0.5", "bandit_replica_lag_seconds"), "p50"),
            (_quantile("0.99", "bandit_replica_lag_seconds"), "p99")), log=True),
        Panel("Append until it is durable", "s", (
            (_quantile("0.5", "bandit_log_shared_append_seconds"), "p50"),
            (_quantile("0.99", "bandit_log_shared_append_seconds"), "p99")), log=True),
        Panel("Replicas", "short", (
            ("sum(bandit_log_up)", "reach the log"),
            ("sum(bandit_keeper)", "keeper"),
            ("sum(bandit_replica_barred)", "run and may not take part"),
            ("max(abs(bandit_clock_skew_seconds))", "clock off by, s"),
            ("max by (instance) (bandit_replica_epoch)", "joined {{instance}}")), low=0),
        _one("Share of a core that applying events takes", "percentunit",
             "max by (instance) (bandit_fold_busy_ratio)", "{{instance}}", low=0, alarm=0.5),
        _one("Share of log.max_spool that waits", "percentunit",
             "max by (instance) (bandit_spool_full_ratio)", "{{instance}}", low=0, alarm=0.5),
        Panel("What waits", "short", (
            ("sum(bandit_spool_decisions)", "decisions to be appended"),
            ("sum(bandit_rewards_parked)", "outcomes for their decision")), low=0),
        _one("Pools that are closed", "short", "sum(1 - bandit_pool_up) or vector(0)", low=0,
             alarm=1),
        Panel("Conflicts and lost connections", "short", (
            (_rate("bandit_log_conflicts_total"), "checked again, per second"),
            (_rate("bandit_log_lost_total"), "lost, per second")), low=0),
        Panel("States that differ", "short", (
            ("max by (instance) (bandit_replicas_differing)", "others than {{instance}}"),
            ("sum(bandit_digest_mismatch_total)", "digests that were not equal")),
            low=0, alarm=1),
    )),
    ("Snapshots and recovery", (
        Panel("Snapshots", "s", (
            ("time() - max(bandit_snapshot_timestamp_seconds)", "age of the newest"),
            ("max(bandit_snapshot_seconds)", "making the newest"),
            ("max(bandit_recovery_seconds)", "recovery at the start")), low=0),
        _one("Events after the newest snapshot", "short",
             "max by (instance) (bandit_log_offset - bandit_snapshot_offset)", "{{instance}}",
             low=0),
        _one("Size of the newest snapshot", "bytes",
             "max by (instance) (bandit_snapshot_size_bytes)", "{{instance}}", low=0),
        _one("Upkeep that failed", "short", "sum(bandit_upkeep_failures_total)", low=0, alarm=1),
        Panel("Tasks that fail", "short", (
            ("sum by (task) (bandit_task_failing) or vector(0)", "{{task}}"),
            ("sum by (task) (increase(bandit_task_failures_total[$__rate_interval])) or vector(0)",
             "{{task}}, rounds"),
            ("sum(bandit_children_ended_total)", "children that stood still")), low=0, alarm=1),
        Panel("Events not in the state", "short", (
            ("sum(bandit_events_unapplied)", "stopped half-way"),
            ("sum(bandit_recovery_unknown_events)", "erased, unknown to this start")),
            low=0, alarm=1),
        _one("Connections refused", "short", "sum(increase(bandit_connections_refused_total[5m]))",
             low=0, alarm=1),
    )),
))  # fmt: skip

DASHBOARDS: dict[str, Page] = {
    "Overview": OVERVIEW,
    "Learning": LEARNING,
    "Experiments": EXPERIMENTS,
    "Money": MONEY,
    "Upstreams": UPSTREAMS,
    "Storage": STORAGE,
}

NOT_SHOWN: dict[str, str] = {
    "bandit_texts_total": "few services keep texts; docs/texts.md tells what its results mean",
}
"""Metrics that no panel shows, each with the reason."""
