"""[embedding] to [feedback], [drift], [experiment_rules]: how arms are chosen, what is learned."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from bandit_service.core.sessions import CREDITS
from bandit_service.settings.rule import Rule, setting


@dataclass(frozen=True, slots=True)
class Embedding:
    """How a query becomes a vector."""

    backend: str = setting(
        "onnx", "runtime of the embedding model", choices=("onnx", "torch", "static")
    )
    model: str = setting("all-MiniLM-L6-v2", "name of the model, or path of its directory")
    threads: int = setting(1, "threads for one embedding call", low=1, high=256)
    batch_size: int = setting(
        16, "maximum number of texts in one call of the model", low=1, high=1024
    )
    wait_s: float = setting(
        0.0, "how long to wait for more texts before running a batch", low=0, high=1
    )
    cache_size: int = setting(10_000, "number of cached embeddings, by text hash", low=0)
    queue_limit: int = setting(1024, "maximum number of waiting texts; beyond it 429", low=1)
    timeout_s: float = setting(
        5.0, "after this time a query is decided without its embedding", low=0.01
    )


@dataclass(frozen=True, slots=True)
class HistorySettings:
    """The remembered queries."""

    capacity: int = setting(
        20_000, "number of queries remembered; beyond it the oldest is dropped", low=1
    )
    neighbours: int = setting(20, "past queries recalled for each query", low=0, high=1000)
    exact_below: int = setting(30_000, "search exactly while fewer queries are remembered", low=0)


@dataclass(frozen=True, slots=True)
class PolicySettings:
    """The policy that decides, and the parameters that `policies.load` gets."""

    name: str = setting("nested", "the serving policy; `bandit-service policies` lists all")
    parameters: dict[str, Any] = field(
        default_factory=dict, metadata={"rule": Rule("parameters of the policy, a table")}
    )


@dataclass(frozen=True, slots=True)
class ExplorationSettings:
    """Chance, and the probability that every eligible arm keeps."""

    seed: int = setting(0, "seed of every draw", low=0)
    share: float = setting(
        0.02,
        "share of the traffic that explores, spread evenly over all eligible arms",
        low=0,
        high=1,
    )
    floor: float | None = setting(
        None,
        "minimum probability of each eligible arm, instead of exploration.share",
        low=0,
        high=0.5,
    )
    floor_share: float = setting(
        0.1,
        "maximum share that exploration.floor takes for all arms together",
        low=0,
        high=1,
    )


@dataclass(frozen=True, slots=True)
class RewardSettings:
    """reward = quality - cost_usd / willingness_to_pay - latency_weight * latency_s."""

    willingness_to_pay: float = setting(
        0.10,
        "USD that one unit of quality is worth; a query may set its own",
        low=1e-9,
        high=1e6,
    )
    latency_weight: float = setting(
        0.0, "quality that one second of latency costs", low=0, high=100
    )
    ttl_s: float = setting(86_400.0, "how long a decision can be rewarded", low=1)
    session_credit: str = setting(
        "equal",
        "how a reward for a session is credited to its decisions: to all alike, to the last one, "
        "or less to earlier ones (docs/rewards.md)",
        choices=CREDITS,
    )
    session_discount: float = setting(
        0.9,
        "for discounted: the weight of a decision, as a share of the next one's",
        low=0.01,
        high=1,
    )
    on_expiry: str = setting(
        "drop",
        "what an unrewarded decision teaches after ttl_s: nothing, or reward.default",
        choices=("drop", "default"),
    )
    default: float = setting(
        0.0,
        "reward for decisions that were never rewarded, if on_expiry is default",
        low=-1,
        high=1,
    )
    max_pending: int = setting(
        50_000,
        "decisions waiting for a reward, about 5 kB each; beyond it the oldest expires",
        low=1,
    )


@dataclass(frozen=True, slots=True)
class ImplicitSettings:
    """What a client of the gateway does with an answer, taken for a metric that is 0 at best."""

    retry: float = setting(
        0.0,
        "weight of the signal: the same request again after an incomplete answer; 0 turns it off",
        low=0,
        high=100,
    )
    regenerate: float = setting(
        0.0,
        "weight of the signal: the same request again after a complete answer; 0 turns it off",
        low=0,
        high=100,
    )
    edit: float = setting(
        0.0,
        "weight of the signal: the last question replaced by another one; 0 turns it off",
        low=0,
        high=100,
    )
    window_s: float = setting(
        300.0, "how long after a request the next one can be such a signal", low=1, high=86_400
    )


@dataclass(frozen=True, slots=True)
class FeedbackSettings:
    """Signed tokens by which a user may vote on one answer, without an API key."""

    ttl_s: float = setting(
        86_400.0,
        "how long a feedback token is valid; 0 turns tokens off, and their paths answer 404",
        low=0,
        high=31_536_000,
    )
    secret_env: str = setting(
        "",
        "environment variable with the secrets that sign tokens, of at least 32 characters each, "
        "separated by spaces: the first one signs, the others are still valid; empty: the "
        "service creates the file feedback.secret in data_dir",
    )
    rate_per_s: float = setting(
        50.0, "maximum votes per second of all tokens together; beyond it 429", low=0.1, high=1e5
    )


@dataclass(frozen=True, slots=True)
class DriftSettings:
    """What watches for arms and queries that change, and what follows from an alarm."""

    enabled: bool = setting(True, "detect drift")
    adwin_delta: float = setting(
        0.002, "ADWIN's delta; lower values give fewer and later alarms", low=1e-9, high=0.5
    )
    page_hinkley_threshold: float = setting(
        20.0,
        "Page-Hinkley's threshold; higher values give fewer and later alarms",
        low=1.0,
        high=1e6,
    )
    page_hinkley_delta: float = setting(
        0.05, "Page-Hinkley ignores changes of the mean smaller than this", low=0, high=1
    )
    keep: float | None = setting(
        None,
        "share of what a policy learned of an arm that stays after the arm's alarm, for "
        "policies without their own alarm; 1 forgets nothing, null means 0.1",
        low=0.01,
        high=1,
    )
    explore: float = setting(
        0.0,
        "minimum probability of an arm after its alarm, and of all arms after an alarm of the"
        " queries; 0 adds nothing",
        low=0,
        high=0.5,
    )
    explore_decisions: int = setting(
        1000, "number of decisions for which drift.explore holds", low=1, high=1_000_000
    )


@dataclass(frozen=True, slots=True)
class ExperimentSettings:
    """What stands over all experiments, and how often they are looked at."""

    stopped: bool = setting(False, "kill switch: no unit is in any experiment")
    holdout_share: float = setting(
        0.0, "share of the units that always get holdout_arm", low=0.0, high=0.5
    )
    holdout_arm: str = setting("", "the arm of held-out units")
    unit: str = setting("user", "unit that is held out", choices=("user", "tenant"))
    salt: str = setting("holdout", "salt of the hold-out; another salt holds out other units")
    steer_s: float = setting(
        5.0, "seconds between two checks of guardrails, ramps and weights", low=0.1, high=3600.0
    )
    whatif_s: float = setting(
        300.0, "maximum seconds of one off-policy evaluation", low=1.0, high=86400.0
    )
