"""Events about decisions: the arm drawn for a query, and what shadows would have drawn."""

from __future__ import annotations

import msgspec

from bandit_service.core.event_kinds.event import Event
from policies import ArmId


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

    @property
    def whole(self) -> bool:
        """Whether every arm has a propensity, and one of them was drawn; else a bug made it."""
        return 0 <= self.drawn < len(self.arms) == len(self.propensities)

    @property
    def by_chance(self) -> bool:
        """Whether chance had a say; of a variant with one arm propensities say nothing."""
        return not (self.experiment and self.policy == "fixed")


class Shadowed(Event, frozen=True, kw_only=True, tag="shadowed"):
    """The decisions of shadows for a decision, computed after it was answered.

    In older logs they are in the decision itself.
    """

    decision_id: str
    shadows: tuple[Shadow, ...]
