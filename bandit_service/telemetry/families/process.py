"""Metrics of the event log, snapshots and the process itself."""

from __future__ import annotations

from bandit_service.telemetry.families.make import BATCH_BUCKETS, DISK_BUCKETS, STAGE_BUCKETS, Maker


class ProcessFamily:
    """An attribute for each of them."""

    def __init__(self, make: Maker) -> None:
        self.log_append = make.histogram(
            "bandit_log_append_seconds",
            "Time to hand one batch of events to the kernel.",
            DISK_BUCKETS,
        )
        self.log_batch = make.histogram(
            "bandit_log_batch_events", "Events in one append.", BATCH_BUCKETS
        )
        self.learn = make.histogram(
            "bandit_learn_seconds", "Time to append and apply one batch of events.", STAGE_BUCKETS
        )
        self.log_sync = make.histogram(
            "bandit_log_sync_seconds", "Time of one group commit to the disk.", DISK_BUCKETS
        )
        self.log_offset = make.gauge("bandit_log_offset", "Offset of the newest event.")
        self.log_first = make.gauge("bandit_log_first_offset", "Offset of the oldest event.")
        self.log_size = make.gauge("bandit_log_size_bytes", "Pages in use by the log.")
        self.log_writable = make.gauge(
            "bandit_log_writable", "1 while the log can be written, otherwise 0."
        )
        self.log_last_event = make.gauge(
            "bandit_log_last_event_timestamp_seconds", "Time of the newest event."
        )
        self.log_backlog = make.gauge(
            "bandit_log_backlog", "Answered decisions waiting for space on disk."
        )
        self.unlogged = make.counter(
            "bandit_decisions_unlogged_total", "Decisions lost because the backlog was full."
        )
        self.cost_waiting = make.gauge(
            "bandit_cost_waiting_usd", "Costs of calls that wait to be written to the log, USD."
        )
        self.cost_lost = make.counter(
            "bandit_cost_lost_usd_total", "Costs of calls that could not be written down, USD."
        )
        self.snapshot_offset = make.gauge(
            "bandit_snapshot_offset", "Offset of the newest snapshot."
        )
        self.snapshot_time = make.gauge(
            "bandit_snapshot_timestamp_seconds",
            "When the newest snapshot was made; without one, when the process started.",
        )
        self.snapshot_size = make.gauge(
            "bandit_snapshot_size_bytes", "Size of the newest snapshot made by this process."
        )
        self.snapshot_seconds = make.gauge(
            "bandit_snapshot_seconds", "Duration of the newest snapshot made by this process."
        )
        self.recovery = make.gauge(
            "bandit_recovery_seconds", "Time to read the log and the snapshot at startup."
        )
        self.upkeep_failures = make.counter(
            "bandit_upkeep_failures_total", "Failed snapshots, retention, erasure or folding."
        )
        self.task_failures = make.counters(
            "bandit_task_failures_total",
            "Failed rounds of a long-lived task; each is retried.",
            ("task",),
        )
        self.task_failing = make.gauges(
            "bandit_task_failing",
            "1 for a long-lived task whose last round failed.",
            ("task",),
        )
        self.pool_up = make.gauges(
            "bandit_pool_up",
            "1 while the pool of the label is served, 0 while its log cannot be opened; only with "
            "several pools.",
            ("pool",),
        )
        self.children_ended = make.counter(
            "bandit_children_ended_total", "Child processes killed because they made no progress."
        )
        self.unapplied = make.gauge(
            "bandit_events_unapplied", "Events of the log that a bug left partly applied."
        )
        self.recovery_unknown = make.gauge(
            "bandit_recovery_unknown_events",
            "Erased or lost events missing from the recovered state, because no readable "
            "snapshot contained them.",
        )
        self.connections_refused = make.counter(
            "bandit_connections_refused_total",
            "Connections closed because file descriptors ran out.",
        )
        self.build = make.gauges("bandit_build_info", "Version, always 1.", ("version",))
        self.config = make.gauges(
            "bandit_config_info",
            "Digest of the current settings without keys, always 1.",
            ("digest",),
        )
        self.serving = make.gauges(
            "bandit_serving_policy_info", "The policy that decides, always 1.", ("policy",)
        )
