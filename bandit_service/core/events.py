"""Everything that can happen, as versioned records. The log of these is the truth.

An event carries everything that applying it reads, so applying never embeds, recalls, reads a
clock or draws. Events are appended and never rewritten: new fields have defaults, fields are
never renamed, retyped or reused. `tests/golden/events.json` keeps a sample of every kind.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Any, TypeAlias

import msgspec

from bandit_service.core.arm_spec import ARM_KINDS as ARM_KINDS
from bandit_service.core.arm_spec import ArmSpec as ArmSpec
from bandit_service.core.arm_spec import Deployment as Deployment
from bandit_service.core.experiments.spec import Experiment, Rules
from bandit_service.core.metric_spec import NamedMetric
from bandit_service.core.route_spec import RouteSpec as RouteSpec
from bandit_service.core.route_spec import is_of_route as is_of_route
from bandit_service.core.route_spec import label_of_route as label_of_route
from bandit_service.core.route_spec import route_label as route_label
from bandit_service.core.route_spec import within_route as within_route
from bandit_service.core.vector_bytes import pack as pack
from bandit_service.core.vector_bytes import surface_of as surface_of
from bandit_service.core.vector_bytes import unpack as unpack
from policies import ArmId


class Event(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="kind", gc=False
):
    """What all events share: `ts`, UTC seconds when it was made, read once, by the router.

    None refers to itself, so the garbage collector need not look at any.
    """

    ts: float
    v: int = 1


class ArmAdded(Event, frozen=True, kw_only=True, tag="arm_added"):
    """An arm joined the catalogue, or came back to it. `source` is "config" or "api"."""

    arm: ArmSpec
    source: str


class ArmUpdated(Event, frozen=True, kw_only=True, tag="arm_updated"):
    """An arm's record was replaced; what was learned of it stays."""

    arm: ArmSpec
    source: str


class ArmRetired(Event, frozen=True, kw_only=True, tag="arm_retired"):
    """An arm is no longer offered; it keeps its state and still accepts rewards."""

    id: ArmId
    source: str


class PolicyChanged(Event, frozen=True, kw_only=True, tag="policy_changed"):
    """From here on decisions are made by this policy; `key` hashes its name and parameters.

    `source` is "config" or "api".
    """

    policy: str
    key: str
    parameters: bytes
    source: str = "config"


class PolicyAnnounced(Event, frozen=True, kw_only=True, tag="policy_announced"):
    """A policy is to decide soon, on a log that several replicas share: each folds the past for it.

    Fields as of `policy_changed`, which follows when all have it.
    """

    policy: str
    key: str
    parameters: bytes
    source: str = "api"


class PolicyBuilt(Event, frozen=True, kw_only=True, tag="policy_built"):
    """A replica has folded the past for the policy that was announced. epoch: its joining.

    at: the offset of a snapshot of it in the shared log, with which the others begin; 0 if each
    folds the past itself.
    """

    key: str
    replica: int
    epoch: int
    at: int = 0


class PolicyGivenUp(Event, frozen=True, kw_only=True, tag="policy_given_up"):
    """A replica could not train the announced policy on the past, so the earlier one continues."""

    key: str
    replica: int
    why: str


class PolicyJoined(Event, frozen=True, kw_only=True, tag="policy_joined"):
    """From now on a policy learns beside the serving one, and decides if a query names it.

    parameters: JSON. key: hashes name and parameters. state: its knowledge of all earlier events,
    as `codec.dump` wrote it; empty if there was nothing to learn. On a log that several replicas
    share, of the events that the one which trained it had applied.
    """

    policy: str
    key: str
    parameters: bytes
    state: bytes = b""


class PolicyLeft(Event, frozen=True, kw_only=True, tag="policy_left"):
    """A policy no longer learns beside the serving one; its state is gone."""

    policy: str


class RouteChanged(Event, frozen=True, kw_only=True, tag="route_changed"):
    """A route is there from here on, or is as this says. key: hashes policy and parameters: while
    it is the same, what the route's policy has learned stays; else it begins with nothing.
    """

    route: RouteSpec
    key: str


class RouteRemoved(Event, frozen=True, kw_only=True, tag="route_removed"):
    """A route was removed; its policy's state is gone."""

    id: str


