"""Arms, policies, and how the service is.

A field that the service left out is None; one that is newer than this client is passed over.
"""

from __future__ import annotations

from typing import Any

import msgspec


class Observed(msgspec.Struct, kw_only=True, frozen=True):
    """What was measured of an arm; empty for a key that is limited to one tenant.

    costs: Answers whose cost is known.
    latencies: Answers whose latency is known.
    mean_cost_usd: Mean cost, USD.
    mean_latency_s: Mean latency, seconds.
    alarms: How often the policy found by itself that the arm changed.
    outcomes_since_alarm: Outcomes since the last of those alarms.
    """

    costs: int | None = None
    latencies: int | None = None
    mean_cost_usd: float | None = None
    mean_latency_s: float | None = None
    alarms: int | None = None
    outcomes_since_alarm: int | None = None


class DeploymentHealth(msgspec.Struct, kw_only=True, frozen=True):
    """Whether one of an arm's deployments answers.

    id: Its name.
    upstream: Its arm or policy.
    state: closed: available; open: masked after failures; half open: due for a probe.
    running: Running calls.
    failures: Failed calls since the last answer.
    """

    id: str
    upstream: str
    state: str
    running: int
    failures: int


class ArmHealth(msgspec.Struct, kw_only=True, frozen=True):
    """Whether an arm answers, as the process that answered sees it.

    state: As for a deployment; with several, that of the best one.
    running: Running calls.
    deployments: Each deployment, if the arm has any; else empty.
    """

    state: str
    running: int
    deployments: list[DeploymentHealth]


class Arm(msgspec.Struct, kw_only=True, frozen=True):
    """An arm of the catalogue: its configuration, and what was measured of it.

    id: The name of the arm; 1 to 128 printable characters.
    usd_per_mtok_in: Price of a million prompt tokens, USD.
    usd_per_mtok_out: Price of a million answer tokens, USD.
    context_window: Most tokens of prompt and answer.
    expected_output_tokens: Tokens of a usual answer, to estimate its cost.
    expected_latency_s: Seconds of a usual answer, until one was measured.
    capabilities: What it can do; a query may require these.
    tags: Words for people and policies.
    upstream: Id of the upstream that serves it.
    model: Its name at the upstream; the arm's id if empty.
    usd_per_mtok_cached_in: Price of prompt tokens read from the provider's cache; null:
        `usd_per_mtok_in`.
    max_running: Maximum concurrent calls; 0: no limit.
    usd_per_mtok_cache_write: Price of prompt tokens written to the provider's cache; null:
        `usd_per_mtok_in`.
    usd_per_mtok_cache_write_1h: The same for tokens kept for an hour; null: twice
        `usd_per_mtok_in`.
    max_output_tokens: Most tokens of an answer; a budget reserves these where a request sets no
        limit.
    aliases: Other names that its provider may give the model; `*` for any.
    family: What arms have in common that share what is learned; "" for none.
    request: What every request to it asks, such as a reasoning effort.
    kind: What it is for: chat, embedding or judge.
    routed: Whether it can be chosen; if not, only a request that names it gets it.
    dimensions: Of kind embedding: numbers in each of its vectors.
    deployments: Upstreams that serve the same model, instead of `upstream`.
    retired: Whether it is no longer offered.
    source: Where its configuration comes from.
    observed: What was measured of it.
    health: Whether it answers; None if no upstream serves it.
    """

    id: str
    usd_per_mtok_in: float
    usd_per_mtok_out: float
    context_window: int = 128000
    expected_output_tokens: int = 300
    expected_latency_s: float | None = None
    capabilities: list[str] = []
    tags: list[str] = []
    upstream: str = ""
    model: str = ""
    usd_per_mtok_cached_in: float | None = None
    max_running: int = 0
    usd_per_mtok_cache_write: float | None = None
    usd_per_mtok_cache_write_1h: float | None = None
    max_output_tokens: int | None = None
    aliases: list[str] = []
    family: str = ""
    request: dict[str, Any] = {}
    kind: str = "chat"
    routed: bool = True
    dimensions: int | None = None
    deployments: list[dict[str, Any]] = []
    retired: bool
    source: str
    observed: Observed
    health: ArmHealth | None = None


class Arms(msgspec.Struct, kw_only=True, frozen=True):
    """The catalogue.

    arms: Every arm, by id; retired ones too.
    """

    arms: list[Arm]


class Calibrated(msgspec.Struct, kw_only=True, frozen=True):
    """How well recorded propensities agree with what was drawn.

    state: Whether there is enough data to show a number.
    decisions: Decisions that were drawn at random.
    p_value: Valid at any time; small if they disagree.
    impossible: Draws of an arm with probability 0.
    """

    state: str
    decisions: int
    p_value: float | None = None
    impossible: int | None = None


class Serving(msgspec.Struct, kw_only=True, frozen=True):
    """The policy that decides.

    name: Its name.
    key: Name and parameters, which identify its state.
    parameters: Its parameters.
    """

    name: str
    key: str
    parameters: dict[str, Any]


class Standby(msgspec.Struct, kw_only=True, frozen=True):
    """A policy that learns beside the serving one.

    name: Its name.
    key: Name and parameters, which identify its state.
    learning: Whether it has caught up with the log and learns from new events.
    """

    name: str
    key: str
    learning: bool


class Folding(msgspec.Struct, kw_only=True, frozen=True):
    """How far the training of the next policy is.

    name: The policy that will serve.
    events: Events it has learned from.
    of: Events there are.
    """

    name: str
    events: int
    of: int


class Policies(msgspec.Struct, kw_only=True, frozen=True):
    """All policies, and which of them decide.

    calibration: How well recorded propensities match the draws, by policy.
    policies: Every policy there is.
    serving: The policy that decides.
    beside: Policies that learn beside it.
    folding: The policy that is being trained to take over.
    """

    calibration: dict[str, Calibrated]
    policies: list[str]
    serving: Serving
    beside: list[Standby]
    folding: Folding | None = None


class PolicyState(msgspec.Struct, kw_only=True, frozen=True):
    """Size and hash of a policy's state.

    name: The policy.
    key: Name and parameters, which identify its state.
    bytes: Size of the encoded state.
    sha256: Hash of the encoded state, to compare replicas.
    events: Events applied so far.
    rewards: Rewards learned from.
    comparisons: Comparisons learned from.
    failures: Outcomes that the policy failed to learn from.
    """

    name: str
    key: str
    bytes: int
    sha256: str
    events: int
    rewards: int
    comparisons: int
    failures: int


class Status(msgspec.Struct, kw_only=True, frozen=True):
    """Whether the service runs, and how much it knows.

    status: `ok` or `ready`; `degraded` if something is not done now.
    events: Events applied so far.
    arms: Arms that are offered.
    first: Offset of the first event in the log.
    last: Offset of the last event in the log.
    why: What is not done now.
    failing: Background tasks that failed and are retried, with the error.
    """

    status: str
    events: int | None = None
    arms: int | None = None
    first: int | None = None
    last: int | None = None
    why: str | None = None
    failing: dict[str, str] | None = None


class Snapshot(msgspec.Struct, kw_only=True, frozen=True):
    """The snapshot that was made.

    offset: Offset of the last event in it.
    bytes: Its size.
    """

    offset: int
    bytes: int


class Erased(msgspec.Struct, kw_only=True, frozen=True):
    """What was erased of a unit.

    erased: Records erased from the log.
    """

    erased: int
