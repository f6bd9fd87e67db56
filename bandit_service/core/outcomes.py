"""From what a client reports to the event that is appended, or the reason why not. Pure.

Idempotence: the key of a reward is (decision id, signal) or the client's idempotency key. Sent
twice it is applied once and answered alike; a different later value is a conflict, unless it is
sent as a correction, which takes the earlier value's place.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b

import msgspec

from bandit_service.core import events as ev
from bandit_service.core.errors import Conflict, Refused, Unknown
from bandit_service.core.experiments.spec import Metric
from bandit_service.core.fields import MAX_COST_USD, MAX_LATENCY_S
from bandit_service.core.metric_spec import LONGEST_METRIC, MAX_VALUE
from bandit_service.core.named_metrics import NamedMetrics
from bandit_service.core.pending import PAID, SIGNALS
from bandit_service.core.resolved import Pending
from bandit_service.core.world import World
from policies import ArmId

VOTE = "vote"
"""The metric of a user's vote, in addition to its quality."""
MAX_METRICS = 8
WORTH = frozenset(("quality", "reward"))
"""The signals that say what an answer was worth."""
UNNAMED = NamedMetrics()
"""Where no metric is named."""


@dataclass(frozen=True, slots=True)
class RewardRule:
    """reward = quality − cost_usd / willingness_to_pay − latency_weight · latency_s, within ±1.

    It is cut to [−1, 1], the range that the policies' theory assumes, so that one absurd bill
    cannot outweigh a thousand answers.

    willingness_to_pay: USD that one unit of quality is worth, > 0; a query may bring its own.
    latency_weight: quality that one second of waiting costs, >= 0.
    """

    willingness_to_pay: float = 0.10
    latency_weight: float = 0.0

    def scalar(
        self, quality: float, cost_usd: float, latency_s: float, willingness_to_pay: float
    ) -> float:
        """The reward of one answer.

        >>> RewardRule().scalar(0.9, 0.01, 2.0, willingness_to_pay=0.10)
        0.8
        """
        value = quality - cost_usd / willingness_to_pay - self.latency_weight * latency_s
        return min(1.0, max(-1.0, value))


def rule_of(world: World, route: str, rule: RewardRule) -> RewardRule:
    """The rule for decisions of a route, "" being the default one. rule: the service's."""
    spec = world.routes.specs.get(route)
    if spec is None or spec.latency_weight is None:
        return rule
    return replace(rule, latency_weight=spec.latency_weight)


class Signals(msgspec.Struct, frozen=True):
    """What a client says about one answer. None is "not said"; at least one must be said."""

    quality: float | None = None
    cost_usd: float | None = None
    latency_s: float | None = None
    reward: float | None = None
    metrics: Mapping[str, float] = {}

    def said(self) -> dict[str, float]:
        """The signals that were sent, by name; the user's own metrics among them."""
        said = {name: each for name in SIGNALS if (each := getattr(self, name)) is not None}
        said.update(self.metrics)
        return said


RANGES = {
    "quality": (0.0, 1.0),
    "cost_usd": (0.0, MAX_COST_USD),
    "latency_s": (0.0, MAX_LATENCY_S),
    "reward": (-1.0, 1.0),
}
"""What each signal may be, from and to."""


def check_signals(signals: Signals) -> None:
    """Raise Refused naming the first signal that is not a number in its range."""
    said = signals.said()
    if not said:
        raise Refused(f"nothing to learn: send at least one of {', '.join(SIGNALS)}, metrics")
    if len(signals.metrics) > MAX_METRICS:
        raise Refused(
            f"metrics: at most {MAX_METRICS}, got {len(signals.metrics)}", param="metrics"
        )
    for name in signals.metrics:
        if not is_metric_name(name):
            raise Refused(
                f"metrics: {name!r} is no name for one: use letters, digits and _, and none of "
                f"{', '.join(SIGNALS)}",
                param="metrics",
            )
    for name, value in said.items():
        low, high = RANGES.get(name, (-MAX_VALUE, MAX_VALUE))
        if not math.isfinite(value) or not low <= value <= high:
            raise Refused(
                f"{name}: must be a number from {low:g} to {high:g}, got {value:g}", param=name
            )


