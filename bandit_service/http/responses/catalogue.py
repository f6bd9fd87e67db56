"""Arms, models and policies."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import UNSET, UnsetType

from bandit_service.core.arm_kinds import CHAT, EMBEDDING
from bandit_service.core.events import ArmSpec
from bandit_service.core.experiments.answers import Calibrated
from bandit_service.core.fields import doc
from bandit_service.gateway.health import STATES

MODEL_KINDS = (CHAT, EMBEDDING)


class Observed(msgspec.Struct, kw_only=True, frozen=True):
    """What was measured of an arm; empty for a key that is limited to one tenant."""

    costs: Annotated[int | UnsetType, doc("Answers whose cost is known.", 120)] = UNSET
    latencies: Annotated[int | UnsetType, doc("Answers whose latency is known.", 118)] = UNSET
    mean_cost_usd: Annotated[float | UnsetType, doc("Mean cost, USD.", 0.0007)] = UNSET
    mean_latency_s: Annotated[float | UnsetType, doc("Mean latency, seconds.", 1.3)] = UNSET
    alarms: Annotated[
        int | UnsetType, doc("How often the policy found by itself that the arm changed.", 1)
    ] = UNSET
    outcomes_since_alarm: Annotated[
        int | UnsetType, doc("Outcomes since the last of those alarms.", 40)
    ] = UNSET


class DeploymentHealth(msgspec.Struct, kw_only=True, frozen=True):
    """Whether one of an arm's deployments answers."""

    id: Annotated[str, doc("Its name.", "eu")]
    upstream: Annotated[str, doc("Its arm or policy.", "azure-eu")]
    state: Annotated[
        str,
        doc(
            "closed: available; open: masked after failures; half open: due for a probe.",
            "closed",
            enum=STATES,
        ),
    ]
    running: Annotated[int, doc("Running calls.", 2)]
    failures: Annotated[int, doc("Failed calls since the last answer.", 0)]


class ArmHealth(msgspec.Struct, kw_only=True, frozen=True):
    """Whether an arm answers, as this process sees it."""

    state: Annotated[
        str,
        doc("As for a deployment; with several, that of the best one.", "closed", enum=STATES),
    ]
    running: Annotated[int, doc("Running calls.", 3)]
    deployments: Annotated[
        list[DeploymentHealth], doc("Each deployment, if the arm has any; else empty.")
    ]


class Arm(ArmSpec, kw_only=True, frozen=True):
    """An arm of the catalogue: its configuration, and what was measured of it."""

    retired: Annotated[bool, doc("Whether it is no longer offered.", False)]
    source: Annotated[
        str,
        doc("Where its configuration comes from.", "config", enum=["config", "api"]),
    ]
    observed: Annotated[Observed, doc("What was measured of it.")]
    health: Annotated[
        ArmHealth | UnsetType,
        doc("Whether it answers; absent if no upstream serves it, and for a tenant's key."),
    ] = UNSET


class Arms(msgspec.Struct, kw_only=True, frozen=True):
    """The catalogue."""

    arms: Annotated[list[Arm], doc("Every arm, by id; retired ones too.")]


class Model(msgspec.Struct, kw_only=True, frozen=True):
    """A model, as OpenAI's clients list it."""

    id: Annotated[str, doc("What to send as `model`.", "auto")]
    object: Annotated[str, doc("Always `model`.", "model")]
    created: Annotated[int, doc("Always 0.", 0)]
    owned_by: Annotated[str, doc("Always `bandit`.", "bandit")]
    kind: Annotated[
        str,
        doc("`embedding` is for `/v1/embeddings`, `chat` for the rest.", "chat", enum=MODEL_KINDS),
    ] = CHAT
    route: Annotated[
        bool | UnsetType, doc("Of `auto` and of a route, where the service chooses the arm.", True)
    ] = UNSET
    context_window: Annotated[
        int | UnsetType, doc("Of an arm: most tokens of prompt and answer.", 128_000)
    ] = UNSET
    max_output_tokens: Annotated[
        int | UnsetType, doc("Of an arm: most tokens of an answer.", 4_096)
    ] = UNSET
    capabilities: Annotated[
        tuple[str, ...] | UnsetType, doc("Of an arm: what it can do.", ["json", "vision"])
    ] = UNSET
    dimensions: Annotated[
        int | UnsetType, doc("Of an embedding arm: numbers in each of its vectors.", 1_536)
    ] = UNSET
    prices: Annotated[
        dict[str, float] | UnsetType,
        doc(
            "Of an arm: USD for a million tokens, by the names of its configuration.",
            {"usd_per_mtok_in": 0.25, "usd_per_mtok_out": 2.0},
        ),
    ] = UNSET


