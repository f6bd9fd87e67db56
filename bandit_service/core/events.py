"""Everything that can happen, as versioned records. The log of these is the truth.

An event carries everything that applying it reads, so applying never embeds, recalls, reads a
clock or draws. Events are appended and never rewritten: new fields have defaults, fields are
never renamed, retyped or reused. `tests/golden/events.json` keeps a sample of every kind.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import TypeAlias

import msgspec

from bandit_service.core.arm_spec import ARM_KINDS as ARM_KINDS
from bandit_service.core.arm_spec import ArmSpec as ArmSpec
from bandit_service.core.arm_spec import Deployment as Deployment
from bandit_service.core.experiments.spec import Experiment, Rules
from bandit_service.core.metric_spec import NamedMetric
from bandit_service.core.route_spec import RouteSpec as RouteSpec
from bandit_service.core.route_spec import is_of_route as is_of_route
from bandit_service.core.route_spec import label_of_route as label_of_route
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
    """An arm is offered no more; it keeps its state and still accepts rewards."""

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
    """A replica has folded the past for the policy that was announced. epoch: its joining."""

    key: str
    replica: int
    epoch: int


class PolicyGivenUp(Event, frozen=True, kw_only=True, tag="policy_given_up"):
    """A replica could not fold the past for it, so that the one of before goes on."""

    key: str
    replica: int
    why: str


class PolicyJoined(Event, frozen=True, kw_only=True, tag="policy_joined"):
    """From here on a policy learns beside the serving one, and decides where a query names it.

    parameters: JSON. key: hashes name and parameters. state: what it knows of all events before
    this one, as `codec.dump` wrote it; empty where nothing was there to learn.
    """

    policy: str
    key: str
    parameters: bytes
    state: bytes = b""


class PolicyLeft(Event, frozen=True, kw_only=True, tag="policy_left"):
    """A policy learns beside the serving one no more; what it knew is gone."""

    policy: str


class RouteChanged(Event, frozen=True, kw_only=True, tag="route_changed"):
    """A route is there from here on, or is as this says. key: hashes policy and parameters: while
    it is the same, what the route's policy has learned stays; else it begins with nothing.
    """

    route: RouteSpec
    key: str


class RouteRemoved(Event, frozen=True, kw_only=True, tag="route_removed"):
    """A route is no more; what its policy knew is gone."""

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

    embedding: d float32, little-endian; all zeros when it could not be had. surface: what the
    text's surface tells, empty where there was no text.
    propensities: (K,) the distribution drawn from, after masks, floor and fallback.
    list_cost_usd: what the drawn arm's list price and the token estimates come to.
    expected_deviation, expected_count: of `expected_quality` its standard deviation, and the
    outcomes that it rests on by weight, as far as the policy says so; at 0 it is a prior. untried:
    positions in `arms` of those that the policy had no outcome of.
    neighbours, similarities: what was recalled, nearest first.
    fallback: empty, or which stage failed and what took its place.
    stayed: it is the arm that its conversation had before; in logs of before, where `conversation`
    is empty, all mass was put on that arm. conversation: a hash of its name; before: the arm that
    answered it last. prompt_tokens: of all that the service sends; 0 where it sends nothing.
    cached_tokens: (K,) of these, how many each arm was expected to have cached; warm_tokens: the
    same if the conversation had been at that arm. switch_usd: (K,) what a switch to each arm costs
    on top, once for `later_turns`, which are expected to follow. reason: why this arm, of
    `staying.REASONS`; empty where it was merely drawn.
    caller: id of the API key that asked, on which its cost is booked.
    duel_of: the decision whose answer the user got, where this one only stands against it.
    experiment, variant: what the unit takes part in. split: the probability with which a unit that
    takes part got this variant, 0 where an override named it or it is held. member: a hash of the
    unit. steps: what of experiments applied, in order: "outside" (the request named its arm or its
    policy), "stopped" (the kill switch) or "holdout"; or "audience", "override", "namespace",
    "share", "split", "kept" (the variant that the unit had before its weights changed), "held" (the
    control, since its variant is held), "no arm" (its arm could not serve the query, so the policy
    that serves decided).
    shadows: of logs of before; now an event of its own has them.
    excluded: offered arms that a constraint took out, and why; without those that the request did
    not allow.
    seen: up to which offset of the log the world was folded that it was made of; 0 where that is
    the one before it, as where one process appends.
    tags: words of the client's, sorted, by which decisions are found; nothing is chosen by them.
    effort_asked, effort: how much the client asks the model to reason, and how much the drawn arm's
    provider is asked; empty where nothing is said.
    route: by which it was asked for, "" by the default one.
    request_key, request_digest: a hash of the idempotency key with which it was asked for, and of
    the request; empty where there was no key.
    groups: hashes of the session and the conversation that it is a part of, as far as the client
    named them.
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
    """What shadows would have done with a decision, found out after it was answered.

    In logs of before it stands in the decision itself.
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
    """Signals came back for one decision, or for `subject` and `arm` where there was none.

    Only the signals that are new with this event are set. `reward` is the scalar reward, set
    exactly once per decision, by the event that settles it; `explicit` when the client sent it.
    A `correction` replaces what was reported before: its signals are the new values, and its
    `reward` is the new scalar reward of a decision that was settled. metrics: the user's own.
    provisional: a judge's word, in whose place any later one of the user comes.
    prior: taught beforehand, by a warm start.
    prompt_tokens, cached_tokens: of the prompt that the arm was sent, and of it what was cached
    there, None if that was not reported; set by the service where the arm answered. calls: hashes
    of the ids of the tools that it called. deployment: the one of the arm's that answered.
    revoked: signals that are taken back, as if they had never come. A policy cannot unlearn, so
    `quality` and `reward` are then what was expected at the decision, in the place of what came.
    weighed: `quality` is what the named metrics come to by the weights in force, not a word of its
    own. session: the session that this was said of, as `Decided.groups` has it; "" if it was said
    of the decision itself.
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
    """Something was said of a session or a conversation; a `Rewarded` of each of its decisions
    follows, and then `SessionCredited`.

    group: as `Decided.groups` has it. owner: whose data it is. signals: what is new, the quality
    and metrics by name. ids: the decisions that are credited, oldest first, with their arms.
    weights: how far each is to learn the session's value from what was expected of it, 1 all the
    way. credits: the same as shares that sum to 1.
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
    """Every decision of a session has learned what was said of it. number: how often that was."""

    group: str
    number: int


