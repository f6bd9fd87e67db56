"""The bodies of requests, one struct each; the same for JSON and MessagePack."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec

from bandit_service.core.experiments.spec import METRICS, MIN_ALPHA
from bandit_service.core.fields import Limit, Name, Reward, Seconds, Share, Usd, Worth, doc
from bandit_service.core.outcomes import MAX_METRICS, Reported, Signals, check_signals, digest
from bandit_service.core.tags import LONGEST_TAG, MAX_TAGS, PATTERN

_ID = "0192f1b6-7c1e-7aaa-9c1e-5f0d6b1a2c3d"
_WORTH = "USD that one unit of quality is worth; the service's setting if left out."
_UNIT = "Who sends the request, such as a user; recorded, and kept on one variant by experiments."
_TENANT = "The tenant of the request; a key with a tenant acts for that tenant."
_KEY = "A resend with the same key is applied once."
_METRICS = "Metrics of your own: of [[metrics]], or measured by experiments alone; at most 8."
_WHY = "The reason, recorded in the log; at most 1,000 characters."
MAX_WHY = 1_000
MAX_GRACE_S = 30 * 86_400.0
_Why = Annotated[str, msgspec.Meta(max_length=MAX_WHY)]


class Query(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """A query in one of its three forms; `embedding` is numbers, or float32 bytes."""

    query: Annotated[str | None, doc("The text.", "What is the capital of France?")] = None
    messages: Annotated[
        list[dict[str, Any]] | None,
        doc(
            "The conversation, as OpenAI's; the user's turns are embedded, newest first.",
            [{"role": "user", "content": "What is the capital of France?"}],
        ),
    ] = None
    embedding: Annotated[
        list[float] | bytes | None,
        doc("A unit vector of the model's length: numbers, or base64 of float32.", [0.6, 0.8]),
    ] = None


class DecideRequest(Query, kw_only=True, forbid_unknown_fields=True):
    """A query to be decided: exactly one of `query`, `messages` and `embedding`."""

    unit: Annotated[Name, doc(_UNIT, "user-17")] = ""
    tenant: Annotated[Name, doc(_TENANT, "acme")] = ""
    session: Annotated[Name, doc("The session; may be rewarded as a whole.", "session-3")] = ""
    conversation: Annotated[
        Name, doc("The conversation; may be rewarded as a whole.", "conversation-9")
    ] = ""
    arms: Annotated[list[str] | None, doc("Only these arms; all if left out.", ["gpt-5-mini"])] = (
        None
    )
    max_cost_usd: Annotated[
        Limit | None, doc("Most that the answer is expected to cost, USD.", 0.01)
    ] = None
    max_latency_s: Annotated[
        Limit | None, doc("Longest that the answer is expected to take, seconds.", 5.0)
    ] = None
    willingness_to_pay: Annotated[Worth | None, doc(_WORTH, 0.1)] = None
    requires: Annotated[list[str], doc("Capabilities that the arm must have.", ["json"])] = []
    policy: Annotated[
        str, doc("The policy that decides, of those that learn; the serving one if empty.", "")
    ] = ""
    route: Annotated[
        Name, doc("The route that decides, of [[routes]]; the default one if empty.", "support-bot")
    ] = ""
    idempotency_key: Annotated[
        Name,
        doc(
            "A resend with the same key gets the same decision; takes precedence over the header.",
            "a-1",
        ),
    ] = ""
    explain: Annotated[bool, doc("Also say why: scores, propensities, neighbours.", True)] = False
    tags: Annotated[
        list[str],
        doc(
            "Your own labels, recorded to find and group decisions; they do not affect the choice.",
            ["checkout", "team:search"],
            maxItems=MAX_TAGS,
            items={"type": "string", "minLength": 1, "maxLength": LONGEST_TAG, "pattern": PATTERN},
        ),
    ] = []


class ExplainRequest(DecideRequest, kw_only=True, forbid_unknown_fields=True):
    """As for a decision, or `decision_id` alone for the query of that one."""

    decision_id: Annotated[
        str | None, doc("Explain the query of this decision again, and nothing else.", _ID)
    ] = None


class RewardRequest(Query, kw_only=True, forbid_unknown_fields=True):
    """What an answer was worth: for a decision, or self-contained with a query and an arm."""

    decision_id: Annotated[str | None, doc("The decision that it is for.", _ID)] = None
    session: Annotated[
        Name, doc("Instead of decision_id: the session that is rewarded.", "session-3")
    ] = ""
    conversation: Annotated[
        Name, doc("Instead of decision_id: the conversation that is rewarded.", "chat-9")
    ] = ""
    arm: Annotated[str | None, doc("Without a decision: the arm that answered.", "o3")] = None
    quality: Annotated[Share | None, doc("How good the answer was.", 0.9)] = None
    cost_usd: Annotated[Usd | None, doc("What it cost, USD.", 0.0007)] = None
    latency_s: Annotated[Seconds | None, doc("How long it took, seconds.", 1.3)] = None
    reward: Annotated[
        Reward | None, doc("The reward itself, in place of the service's formula.", 0.85)
    ] = None
    willingness_to_pay: Annotated[Worth | None, doc("Without a decision: " + _WORTH, 0.1)] = None
    idempotency_key: Annotated[Name, doc(_KEY, "order-4711")] = ""
    correction: Annotated[bool, doc("Replace the signals reported before.", False)] = False
    metrics: Annotated[
        dict[str, float | bool],
        doc(_METRICS, {"resolved": True, "stars": 4}, maxProperties=MAX_METRICS),
    ] = {}
    unit: Annotated[Name, doc("Without a decision: " + _UNIT, "user-17")] = ""
    tenant: Annotated[Name, doc("Without a decision: " + _TENANT, "acme")] = ""

    def reported(self) -> Reported:
        """The signals, and the digest by which a resend is recognised; checks their ranges."""
        metrics = numbers(self.metrics)
        signals = Signals(self.quality, self.cost_usd, self.latency_s, self.reward, metrics)
        check_signals(signals)
        return Reported(
            signals,
            self.idempotency_key,
            digest("reward", self.decision_id, self.arm, signals.said(), *self._groups()),
            self.correction,
        )

    def _groups(self) -> tuple[str, ...]:
        return (self.session, self.conversation) if self.session or self.conversation else ()


def numbers(metrics: Mapping[str, float | bool]) -> dict[str, float]:
    """Values of metrics as they are kept: true is 1 and false is 0."""
    return {name: float(value) for name, value in metrics.items()}


class VoteRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """A user's vote on one answer, or values of metrics that a user may report: at least one."""

    vote: Annotated[
        str | None,
        doc("Neutral withdraws an earlier vote.", "up", enum=["up", "down", "neutral"]),
    ] = None
    metrics: Annotated[
        dict[str, float | bool],
        doc(
            "Of the [[metrics]] with `feedback = true`; the last value counts.",
            {"stars": 4},
            maxProperties=MAX_METRICS,
        ),
    ] = {}


