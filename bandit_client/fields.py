"""The fields of requests, by name: what `decide`, `reward`, `compare`, `put_arm` take."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias, TypedDict

Embedding: TypeAlias = Iterable[float] | bytes
"""A unit vector: any iterable of numbers (a list, an array), or the bytes of little-endian
float32."""


class Query(TypedDict, total=False):
    """A query in another form than text: exactly one of the three is sent.

    query: the text. messages: the conversation, as OpenAI's. embedding: a unit vector of the
    model's length.
    """

    query: str
    messages: Sequence[Mapping[str, Any]]
    embedding: Embedding


class DecideFields(TypedDict, total=False):
    """What a decision may take besides the text of the query; docs/api.md explains each.

    messages, embedding: the query in another form. arms: only these arms. max_cost_usd,
    max_latency_s: limits on what the answer is expected to cost, in USD, and to take, in seconds.
    willingness_to_pay: USD that one unit of quality is worth. requires: capabilities that the arm
    must have. policy: which of the policies that learn decides. route: by which of the configured
    routes. unit: who asks, what experiments keep together; session, conversation: other units of
    experiments. tenant: for whom. explain: also say why. tags: words of your own, by which
    decisions are found.
    """

    messages: Sequence[Mapping[str, Any]]
    embedding: Embedding
    arms: Sequence[str]
    max_cost_usd: float
    max_latency_s: float
    willingness_to_pay: float
    requires: Sequence[str]
    policy: str
    route: str
    unit: str
    tenant: str
    session: str
    conversation: str
    explain: bool
    idempotency_key: str
    tags: Sequence[str]


class RewardFields(Query, total=False):
    """What a reward may say; at least one of quality, cost_usd, latency_s, reward and metrics.

    quality: from 0 to 1. cost_usd: what the answer cost. latency_s: how long it took. reward: from
    −1 to 1, in place of the service's formula. metrics: numbers of your own, and true or false.
    correction: replace what was reported before. idempotency_key: under which a resend counts once;
    the client makes one where it is needed. Without a decision: `session` or `conversation`, for
    all of its decisions; or a query, `arm`, and willingness_to_pay, unit, tenant as in a decision.
    """

    session: str
    conversation: str

    arm: str
    quality: float
    cost_usd: float
    latency_s: float
    reward: float
    metrics: Mapping[str, float | bool]
    correction: bool
    idempotency_key: str
    willingness_to_pay: float
    unit: str
    tenant: str


class RewardItem(RewardFields, total=False):
    """A reward of a list: with the decision that it is for."""

    decision_id: str


class CompareFields(Query, total=False):
    """What a comparison may say besides the two arms.

    decision_id: the decision that it is for; otherwise a query. tie: neither did better. The others
    as for a reward.
    """

    decision_id: str
    tie: bool
    correction: bool
    idempotency_key: str
    willingness_to_pay: float
    unit: str
    tenant: str


class CompareItem(CompareFields, total=False):
    """A comparison of a list."""

    winner: str
    loser: str


class ArmFields(TypedDict, total=False):
    """How an arm is configured; the two prices must be there.

    usd_per_mtok_in, usd_per_mtok_out: prices of a million tokens of prompts and of answers.
    upstream, model: what serves it, for the gateway; request: what every request to it asks, such
    as a reasoning effort; family: of arms that share what is learned; kind: chat, embedding or
    judge; routed: whether a policy may choose it; deployments: upstreams in the place of one.
    docs/gateway.md and docs/arms.md have the rest.
    """

    usd_per_mtok_in: float
    usd_per_mtok_out: float
    context_window: int
    expected_output_tokens: int
    expected_latency_s: float
    capabilities: Sequence[str]
    tags: Sequence[str]
    upstream: str
    model: str
    usd_per_mtok_cached_in: float
    max_running: int
    usd_per_mtok_cache_write: float
    usd_per_mtok_cache_write_1h: float
    max_output_tokens: int
    aliases: Sequence[str]
    family: str
    request: Mapping[str, Any]
    kind: str
    routed: bool
    dimensions: int
    deployments: Sequence[Mapping[str, Any]]


class ConfigurationFields(TypedDict, total=False):
    """Sections of the configuration; each is the whole list, and what is left out stays.

    upstreams, budgets, judges, routes, metrics, policies: tables with the fields that they have in
    the file. settings: tables with name and value.
    forget: routes whose policies may lose what they have learned.
    """

    upstreams: Sequence[Mapping[str, Any]]
    budgets: Sequence[Mapping[str, Any]]
    judges: Sequence[Mapping[str, Any]]
    routes: Sequence[Mapping[str, Any]]
    metrics: Sequence[Mapping[str, Any]]
    policies: Sequence[Mapping[str, Any]]
    settings: Sequence[Mapping[str, Any]]
    forget: Sequence[str]


class KeyFields(TypedDict, total=False):
    """What a key may do; `scopes` must be there: some of decide, reward, read, texts and
    admin.

    tenant: the only one that it acts for. rate_per_s, burst: requests. reward_share: the share of
    the newest outcomes that may be its own. self_contained: whether it may send outcomes without
    a decision. expires: ISO 8601.
    """

    scopes: Sequence[str]
    tenant: str
    rate_per_s: float
    burst: int
    reward_share: float
    self_contained: bool
    expires: str


class RulesFields(TypedDict, total=False):
    """The rules over all experiments; what is left out stays.

    stopped: the kill switch. holdout_share, holdout_arm: the share of units that always gets this
    arm. unit, salt: what is held out.
    """

    stopped: bool
    holdout_share: float
    holdout_arm: str
    unit: str
    salt: str
