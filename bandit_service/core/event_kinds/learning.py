"""Events that change how policies learn: drift, warm starts, and the weights of metrics."""

from __future__ import annotations

from bandit_service.core.event_kinds.event import Event
from bandit_service.core.metric_spec import NamedMetric
from policies import ArmId


class DriftDetected(Event, frozen=True, kw_only=True, tag="drift_detected"):
    """A detector found that an arm's outcomes, or the queries, have changed.

    arm: "" for the queries. detector: "adwin" or "page_hinkley". direction: "up" or "down". before,
    after: the means on either side of the likeliest moment of the change; of residuals, or of
    distances in units of two standard deviations. seen: the number of values behind them. begun:
    the number of the event with which the change began. keep: the share of the knowledge about the
    arm that stays, in policies that do not watch their arms themselves; 1 forgets nothing. explore:
    the minimum probability of the arm in its next `decisions`; of every arm if none is named.
    """

    detector: str
    direction: str
    before: float
    after: float
    arm: ArmId = ArmId("")
    seen: int = 0
    begun: int = 0
    keep: float = 1.0
    explore: float = 0.0
    decisions: int = 0


class PriorWeighed(Event, frozen=True, kw_only=True, tag="prior_weighed"):
    """What was taught beforehand counts as at most `strength` outcomes of each arm from here on.

    keep: by arm, the share that then stays of all that was learned of it.
    """

    strength: float
    keep: dict[ArmId, float]


class MetricsChanged(Event, frozen=True, kw_only=True, tag="metrics_changed"):
    """From here on quality is weighed by these named metrics; corrections follow, up to
    `MetricsWeighed`, of the decisions that were taught by other weights and may still be rewarded.
    """

    metrics: tuple[NamedMetric, ...]
    source: str = "config"


class MetricsWeighed(Event, frozen=True, kw_only=True, tag="metrics_weighed"):
    """Every decision that may still be rewarded is taught by the weights in force."""
