"""In words: whether routing is healthy, and why an arm has the traffic it has. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bandit_service.core.arm_kinds import is_named_only, is_routed
from bandit_service.core.events import ArmSpec, Decided, DriftDetected
from bandit_service.statistics.moments import Moments, moved
from bandit_service.telemetry.learning import ArmSeen
from policies import ArmId, OwnAlarms

LOOKED_AT = 200
ENOUGH_TO_TELL, _LATELY_S = 30, 600.0
_WORDS = {
    "quality": ("quality", "{:.2f}"),
    "cost_usd": ("cost", "${:.2g}"),
    "latency_s": ("latency", "{:.2f} s"),
}
_FEW, _FALLBACKS, _OFTEN, _SPENT = 20, 0.05, 0.5, 0.9
_FAILED, _FAILED_SHARE = 3, 0.01
_RELEARNED = 100
_WAYS = {"up": "rose", "down": "fell"}


@dataclass(slots=True)
class ArmExposure:
    """How the newest decisions treated one arm.

    offered: decisions in which it was eligible. propensity: its mean chance in those. gap: mean of
    the best score less its own where the usual policy decided, None where it was in none of those:
    scores of several policies have no common unit, and those of `fixed` say nothing. excluded:
    reasons that left it out, with their counts. untried: the usual policy had no outcome of it at
    the newest of those.
    """

    decisions: int = 0
    offered: int = 0
    propensity: float = 0.0
    gap: float | None = None
    excluded: Counter[str] = field(default_factory=Counter)
    untried: bool = False


def exposures(decisions: Sequence[Decided]) -> dict[ArmId, ArmExposure]:
    """The exposure of each arm in these decisions, which are newest first."""
    found: dict[ArmId, ArmExposure] = {}
    alike: dict[tuple[ArmId, ...], list[Decided]] = {}
    for event in decisions:
        alike.setdefault(event.arms, []).append(event)
        for id, why in event.excluded.items():
            found.setdefault(id, ArmExposure()).excluded[_kind(why)] += 1
    policies = Counter((e.policy, e.key) for e in decisions if e.policy != "fixed")
    usual = policies.most_common(1)[0][0] if policies else ("", "")
    gaps: dict[ArmId, list[float]] = {}
    for ids, events in alike.items():
        p = np.array([event.propensities for event in events]).sum(axis=0)
        scores = np.array([e.scores for e in events if e.scores and (e.policy, e.key) == usual])
        for k, id in enumerate(ids):
            one = found.setdefault(id, ArmExposure())
            one.offered += len(events)
            one.propensity += float(p[k])
            if len(scores):
                gaps.setdefault(id, []).extend((scores.max(axis=1) - scores[:, k]).tolist())
    for id in _untried([each for each in decisions if (each.policy, each.key) == usual]):
        found[id].untried = True
    for id, one in found.items():
        one.decisions = len(decisions)
        if one.offered:
            one.propensity /= one.offered
        if gaps.get(id):
            one.gap = sum(gaps[id]) / len(gaps[id])
    return found


def _untried(decisions: Sequence[Decided]) -> set[ArmId]:
    """The arms without an outcome at the newest of these decisions, newest first, that had them."""
    offered: dict[tuple[ArmId, ...], Decided] = {}
    for event in decisions:
        offered.setdefault(event.arms, event)
    newest: dict[ArmId, bool] = {}
    for event in offered.values():
        for k, id in enumerate(event.arms):
            newest.setdefault(id, k in event.untried)
    return {id for id, untried in newest.items() if untried}


def unchosen(spec: ArmSpec) -> str:
    """Why no policy chooses an arm; "" if one may."""
    if is_named_only(spec):
        return "Not routed: only requests that name it get it."
    return "" if is_routed(spec) else f"Of kind {spec.kind}: no request for chat gets it."


def why(
    one: ArmExposure | None, retired: bool, upstream: str, untried: bool = False, apart: str = ""
) -> str:
    """A sentence on the traffic of one arm. upstream: closed, open, half open, "" for none.

    untried: nothing came of it, so that its score is a prior. apart: why no policy chooses it.
    """
    if retired:
        return "Retired: no longer offered; what was learned is kept."
    if upstream == "open":
        return "Masked: its calls fail. It is probed again after a pause."
    if upstream == "half open":
        return "Its calls failed; the next one is a probe."
    if apart:
        return apart
    prior = "Untried: its score is a prior, for no outcome came of it yet. " if untried else ""
    if one is None or one.decisions < _FEW:
        return f"{prior}Not enough data: fewer than 20 recent decisions."
    out = one.decisions - one.offered
    said = ""
    if out and one.excluded:
        reason, _ = one.excluded.most_common(1)[0]
        said = f"Excluded from {_share(out, one.decisions)} of the recent queries: {reason}. "
    elif out:
        said = f"Not allowed by {_share(out, one.decisions)} of the recent queries. "
    if not one.offered:
        return prior + (said or "Eligible for no recent query.")
    return (
        prior
        + said
        + (
            f"Eligible for {_share(one.offered, one.decisions)}, mean probability "
            f"{_percent(one.propensity)}{_scored(one)}."
        )
    )


def changes(seen: ArmSeen, now: float) -> str:
    """What changed about an arm in ten minutes, "" if nothing certainly did.

    The oldest values of that time are held against the newest, ENOUGH_TO_TELL or more of each.
    """
    steps = [values for ts, values in seen.lately if ts > now - _LATELY_S]
    said = []
    for name, (word, unit) in _WORDS.items():
        of = [values[name] for values in steps if name in values]
        before, after = _merged(of), _merged(of[::-1])
        if before[0] + after[0] > len(of) or not moved(before[1], after[1]):
            continue
        way = "rose" if after[1].mean > before[1].mean else "fell"
        first, last = (unit.format(each.mean) for _, each in (before, after))
        said.append(f"its {word} {way} from {first} to {last}")
    return f"Within ten minutes {' and '.join(said)}. " if said else ""


def _merged(steps: Sequence[Moments]) -> tuple[int, Moments]:
    """So many steps from the first on that there is enough to tell by, and their moments."""
    whole = Moments()
    for i, step in enumerate(steps):
        whole.merge(step)
        if whole.n >= ENOUGH_TO_TELL:
            return i + 1, whole
    return len(steps) + 1, whole


def _scored(one: ArmExposure) -> str:
    if one.gap is None:
        return ""
    if one.gap < 0.0005:
        return ", with the best score"
    return f"; its score is {one.gap:.3f} below the best on average"


def drifted(alarms: Sequence[DriftDetected]) -> list[str]:
    """The newest alarm of each arm, and that of the queries, in words."""
    newest = {alarm.arm: alarm for alarm in alarms}
    return [
        f"Drift: {f'the residual of {arm}' if arm else 'the distance of queries from the past'} "
        f"{_WAYS[alarm.direction]} from {alarm.before:.2f} to {alarm.after:.2f}."
        for arm, alarm in newest.items()
    ]


def relearned(alarms: Mapping[ArmId, OwnAlarms]) -> dict[ArmId, str]:
    """In words, the arms that the policy found changed itself and has few outcomes of since."""
    return {
        arm: f"{arm} changed: the policy is relearning it, with {own.since} outcomes since."
        for arm, own in alarms.items()
        if own.since < _RELEARNED
    }


def nearly_spent(budgets: Sequence[Mapping[str, Any]]) -> list[str]:
    """In words, the budgets with a tenth or less left; reservations count as spent."""
    said = []
    for row in budgets:
        share = (row["spent_usd"] + row["held_usd"]) / row["usd"]
        if share >= _SPENT:
            of = f"{row['account'].replace(':', ' ')}, {row['usd']:g} USD per {row['per']}"
            said.append(f"{_percent(share)} of a budget is spent ({of}).")
    return said


@dataclass(frozen=True, slots=True)
class HealthSignals:
    """Inputs of the health verdict. decisions, rewards: of the last ten minutes.

    failed: of the `answered` newest requests of the same time, those that were answered with an
    error of the service or a provider. degraded: why nothing can be written, "" if it can. masked:
    arms whose calls fail. noticed: in words, what else needs attention.
    """

    offered: int
    decisions: int
    rewards: int
    fallbacks: int
    looked_at: int
    masked: Sequence[str] = ()
    noticed: Sequence[str] = ()
    degraded: str = ""
    failed: int = 0
    answered: int = 0


def state(signs: HealthSignals) -> tuple[str, list[str]]:
    """ "good", "idle", "warn" or "bad", and the reasons, the gravest first."""
    bad, warn = [], []
    if signs.degraded:
        bad.append(f"The log cannot be written: {signs.degraded}. Rewards are refused until then.")
    if not signs.offered:
        bad.append("There is no arm to choose.")
    if signs.looked_at >= _FEW and signs.fallbacks > _FALLBACKS * signs.looked_at:
        share = _share(signs.fallbacks, signs.looked_at)
        bad.append(f"{share} of the recent decisions fell back: a stage before the draw failed.")
    if signs.failed >= _FAILED and signs.failed > _FAILED_SHARE * signs.answered:
        share = _share(signs.failed, signs.answered)
        bad.append(f"{share} of the newest answers were errors of the service or a provider.")
    warn += [f"{arm} is masked: its calls fail." for arm in signs.masked]
    warn += signs.noticed
    if signs.decisions >= 100 and not signs.rewards:
        warn.append(f"{signs.decisions} decisions in ten minutes and no reward: nothing is learnt.")
    if bad or warn:
        return ("bad" if bad else "warn"), bad + warn
    if not signs.decisions:
        return "idle", ["No decision in the last ten minutes."]
    return "good", ["Routing and learning."]


def _kind(why: str) -> str:
    """The reason without its numbers, so that alike ones are counted together."""
    head = why.split(" < ")[0]
    if head.startswith(("max_cost_usd", "max_latency_s", "context window")):
        return head.rsplit(" ", 1)[0]
    return why


def _share(part: int, whole: int) -> str:
    return _percent(part / whole)


def _percent(share: float) -> str:
    return f"{100.0 * share:.0f} %"
