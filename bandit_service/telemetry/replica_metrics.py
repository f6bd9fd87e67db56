"""Metrics of a process that is one of several on one log; docs/scale.md lists them."""

from __future__ import annotations

from prometheus_client import CollectorRegistry

from bandit_service.telemetry.families.make import DISK_BUCKETS, Maker

LAG_BUCKETS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)


class ReplicaMetrics:
    """Made only where the log is shared: another process has nothing to say by them."""

    def __init__(self, registry: CollectorRegistry) -> None:
        make = Maker(registry)
        self.declared = make.declared
        self.lag = make.histogram(
            "bandit_replica_lag_seconds",
            "Time from an event to its application on this replica.",
            LAG_BUCKETS,
        )
        self.append = make.histogram(
            "bandit_log_shared_append_seconds",
            "Time of one append to the shared log, until it is durable.",
            DISK_BUCKETS,
        )
        self.conflicts = make.counter(
            "bandit_log_conflicts_total", "Events checked again because another replica was first."
        )
        self.lost = make.counter("bandit_log_lost_total", "Lost connections to the shared log.")
        self.up = make.gauge("bandit_log_up", "1 while the shared log can be reached, otherwise 0.")
        self.spool = make.gauge(
            "bandit_spool_decisions", "Answered decisions not yet in the shared log."
        )
        self.spool_ratio = make.gauge(
            "bandit_spool_full_ratio",
            "Events that wait for the shared log, as a share of log.max_spool.",
        )
        self.parked = make.gauge(
            "bandit_rewards_parked", "Outcomes waiting for a decision of another replica."
        )
        self.keeper = make.gauge(
            "bandit_keeper",
            "1 on the keeper, the replica that runs the shared background tasks, otherwise 0.",
        )
        self.mismatches = make.counter(
            "bandit_digest_mismatch_total",
            "Digests of other replicas that differed from this one's at the same offset.",
        )
        self.differing = make.gauge(
            "bandit_replicas_differing",
            "Open replicas whose state differed from this one's at the last comparison.",
        )
        self.barred = make.gauge(
            "bandit_replica_barred",
            "1 while this replica runs and is not ready: others fold by another policy, an event "
            "is of a newer release, or the clock is wrong; otherwise 0.",
        )
        self.skew = make.gauge(
            "bandit_clock_skew_seconds",
            "How far the clock of this machine is ahead of the database's; negative if behind.",
        )
        self.busy = make.gauge(
            "bandit_fold_busy_ratio",
            "CPU seconds that applying events takes of each second, over the last ten or more.",
        )
        self.epoch = make.gauge("bandit_replica_epoch", "How often this replica joined the log.")