class Feedback(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """TensorZero's feedback: one value of one metric, for an inference or an episode."""

    metric_name: Annotated[str, doc("One of [[metrics]].", "resolved")]
    value: Annotated[
        bool | float | str | list[Any] | dict[str, Any],
        doc("True or false, or a number in the metric's range.", True),
    ]
    inference_id: Annotated[
        str | None, doc("The decision that it is for: of a metric of a decision.", _ID)
    ] = None
    episode_id: Annotated[
        Name | None, doc("The session that it is for: of a metric of a session.", "session-3")
    ] = None
    tags: Annotated[dict[str, str], doc("Accepted and ignored.", {"author": "Ann"})] = {}
    dryrun: Annotated[bool, doc("Check it, and change nothing.", False)] = False


class CompareRequest(Query, kw_only=True, forbid_unknown_fields=True):
    """Which of two arms did better: for a decision, or self-contained with a query."""

    winner: Annotated[str, doc("The arm that did better.", "gpt-5-mini")]
    loser: Annotated[str, doc("The arm that did worse.", "o3")]
    tie: Annotated[bool, doc("Neither did better.", False)] = False
    decision_id: Annotated[str | None, doc("The decision that it is for.", _ID)] = None
    willingness_to_pay: Annotated[Worth | None, doc("Without a decision: " + _WORTH, 0.1)] = None
    idempotency_key: Annotated[Name, doc(_KEY, "duel-42")] = ""
    correction: Annotated[bool, doc("Replace the comparison reported before.", False)] = False
    unit: Annotated[Name, doc("Without a decision: " + _UNIT, "user-17")] = ""
    tenant: Annotated[Name, doc("Without a decision: " + _TENANT, "acme")] = ""

    def digested(self) -> str:
        """What a resend under the same idempotency key must agree with."""
        return digest("comparison", self.decision_id, self.winner, self.loser, self.tie)


class ExperimentPatch(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What of an experiment changes: at least one of `share`, `weights` and `release`."""

    share: Annotated[
        float | None, doc("Share of the units that takes part.", 0.5, minimum=0, maximum=1)
    ] = None
    weights: Annotated[
        dict[str, float] | None,
        doc("The variants' weights; they sum to 1.", {"control": 0.5, "treatment": 0.5}),
    ] = None
    release: Annotated[
        str | None, doc("A variant stopped by a guardrail, to be served again.", "treatment")
    ] = None
    why: Annotated[str, doc(_WHY, "the first week is fine")] = ""


class ExperimentMove(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Start or pause an experiment."""

    why: Annotated[str, doc(_WHY, "reviewed by the team")] = ""


class ExperimentStop(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Stop an experiment."""

    why: Annotated[str, doc(_WHY, "treatment is better")] = ""
    winner: Annotated[
        str, doc("The variant to keep; if empty, what the results say.", "treatment")
    ] = ""
    ship: Annotated[bool, doc("Let the winner's policy serve from now on.", False)] = False


class PolicyRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """A policy with its parameters."""

    name: Annotated[str, doc("Its name; GET /v1/policies lists all.", "eagle")]
    parameters: Annotated[
        dict[str, Any], doc("Its parameters; defaults where left out.", {"explore": 0.1})
    ] = {}


_TABLES = list[dict[str, Any]]


class ConfigurationRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The new sections; sections that are left out stay."""

    upstreams: Annotated[
        _TABLES | None,
        doc(
            "All of them, as `[[upstreams]]`.",
            [{"id": "openai", "base_url": "https://api.openai.com/v1", "key_env": "OPENAI_KEY"}],
        ),
    ] = None
    budgets: Annotated[
        _TABLES | None,
        doc("All of them, as `[[budgets]]`.", [{"scope": "service", "per": "day", "usd": 20.0}]),
    ] = None
    judges: Annotated[
        _TABLES | None, doc("All of them, as `[[judges]]`.", [{"id": "exact", "kind": "exact"}])
    ] = None
    routes: Annotated[
        _TABLES | None, doc("All of them, as `[[routes]]`.", [{"id": "bot", "policy": "knn"}])
    ] = None
    metrics: Annotated[
        _TABLES | None,
        doc("All of them, as `[[metrics]]`.", [{"name": "resolved", "kind": "boolean"}]),
    ] = None
    policies: Annotated[
        _TABLES | None,
        doc("All that learn beside the serving one, as `[[policies]]`.", [{"name": "eagle"}]),
    ] = None
    settings: Annotated[
        _TABLES | None,
        doc(
            "All single settings that are not as by default, of those that can be changed at run "
            "time: docs/live-configuration.md.",
            [{"name": "reward.ttl_s", "value": 172800}],
        ),
    ] = None
    forget: Annotated[
        list[str], doc("Routes whose policies may lose what they have learned.", ["bot"])
    ] = []
    why: Annotated[_Why, doc(_WHY, "a larger budget for the launch")] = ""


class RollbackRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Restore the sections of an earlier revision."""

    to: Annotated[int, doc("The revision; GET /v1/configuration lists those that are kept.", 6)]
    forget: Annotated[
        list[str], doc("Routes whose policies may lose what they have learned.", ["bot"])
    ] = []
    why: Annotated[_Why, doc(_WHY, "the new provider fails")] = ""


class KeyRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """A key to create; the fields are those of `[[keys]]`, without the hash."""

    id: Annotated[str, doc("A name for it, 1 to 64 characters.", "app")]
    scopes: Annotated[
        list[str], doc("Some of decide, reward, read, texts and admin.", ["decide", "reward"])
    ]
    tenant: Annotated[str, doc("The only tenant that it acts for.", "acme")] = ""
    rate_per_s: Annotated[float, doc("Requests per second; 0: no limit.", 50.0)] = 0.0
    burst: Annotated[int, doc("Requests at once.", 100)] = 0
    reward_share: Annotated[
        float, doc("Share of the newest outcomes that may be this key's.", 1.0)
    ] = 1.0
    self_contained: Annotated[
        bool, doc("Whether it may send outcomes without a decision.", False)
    ] = False
    expires: Annotated[str, doc("When it ends, ISO 8601; empty: never.", "2027-01-01")] = ""
    why: Annotated[_Why, doc(_WHY, "the app's first key")] = ""


class KeyRotation(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """A new key with the same id."""

    grace_s: Annotated[
        float,
        msgspec.Meta(ge=0.0, le=MAX_GRACE_S),
        doc("Seconds for which the old key stays valid.", 3600.0),
    ] = 0.0
    why: Annotated[_Why, doc(_WHY, "the yearly rotation")] = ""


class WhatIfRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Candidates, and on which decisions they are judged."""

    policies: Annotated[list[PolicyRequest], doc("The candidates, 1 to 8.")]
    on: Annotated[
        str,
        doc(
            "`experiment`: decisions of its units; `service`: all.",
            "experiment",
            enum=["experiment", "service"],
        ),
    ] = "experiment"
    since: Annotated[
        float | None, doc("Only decisions from here on, UTC seconds.", 1764000000.0)
    ] = None
    until: Annotated[float | None, doc("Only decisions up to here, UTC seconds.", 1764345600.0)] = (
        None
    )
    frozen: Annotated[
        bool, doc("Candidates learn only up to `since`, or from half of the log.", False)
    ] = False
    last: Annotated[
        int, doc("Use only the newest N decisions.", 20_000, minimum=1, maximum=50_000)
    ] = 20_000
    metric: Annotated[
        str, doc(f"The metric to estimate: {', '.join(METRICS)}, or one of [[metrics]].", "reward")
    ] = "reward"
    alpha: Annotated[
        float,
        doc("1 minus the confidence of the intervals.", 0.05, minimum=MIN_ALPHA, maximum=0.5),
    ] = 0.05
    clip: Annotated[
        float,
        doc("The largest weight of clipped IPS and Switch-DR.", 10.0, minimum=1, maximum=1e9),
    ] = 10.0
    anyway: Annotated[bool, doc("Show figures even if they would be refused.", False)] = False
