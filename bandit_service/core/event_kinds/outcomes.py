"""Events about what came back for a decision: rewards, comparisons, grades, and silence."""

from __future__ import annotations

import msgspec

from bandit_service.core.event_kinds.event import Event
from policies import ArmId


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