class MessageModel(msgspec.Struct, kw_only=True, frozen=True):
    """A model, as Anthropic's clients list it."""

    type: Annotated[str, doc("Always `model`.", "model")]
    id: Annotated[str, doc("What to send as `model`.", "auto")]
    display_name: Annotated[str, doc("The same as `id`.", "auto")]
    created_at: Annotated[str, doc("Always the beginning of 1970.", "1970-01-01T00:00:00Z")]
    max_input_tokens: Annotated[
        int | None, doc("Of an arm: most tokens of prompt and answer.", 200_000)
    ]
    max_tokens: Annotated[int | None, doc("Of an arm: most tokens of an answer.", 64_000)]


class MessageModels(msgspec.Struct, kw_only=True, frozen=True):
    """The models that can be called, as Anthropic's clients list them."""

    data: Annotated[list[MessageModel], doc("`auto` first, then every arm that has an upstream.")]
    has_more: Annotated[bool, doc("Always false: all are in one list.", False)]
    first_id: Annotated[str, doc("The first one's id.", "auto")]
    last_id: Annotated[str, doc("The last one's id.", "gpt-5-mini")]


class Models(msgspec.Struct, kw_only=True, frozen=True):
    """The models that can be called."""

    object: Annotated[str, doc("Always `list`.", "list")]
    data: Annotated[list[Model], doc("`auto` first, then every arm that has an upstream.")]


class Serving(msgspec.Struct, kw_only=True, frozen=True):
    """The policy that decides."""

    name: Annotated[str, doc("Its name.", "metallm")]
    key: Annotated[str, doc("Name and parameters, which identify its state.", "metallm(alpha=1.0)")]
    parameters: Annotated[dict[str, Any], doc("Its parameters.", {"alpha": 1.0})]


class Standby(msgspec.Struct, kw_only=True, frozen=True):
    """A policy that learns beside the serving one."""

    name: Annotated[str, doc("Its name.", "eagle")]
    key: Annotated[str, doc("Name and parameters, which identify its state.", "eagle()")]
    learning: Annotated[
        bool, doc("Whether it has caught up with the log and learns from new events.", True)
    ]


class Folding(msgspec.Struct, kw_only=True, frozen=True):
    """How far the training of the next policy is."""

    name: Annotated[str, doc("The policy that will serve.", "eagle")]
    events: Annotated[int, doc("Events it has learned from.", 4_000)]
    of: Annotated[int, doc("Events there are.", 12_043)]


class Policies(msgspec.Struct, kw_only=True, frozen=True):
    """All policies, and which of them decide."""

    calibration: Annotated[
        dict[str, Calibrated],
        doc("How well recorded propensities match the draws, by policy."),
    ]
    policies: Annotated[list[str], doc("Every policy there is.", ["eagle", "metallm"])]
    serving: Annotated[Serving, doc("The policy that decides.")]
    beside: Annotated[list[Standby], doc("Policies that learn beside it.")]
    folding: Annotated[
        Folding | UnsetType, doc("The policy that is being trained to take over.")
    ] = UNSET


class PolicyState(msgspec.Struct, kw_only=True, frozen=True):
    """Size and hash of a policy's state."""

    name: Annotated[str, doc("The policy.", "metallm")]
    key: Annotated[str, doc("Name and parameters, which identify its state.", "metallm(alpha=1.0)")]
    bytes: Annotated[int, doc("Size of the encoded state.", 48_211)]
    sha256: Annotated[str, doc("Hash of the encoded state, to compare replicas.", "9f86d081")]
    events: Annotated[int, doc("Events applied so far.", 12_043)]
    rewards: Annotated[int, doc("Rewards learned from.", 5_870)]
    comparisons: Annotated[int, doc("Comparisons learned from.", 12)]
    failures: Annotated[int, doc("Outcomes that the policy failed to learn from.", 0)]