class Shadow(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """What a variant that is not served would have done.

    propensities: (K,) over the arms of the decision it stands beside. expected_cost_usd: of a draw.
    """

    experiment: str
    variant: str
    propensities: tuple[float, ...]
    expected_cost_usd: float


class Decided(Event, frozen=True, kw_only=True, tag="decided"):
    """One arm was drawn for one query. K eligible arms, in the canonical order.

    embedding: d float32, little-endian; all zeros if it was not available. surface: the surface
    features of the text, empty without a text.
    propensities: (K,) the distribution of the draw, after masks, floor and fallback.
    list_cost_usd: the drawn arm's cost by list price and token estimates.
    expected_deviation, expected_count: the standard deviation of `expected_quality`, and the weight
    of the outcomes behind it, if the policy reports them; at 0 it is a prior. untried: positions in
    `arms` of arms without any outcome.
    neighbours, similarities: the recalled queries, nearest first.
    fallback: empty, or the failed stage and what replaced it.
    stayed: it is the arm that its conversation had before; in older logs, if `conversation` is
    empty, all mass was put on that arm. conversation: a hash of its name; before: the arm that
    answered it last. prompt_tokens: of everything that the service sends; 0 if it sends nothing.
    cached_tokens: (K,) how many of these each arm was expected to have cached; warm_tokens: the
    same if the conversation had been at that arm. switch_usd: (K,) the additional cost of a switch
    to each arm, once for `later_turns` expected turns. reason: why this arm, of `staying.REASONS`;
    empty if it was only drawn.
    caller: id of the calling API key, which pays.
    duel_of: the decision whose answer the user got, if this one is only compared with it.
    experiment, variant: those of the unit. split: the probability with which a participating unit
    got this variant, 0 if an override named it or it is held. member: a hash of the unit. steps:
    what of experiments applied, in order: "outside" (the request named its arm or its policy),
    "stopped" (the kill switch) or "holdout"; or "audience", "override", "namespace", "share",
    "split", "kept" (the variant that the unit had before its weights changed), "held" (the control,
    since its variant is held), "no arm" (its arm could not serve the query, so the serving policy
    decided).
    shadows: only in older logs; now they have an event of their own.
    excluded: offered arms that a constraint excluded, and why; without those that the request did
    not allow.
    seen: the offset of the world that the decision was made from; 0 for the offset before it, as
    with a single process.
    tags: the client's labels, sorted, to find decisions; they do not affect the choice.
    effort_asked, effort: the reasoning effort that the client requests, and the one sent to the
    drawn arm's provider; empty for none.
    route: the route of the request, "" for the default one.
    request_key, request_digest: hashes of the idempotency key and of the request; empty without a
    key.
    groups: hashes of the session and the conversation, if the client named them.
    """

    id: str
    embedding: bytes
    tokens: int
    willingness_to_pay: float
    arms: tuple[ArmId, ...]
    propensities: tuple[float, ...]
    scores: tuple[float, ...]
    drawn: int
    policy: str
    key: str
    list_cost_usd: float
    expected_cost_usd: float
    price: float
    expected_quality: float | None = None
    expected_latency_s: float | None = None
    neighbours: tuple[int, ...] = ()
    similarities: tuple[float, ...] = ()
    tenant: str = ""
    unit: str = ""
    fallback: str = ""
    stayed: bool = False
    caller: str = ""
    duel_of: str = ""
    experiment: str = ""
    variant: str = ""
    split: float = 1.0
    member: str = ""
    steps: tuple[str, ...] = ()
    shadows: tuple[Shadow, ...] = ()
    excluded: dict[ArmId, str] = {}
    expected_deviation: float | None = None
    expected_count: float | None = None
    untried: tuple[int, ...] = ()
    surface: bytes = b""
    reason: str = ""
    prompt_tokens: int = 0
    conversation: str = ""
    before: ArmId = ArmId("")
    cached_tokens: tuple[int, ...] = ()
    warm_tokens: tuple[int, ...] = ()
    switch_usd: tuple[float, ...] = ()
    later_turns: float = 0.0
    seen: int = 0
    tags: tuple[str, ...] = ()
    effort_asked: str = ""
    effort: str = ""
    route: str = ""
    groups: tuple[str, ...] = ()
    request_key: str = ""
    request_digest: str = ""

    @property
    def why(self) -> str:
        """Why this arm answers, of `staying.REASONS`."""
        return self.reason or ("stayed" if self.stayed else "drawn")

    @property
    def arm(self) -> ArmId:
        """The arm drawn."""
        return self.arms[self.drawn]

    @property
    def propensity(self) -> float:
        """The probability with which it was drawn."""
        return self.propensities[self.drawn]


class Shadowed(Event, frozen=True, kw_only=True, tag="shadowed"):
    """The decisions of shadows for a decision, computed after it was answered.

    In older logs they are in the decision itself.
    """

    decision_id: str
    shadows: tuple[Shadow, ...]


class Subject(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """The query of a self-contained outcome, which has no decision of this service."""

    embedding: bytes
    tokens: int
    willingness_to_pay: float
    neighbours: tuple[int, ...] = ()
    similarities: tuple[float, ...] = ()
    tenant: str = ""
    unit: str = ""
    surface: bytes = b""


class Rewarded(Event, frozen=True, kw_only=True, tag="rewarded"):
    """Signals came back for one decision, or for `subject` and `arm` without a decision.

    Only signals that are new with this event are set. `reward` is the scalar reward, set exactly
    once per decision, by the event that settles it; `explicit` if the client sent it. A
    `correction` replaces an earlier report: its signals are the new values, and its `reward` is the
    new scalar reward of a settled decision. metrics: the user's own. provisional: a judge's grade,
    which later feedback of the user replaces.
    prior: from a warm start.
    prompt_tokens, cached_tokens: of the prompt that the arm got, and how many of them it had
    cached, None if that was not reported; set by the service if it called the arm. calls: hashes of
    the ids of the answer's tool calls. deployment: the one that answered.
    revoked: signals that are withdrawn, as if they had never come. A policy cannot unlearn, so
    `quality` and `reward` are then the values expected at the decision.
    weighed: `quality` is the weighted mean of the named metrics. session: the session that was
    rewarded, as `Decided.groups` has it; "" if the decision itself was.
    """

    decision_id: str = ""
    subject: Subject | None = None
    arm: ArmId = ArmId("")
    quality: float | None = None
    cost_usd: float | None = None
    latency_s: float | None = None
    reward: float | None = None
    explicit: bool = False
    idempotency_key: str = ""
    digest: str = ""
    correction: bool = False
    metrics: dict[str, float] = {}
    provisional: bool = False
    prior: bool = False
    prompt_tokens: int = 0
    cached_tokens: int | None = None
    calls: tuple[str, ...] = ()
    revoked: tuple[str, ...] = ()
    deployment: str = ""
    weighed: bool = False
    session: str = ""


class SessionRewarded(Event, frozen=True, kw_only=True, tag="session_rewarded"):
    """A session or a conversation was rewarded.

    A `Rewarded` for each of its decisions follows, and then `SessionCredited`. group: as
    `Decided.groups` has it. owner: whose data it is. signals: the new ones, the quality and metrics
    by name. ids: the credited decisions, oldest first, with their arms. weights: how far each
    learns from its expected value towards the session's value, 1 for all the way. credits: the same
    as shares that sum to 1.
    """

    group: str
    owner: str = ""
    signals: dict[str, float]
    ids: tuple[str, ...]
    arms: tuple[ArmId, ...]
    weights: tuple[float, ...]
    credits: tuple[float, ...]
    idempotency_key: str = ""
    digest: str = ""


class SessionCredited(Event, frozen=True, kw_only=True, tag="session_credited"):
    """All decisions of a session learned their part. number: how many rewards the session had."""

    group: str
    number: int


class Compared(Event, frozen=True, kw_only=True, tag="compared"):
    """Two arms were compared on one query.

    prior: from a warm start. correction: it replaces an earlier comparison of the same decision and
    pair. provisional: it is a judge's, which the user's own replaces.
    """

    winner: ArmId
    loser: ArmId
    tie: bool = False
    decision_id: str = ""
    subject: Subject | None = None
    idempotency_key: str = ""
    digest: str = ""
    prior: bool = False
    correction: bool = False
    provisional: bool = False


class Judged(Event, frozen=True, kw_only=True, tag="judged"):
    """A judge scored the answer of a decision, from 0 to 1, before any calibration.

    Its quality, if it counts, is a `Rewarded` of its own. basis: a hash of what the judge goes by;
    scores of one basis can be compared.
    """

    decision_id: str
    judge: str
    basis: str
    score: float


class DecisionsExpired(Event, frozen=True, kw_only=True, tag="expired"):
    """These decisions are forgotten: too old, or too many were pending.

    default_reward: what each of them teaches that was never rewarded; None teaches nothing.
    """

    ids: tuple[str, ...]
    default_reward: float | None = None


class Spent(Event, frozen=True, kw_only=True, tag="spent"):
    """A cost that no outcome reports, booked on the service and on the payers named here.

    judge: the cost of judging `decision_id`. Without a judge it is an estimate of the cost of that
    decision's answer, which a later report replaces. Without a decision it is for a call that was
    not routed, such as embeddings.
    """

    decision_id: str = ""
    judge: str = ""
    usd: float
    tenant: str = ""
    caller: str = ""
    route: str = ""


class BudgetLeased(Event, frozen=True, kw_only=True, tag="budget_leased"):
    """What a replica may spend of an account in one window, if several share a log.

    It replaces the replica's earlier slice: what was spent until here is booked, and not part of
    it. replica: its slot. per, window: of `core.spend`. usd: the maximum cost of its running calls
    and of new ones.
    """

    replica: int
    account: str
    per: str
    window: str
    usd: float


class BudgetReturned(Event, frozen=True, kw_only=True, tag="budget_returned"):
    """A replica may spend nothing more of an account in this window: it returned its slice.

    The keeper does the same for one that was closed long ago.
    """

    replica: int
    account: str
    per: str
    window: str


class Redirected(Event, frozen=True, kw_only=True, tag="redirected"):
    """Another model than the arm's answered: the decision's outcomes say nothing about that arm.

    model: as the provider names it. arm: the one that has this model and gets the outcomes; "" if
    none has. prompt_tokens: of the prompt that was sent. calls, deployment: as of `Rewarded`.
    """

    decision_id: str
    model: str
    arm: ArmId = ArmId("")
    prompt_tokens: int = 0
    calls: tuple[str, ...] = ()
    deployment: str = ""


class ExperimentChanged(Event, frozen=True, kw_only=True, tag="experiment_changed"):
    """An experiment was made, changed, started, paused or stopped: all of it as it now stands.

    by, why: who did it, an API key's id or "config" or "system", and for what reason. winner: the
    variant that a stop names. held, held_until: the variant that broke a guardrail, and until when
    its weight stays 0; a time that is over lets it back in. configured: what the configuration
    says, from which shares and weights may have moved since.
    """

    experiment: Experiment
    status: str
    by: str = ""
    why: str = ""
    source: str = "api"
    winner: str = ""
    held: str = ""
    held_until: float = 0.0
    configured: Experiment | None = None


class ExperimentDeleted(Event, frozen=True, kw_only=True, tag="experiment_deleted"):
    """A draft, or an experiment without traffic, is gone."""

    id: str
    by: str = ""
    why: str = ""


class VariantSeeded(Event, frozen=True, kw_only=True, tag="variant_seeded"):
    """A variant's policy as it begins: the frozen state from which it continues to learn.

    parameters: JSON. state: as `codec.dump` wrote it; an empty one starts without knowledge. upto:
    the number of events that it knows of.
    """

    experiment: str
    variant: str
    policy: str
    parameters: bytes
    state: bytes = b""
    upto: int = 0


class RulesChanged(Event, frozen=True, kw_only=True, tag="experiment_rules"):
    """What stands over all experiments: the kill switch and the global hold-out."""

    rules: Rules
    by: str = ""
    why: str = ""
    source: str = "api"


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


class ConfigurationChanged(Event, frozen=True, kw_only=True, tag="configuration_changed"):
    """Sections of the configuration are others from here on, as lists of plain entries.

    revision: its number. sections: those that changed, whole. by, why: as of an experiment. source:
    "api", "rollback" or "file". before: all sections as the file had them, in the first of these.
    file: by section and name a digest of what the file says; empty where it was not read.
    No entry has a secret: keys are there by their hashes, those of providers by where they are.
    """

    revision: int
    sections: dict[str, tuple[dict[str, Any], ...]]
    by: str = ""
    why: str = ""
    source: str = "api"
    before: dict[str, tuple[dict[str, Any], ...]] = {}
    file: dict[str, dict[str, str]] = {}


class Forgotten(Event, frozen=True, kw_only=True, tag="forgotten"):
    """All data of one unit must be erased; `owner` is `owner_of` it.

    What was learned from it stays in the sums of the policies, where it cannot be separated.
    """

    owner: str


class ErasureOrdered(Event, frozen=True, kw_only=True, tag="erasure_ordered"):
    """Every replica erases the records of this owner up to an offset, which a snapshot holds."""

    owner: str
    upto: int


class Erased(Event, frozen=True, kw_only=True, tag="erased"):
    """The records of this owner are gone from the log and from every snapshot."""

    owner: str


class TrimOrdered(Event, frozen=True, kw_only=True, tag="trim_ordered"):
    """Every replica deletes the records up to an offset, which snapshots hold."""

    upto: int


AnyEvent: TypeAlias = (
    ArmAdded
    | ArmUpdated
    | ArmRetired
    | PolicyChanged
    | PolicyAnnounced
    | PolicyBuilt
    | PolicyGivenUp
    | PolicyJoined
    | PolicyLeft
    | RouteChanged
    | RouteRemoved
    | Decided
    | Shadowed
    | Rewarded
    | SessionRewarded
    | SessionCredited
    | Compared
    | Judged
    | DecisionsExpired
    | Spent
    | BudgetLeased
    | BudgetReturned
    | Redirected
    | ExperimentChanged
    | ExperimentDeleted
    | VariantSeeded
    | RulesChanged
    | DriftDetected
    | PriorWeighed
    | MetricsChanged
    | MetricsWeighed
    | ConfigurationChanged
    | Forgotten
    | Erased
    | ErasureOrdered
    | TrimOrdered
)

READS = 6
"""The newest format that this version reads; 1 is that of all kinds but these."""
_OF_ROUTES = 5
"""That of events whose fields about a route an older version would overlook, and go on wrongly."""
_OF_HOLDOUTS = 6
"""The same of a route's hold-out."""
_FORMATS: dict[type[Event], int] = {
    BudgetLeased: 2,
    BudgetReturned: 2,
    PolicyAnnounced: 2,
    PolicyBuilt: 2,
    PolicyGivenUp: 2,
    MetricsChanged: 2,
    MetricsWeighed: 2,
    SessionRewarded: 2,
    SessionCredited: 2,
    Judged: 3,
    ConfigurationChanged: 3,
    ErasureOrdered: 4,
    TrimOrdered: 4,
    PolicyJoined: 4,
}


def format_of(kind: type[Event]) -> int:
    """What a replica must read, at least, to read events of this kind."""
    return _FORMATS.get(kind, 1)


def format_needed(event: AnyEvent) -> int:
    """What a replica must read, at least, to take this event in as it is meant."""
    match event:
        case ExperimentChanged() if event.experiment.route:
            return _OF_ROUTES
        case RouteChanged() if event.route.holdout_share:
            return _OF_HOLDOUTS
        case RouteChanged() if event.route.weights or event.route.latency_weight is not None:
            return _OF_ROUTES
        case _:
            return format_of(type(event))


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(AnyEvent)


def encode(event: AnyEvent) -> bytes:
    """The event as MessagePack, a map with its `kind`."""
    return _encoder.encode(event)


def decode(body: bytes) -> AnyEvent:
    """The event that `encode` made `body` from; msgspec.DecodeError when it is none."""
    try:
        event: AnyEvent = _decoder.decode(body)
    except RecursionError:
        raise msgspec.DecodeError("nested too deeply") from None
    except UnicodeDecodeError:
        raise msgspec.DecodeError("a text is not UTF-8") from None
    return event


def kind(event: AnyEvent) -> str:
    """The tag under which the event is stored."""
    return tag(type(event))


def tag(kind: type[Event]) -> str:
    """The tag under which events of this kind are stored."""
    return str(kind.__struct_config__.tag)


def owner_of(tenant: str, unit: str) -> str:
    """Whose data an event is: a hash of tenant and unit, "" where no unit is named.

    >>> owner_of("acme", "")
    ''
    >>> owner_of("acme", "u1") == owner_of("acme", "u1") != owner_of("", "u1")
    True
    """
    if not unit:
        return ""
    return blake2b(f"{len(tenant)}:{tenant}{unit}".encode(), digest_size=16).hexdigest()