def is_metric_name(name: str) -> bool:
    """Whether a metric may be called so."""
    return name.isidentifier() and len(name) <= LONGEST_METRIC and name not in SIGNALS


class Served(msgspec.Struct, frozen=True, gc=False):
    """The service's observations of an answer, in addition to signals: as of `events.Rewarded`."""

    prompt_tokens: int = 0
    cached_tokens: int | None = None
    calls: tuple[str, ...] = ()
    deployment: str = ""


class Reported(msgspec.Struct, frozen=True):
    """A reward as it was sent, and the digest by which a resend is recognised.

    provisional: it is a judge's, which the user's own takes the place of.
    """

    signals: Signals
    idempotency_key: str = ""
    digest: str = ""
    correction: bool = False
    provisional: bool = False
    served: Served = Served()


def namespaced_key(tenant: str, key: str) -> str:
    """A tenant's idempotency key as it is kept, so that no other tenant's is the same."""
    return digest("key", tenant, key) if tenant and key else key


def digest(*parts: object) -> str:
    """A short hash of what an idempotency key stands for."""
    return blake2b(msgspec.msgpack.encode(parts), digest_size=12).hexdigest()


def decision_rewarded(
    pending: Pending,
    decision_id: str,
    report: Reported,
    rule: RewardRule,
    ts: float,
    metrics: Sequence[Metric] = (),
    named: NamedMetrics = UNNAMED,
) -> ev.Rewarded | None:
    """The event for signals of a pending decision; None when all of it is already there.

    A user's quality or reward takes the place of a judge's as a correction would, of what named
    metrics come to, and of a session's. A judge's takes the place of what only implicit signals
    come to. Where there is neither, the quality is what the named metrics come to.

    metrics: what the decision's experiment measures, whose ranges hold. named: the named metrics.

    Raises Conflict when a signal, or the idempotency key, stands for something else already.
    """
    said = report.signals.said()
    if resent(pending.keys, report.idempotency_key, report.digest):
        return None
    check_measured(said, metrics)
    named.check(said)
    worth = WORTH & said.keys()
    supersedes = bool(worth) and _gives_way(pending, report, named)
    new = _new(pending, said, WORTH if supersedes else frozenset(), correction=report.correction)
    if not new:
        return None
    weighed = None if worth or not named.weighs(new) else _weighed(pending, new, named)
    if weighed is not None:
        new["quality"] = weighed
    correction = (
        report.correction
        or supersedes
        or (pending.settled and weighed is not None)
        or (pending.revoked and bool(WORTH & new.keys()))
    )
    for name in ("reward", "quality"):
        if pending.settled and name in new and not correction:
            raise Conflict(
                f"{name}: this decision was already rewarded; "
                "send it with correction: true to replace that",
                param=name,
            )
    known = {**pending.signals, **new}
    settles = (pending.settled and correction and bool(WORTH & known.keys())) or (
        not pending.settled and bool(WORTH & new.keys())
    )
    return ev.Rewarded(
        ts=ts,
        decision_id=decision_id,
        quality=new.get("quality"),
        cost_usd=new.get("cost_usd"),
        latency_s=new.get("latency_s"),
        reward=_scalar(known, pending.decided, rule) if settles else None,
        explicit="reward" in new,
        idempotency_key=report.idempotency_key,
        digest=report.digest,
        correction=correction,
        provisional=report.provisional,
        metrics={name: value for name, value in new.items() if name not in SIGNALS},
        prompt_tokens=report.served.prompt_tokens,
        cached_tokens=report.served.cached_tokens,
        calls=report.served.calls,
        deployment=report.served.deployment,
        weighed=settles and not worth and (weighed is not None or pending.weighed),
    )


def _gives_way(pending: Pending, report: Reported, named: NamedMetrics) -> bool:
    """Whether the quality that is there is weaker than the one that is reported."""
    if report.provisional:  # a judge's grade says more than what a client did, and only than that
        return pending.weighed and not named.said(pending.signals)
    return not pending.own


def check_measured(said: Mapping[str, float], metrics: Sequence[Metric]) -> None:
    """Refused for a value out of the range in which an experiment measures it."""
    for one in metrics:
        if one.name in said and not one.low <= said[one.name] <= one.high:
            raise Refused(
                f"metrics: {one.name} must be from {one.low:g} to {one.high:g}, got "
                f"{said[one.name]:g}",
                param="metrics",
            )