class Compared(Event, frozen=True, kw_only=True, tag="compared"):
    """Two arms were compared on one query. prior: taught beforehand, by a warm start.

    correction: it takes the place of what was told before of the same decision and pair.
    provisional: it is a judge's, which the user's own takes the place of.
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


class DecisionsExpired(Event, frozen=True, kw_only=True, tag="expired"):
    """These decisions are forgotten: too old, or too many were pending.

    default_reward: what each of them teaches that was never rewarded; None teaches nothing.
    """

    ids: tuple[str, ...]
    default_reward: float | None = None


class Spent(Event, frozen=True, kw_only=True, tag="spent"):
    """Money that no outcome tells of, booked on the service and on whoever is named here.

    judge: what it took to judge `decision_id`. Without a judge it is an estimate of what that
    decision's answer cost, which a cost reported later takes the place of; without a decision it is
    for something that was not routed, as embeddings.
    """

    decision_id: str = ""
    judge: str = ""
    usd: float
    tenant: str = ""
    caller: str = ""
    route: str = ""


class BudgetLeased(Event, frozen=True, kw_only=True, tag="budget_leased"):
    """What a replica may spend of an account in one window, where several share a log.

    It takes the place of what the replica had before: what it spent until here is booked, and is no
    part of it. replica: its slot. per, window: of `core.spend`. usd: what its calls under way may
    cost at most, and what it may begin more calls with.
    """

    replica: int
    account: str
    per: str
    window: str
    usd: float


class BudgetReturned(Event, frozen=True, kw_only=True, tag="budget_returned"):
    """A replica may spend nothing more of an account in this window: it gave back what it had.

    So does the keeper for one that was closed long ago.
    """

    replica: int
    account: str
    per: str
    window: str


class Redirected(Event, frozen=True, kw_only=True, tag="redirected"):
    """Another model answered than the arm's: what comes of the decision says nothing of that arm.

    model: as the provider names it. arm: the one that has this model, which gets what is reported;
    "" if none has. prompt_tokens: of the prompt that was sent. calls: as of `Rewarded`.
    """

    decision_id: str
    model: str
    arm: ArmId = ArmId("")
    prompt_tokens: int = 0
    calls: tuple[str, ...] = ()


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
    """A variant's policy as it begins: the frozen state that it goes on learning from.

    parameters: JSON. state: as `codec.dump` wrote it; empty begins with nothing learned. upto: the
    number of events that it knows of.
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
    """A detector found that what came of an arm, or the queries, is no longer as it was.

    arm: "" for the queries. detector: "adwin" or "page_hinkley". direction: "up" or "down".
    before, after: the means on either side of the likeliest moment of the change; of residuals, or
    of distances in units of two standard deviations. seen: how many values they are of. begun: the
    number of the event with which the change began.
    keep: the share of what was learned of the arm that stays, of policies that do not watch their
    arms themselves; 1 forgets nothing. explore: the probability that the arm keeps at least in its
    next `decisions`; every arm where none is named.
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


class Forgotten(Event, frozen=True, kw_only=True, tag="forgotten"):
    """All that is kept of one unit is to be erased; `owner` is `owner_of` it.

    What was learned of it stays in the sums of the policies, where it cannot be told apart.
    """

    owner: str


class Erased(Event, frozen=True, kw_only=True, tag="erased"):
    """The records of this owner are gone from the log and from every snapshot."""

    owner: str


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
    | Forgotten
    | Erased
)

READS = 2
"""The newest format that this version reads; 1 is that of all kinds but these."""
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
}


def format_of(kind: type[Event]) -> int:
    """What a replica must read, at least, to read events of this kind."""
    return _FORMATS.get(kind, 1)


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
