"""Turns a report about a session into its event and those of its decisions, or an error. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec

from bandit_service.core import events as ev
from bandit_service.core.errors import Conflict, Unknown
from bandit_service.core.metric_spec import NamedMetric
from bandit_service.core.outcomes import (
    WORTH,
    Reported,
    RewardRule,
    Signals,
    check_measured,
    decision_rewarded,
    likely_quality,
    resent,
    rule_of,
)
from bandit_service.core.resolved import Pending
from bandit_service.core.sessions import MAX_CREDITED, Told, credited, shares_of, weights_of
from bandit_service.core.world import World


@dataclass(frozen=True, slots=True)
class CreditRule:
    """How a session's value is credited to its decisions: of `sessions.CREDITS`."""

    credit: str = "equal"
    discount: float = 0.9


def session_rewarded(
    world: World, group: str, name: str, report: Reported, rule: CreditRule, ts: float
) -> ev.SessionRewarded | None:
    """The event for a session's reward; None if all of it is known.

    name: the client's name of it, for messages. Raises Unknown if none of its decisions may be
    rewarded, and Conflict for another value than before, unless it is a correction.
    """
    ids = world.sessions.members.get(group, [])[-MAX_CREDITED:]
    if not ids:
        raise Unknown(
            f"{name}; none of its decisions was made here, or may still be rewarded",
            param=name.partition(":")[0],
        )
    pending = world.pending.decisions  # in the log a decision may stand behind one made after it
    ids.sort(key=lambda id: pending[id].decided.ts)
    told = world.sessions.told.get(group, Told())
    if resent(told.keys, report.idempotency_key, report.digest):
        return None
    _check_experiments(world, ids, report.signals.said())
    new = {}
    for signal, value in report.signals.said().items():
        if spec := world.named.specs.get(signal):
            spec.check(value)
        before = told.signals.get(signal)
        if before is None or (report.correction and before != value):
            new[signal] = value
        elif before != value:
            raise Conflict(
                f"{signal}: already reported of this session as {before:g}, now {value:g}; "
                "send it with correction: true to replace it",
                param=signal,
            )
    if not new:
        return None
    weights = weights_of(len(ids), rule.credit, rule.discount)
    shares = shares_of(weights)
    kept = [i for i, share in enumerate(shares) if share > 0.0]
    return ev.SessionRewarded(
        ts=ts,
        group=group,
        owner=world.sessions.owners.get(ids[-1], ""),
        signals=new,
        ids=tuple(ids[i] for i in kept),
        arms=tuple(pending[ids[i]].arm for i in kept),
        weights=tuple(weights[i] for i in kept),
        credits=tuple(shares[i] for i in kept),
        idempotency_key=report.idempotency_key,
        digest=report.digest,
    )


def _check_experiments(world: World, ids: Sequence[str], said: Mapping[str, float]) -> None:
    """Refused for a value out of the range that the experiment of a decision measures it in."""
    experiments = {world.pending.decisions[id].decided.experiment for id in ids}
    for experiment in sorted(experiments):
        check_measured(said, world.experiments.metrics_of(experiment))


def session_credited(
    world: World,
    group: str,
    decision_id: str,
    rule: RewardRule,
    ts: float,
) -> ev.Rewarded | None:
    """The event by which one decision learns its session's reward; None if it has.

    The decision's own feedback takes precedence, except a judge's grade.
    """
    told = world.sessions.told.get(group)
    pending = world.pending.decisions.get(decision_id)
    if told is None or pending is None or decision_id not in told.weights:
        return None
    specs = world.named.specs
    now = _values(told.signals, told.weights[decision_id], pending, specs)
    before = {}
    if decision_id in told.weights_before:
        before = _values(told.before, told.weights_before[decision_id], pending, specs)
    there = pending.signals
    own = WORTH & there.keys() and not (pending.provisional or pending.weighed)
    said = {}
    for name, value in now.items():
        mine = name in before and there.get(name) == before[name]
        mine = mine and (name != "quality" or pending.credited)
        taken = bool(own) if name == "quality" else name in there
        if (mine or not taken) and there.get(name) != value:
            said[name] = value
    if not said:
        return None
    correction = any(name in there for name in said) and not _judged(pending, said)
    signals = Signals(said.pop("quality", None), metrics=said)
    key = "" if pending.revoked else f"{group}/{told.number}"  # the withdrawn reward had it
    report = Reported(signals, key, group, correction)
    metrics = world.experiments.metrics_of(pending.decided.experiment)
    route = pending.decided.route
    rule, named = rule_of(world, route, rule), world.named.of(route)
    event = decision_rewarded(pending, decision_id, report, rule, ts, metrics, named)
    return None if event is None else msgspec.structs.replace(event, session=group)


def _judged(pending: Pending, said: Mapping[str, float]) -> bool:
    """Whether the only thing that is replaced is no word of the user's."""
    replaced = said.keys() & pending.signals.keys()
    return replaced <= {"quality"} and (pending.provisional or pending.weighed)


def _values(
    signals: Mapping[str, float],
    weight: float,
    pending: Pending,
    specs: Mapping[str, NamedMetric],
) -> dict[str, float]:
    """What a decision learns of a session's signals."""
    likely = likely_quality(pending)
    found = {}
    for name, value in signals.items():
        spec = specs.get(name)
        if spec is not None:
            found[name] = credited(value, weight, spec.value(likely), spec.low, spec.high)
        else:
            found[name] = credited(value, weight, likely) if name == "quality" else value
    return found