def _new(
    pending: Pending, said: Mapping[str, float], mine: frozenset[str], *, correction: bool
) -> dict[str, float]:
    """The new part of a report. mine: the signals that the report replaces, even if the value is
    the same: now it is the user's. Raises Conflict for a signal with another value.
    """
    new = {}
    for name, value in said.items():
        before = pending.signals.get(name)
        if before is None or name in mine or (correction and before != value):
            new[name] = value
        elif before != value:
            raise Conflict(
                f"{name}: already reported as {before:g}, now {value:g}; "
                "send it with correction: true to replace it",
                param=name,
            )
    return new


def _weighed(pending: Pending, new: Mapping[str, float], named: NamedMetrics) -> float | None:
    """The quality by the named metrics, if it differs from the present one; None also if the
    quality is the user's own.
    """
    graded = pending.signals.keys() & WORTH
    if graded and not pending.provisional and not pending.weighed:
        return None
    signals = {**pending.signals, **new}
    if pending.provisional and not pending.weighed and not named.said(signals):
        return None  # a judge's grade says more than what a client did
    quality = named.quality(signals, likely_quality(pending))
    same = pending.weighed and pending.signals.get("quality") == quality
    return None if same else quality


def likely_quality(pending: Pending) -> float:
    """The quality that was expected at the decision; 1/2 where the policy expected none."""
    expected = pending.decided.expected_quality
    return 0.5 if expected is None else min(1.0, max(0.0, expected))


def decision_reweighed(
    pending: Pending, decision_id: str, rule: RewardRule, ts: float, named: NamedMetrics
) -> ev.Rewarded | None:
    """The event that corrects a pending decision by the present weights; None if it needs none.

    It uses the cost and the latency of the earlier reward, so that weights that change and change
    back leave the learned state as it was.
    """
    quality = _weighed(pending, {}, named)
    if quality is None:
        gone = pending.weighed and named.quality(pending.signals, 0.5) is None
        return _revoked(pending, decision_id, rule, ts) if gone else None
    taught, names = (pending.signals, {name: name for name in PAID})
    if pending.weighed:
        taught, names = pending.learned, PAID
    known = {name: taught[kept] for name, kept in names.items() if kept in taught}
    return ev.Rewarded(
        ts=ts,
        decision_id=decision_id,
        quality=quality,
        reward=_scalar({**known, "quality": quality}, pending.decided, rule),
        correction=pending.settled,
        weighed=True,
    )


def decision_voted(
    pending: Pending,
    decision_id: str,
    vote: float | None,
    rule: RewardRule,
    ts: float,
    named: NamedMetrics = UNNAMED,
) -> ev.Rewarded | None:
    """The event for a user's vote on a pending decision; None if nothing changes.

    vote: its quality, or the value of the named metric `vote` if there is one; None withdraws an
    earlier vote. The last one counts, and replaces a judge's grade. Raises Conflict if the quality
    has another source.
    """
    before = pending.signals.get(VOTE)
    graded = "reward" if "reward" in pending.signals else "quality"
    own = graded in pending.signals and pending.own
    if before is None and own:
        raise Conflict(f"vote: {graded} was already reported for this answer from another source")
    if vote is None:
        return None if before is None else _revoked(pending, decision_id, rule, ts, VOTE)
    quality = None if named.weighs((VOTE,)) else vote
    report = Reported(Signals(quality=quality, metrics={VOTE: vote}), correction=before is not None)
    return decision_rewarded(pending, decision_id, report, rule, ts, named=named)


def _revoked(
    pending: Pending, decision_id: str, rule: RewardRule, ts: float, *also: str
) -> ev.Rewarded:
    """A grade is withdrawn: the policies get the quality that they expected instead. also: metrics
    that are withdrawn with it.
    """
    decided, worth = pending.decided, ("quality", "reward", *also)
    quality = likely_quality(pending)
    left = {name: one for name, one in pending.signals.items() if name not in worth}
    return ev.Rewarded(
        ts=ts,
        decision_id=decision_id,
        quality=quality,
        reward=_scalar({**left, "quality": quality}, decided, rule),
        correction=True,
        revoked=tuple(name for name in worth if name in pending.signals),
    )


def subject_rewarded(
    world: World,
    subject: ev.Subject,
    arm: ArmId,
    report: Reported,
    rule: RewardRule,
    ts: float,
    prior: bool = False,
) -> ev.Rewarded | None:
    """The event for a self-contained reward, which needs no earlier decision; None if resent.

    prior: it is taught beforehand, by a warm start.
    """
    record = world.arms.get(arm)
    if record is None:
        raise Unknown(f"arm: no arm {arm!r}; GET /v1/arms lists them", param="arm")
    if resent(world.pending.keys, report.idempotency_key, report.digest):
        return None
    said = report.signals.said()
    if report.signals.metrics:
        raise Refused("metrics: belong to a decision; send decision_id", param="metrics")
    reward = None
    if "quality" in said or "reward" in said:
        expected = record.expected_cost_usd(subject.tokens)
        known = {"cost_usd": expected, **said}
        reward = _explicit_or(known, subject.willingness_to_pay, rule)
    return ev.Rewarded(
        ts=ts,
        subject=subject,
        arm=arm,
        quality=said.get("quality"),
        cost_usd=said.get("cost_usd"),
        latency_s=said.get("latency_s"),
        reward=reward,
        explicit="reward" in said,
        idempotency_key=report.idempotency_key,
        digest=report.digest,
        prior=prior,
    )


def check_arms(world: World, winner: ArmId, loser: ArmId) -> None:
    """Raise when a compared arm is unknown, or both are the same."""
    for param, arm in (("winner", winner), ("loser", loser)):
        if arm not in world.arms:
            raise Unknown(f"{param}: no arm {arm!r}; GET /v1/arms lists them", param=param)
    if winner == loser:
        raise Refused(f"loser: an arm cannot be compared with itself, got {loser!r}", param="loser")


def comparison_resent(world: World, key: str, digested: str) -> bool:
    """Whether this very comparison of a query was sent before under its idempotency key."""
    return resent(world.pending.keys, key, digested)


def decision_compared(pending: Pending, event: ev.Compared) -> ev.Compared | None:
    """The event for a comparison of a pending decision; None if it is known already.

    Its key is the decision and the pair: another result is a conflict, unless it is sent as a
    correction, or is a user's that replaces a judge's. Raises Refused if the decision's arm is
    neither of the two.
    """
    if resent(pending.keys, event.idempotency_key, event.digest):
        return None
    arm, pair = pending.arm, (event.winner, event.loser)
    if arm not in pair:
        raise Refused(
            f"winner: the decision's arm, {arm!r}, must be one of the two that are compared, got "
            f"{event.winner!r} and {event.loser!r}; without decision_id any two may be",
            param="winner",
        )
    before = pending.compared.get(event.loser if event.winner == arm else event.winner)
    if before is None:
        return msgspec.structs.replace(event, correction=False)
    told, judged = before
    result = 0.5 if event.tie else float(event.winner == arm)
    supersedes = judged and not event.provisional
    if told == result and not supersedes:
        return None
    if event.provisional and not judged:
        return None  # the user has spoken
    if told != result and not supersedes and not event.correction:
        said = {1.0: f"{arm!r} won", 0.5: "a tie", 0.0: f"{arm!r} lost"}[told]
        raise Conflict(
            f"winner: of this decision and these two arms {said} was already reported; send it "
            "with correction: true to replace it",
            param="winner",
        )
    return msgspec.structs.replace(event, correction=told != result)


def resent(keys: Mapping[str, str], key: str, digested: str) -> bool:
    """Whether an idempotency key was used for this very thing; Conflict if for another."""
    before = keys.get(key) if key else None
    if before is None:
        return False
    if before != digested:
        raise Conflict("idempotency_key: already used for something else", param="idempotency_key")
    return True


def _scalar(known: dict[str, float], decided: ev.Decided, rule: RewardRule) -> float:
    known = {"cost_usd": decided.expected_cost_usd, **known}
    return _explicit_or(known, decided.willingness_to_pay, rule)


def _explicit_or(known: dict[str, float], willingness_to_pay: float, rule: RewardRule) -> float:
    if "reward" in known:
        return known["reward"]
    return rule.scalar(
        known["quality"], known["cost_usd"], known.get("latency_s", 0.0), willingness_to_pay
    )
