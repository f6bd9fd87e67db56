"""Decisions that may still be rewarded, and the idempotency keys of what names no decision."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import msgspec

import policies
from bandit_service.core import codec
from bandit_service.core import events as ev
from bandit_service.core.decisions import Decisions
from bandit_service.core.feature import takes, takes_many
from bandit_service.core.learner import Correction
from bandit_service.core.resolved import NOTHING, Pending, Resolved

V = TypeVar("V")
SIGNALS = ("quality", "cost_usd", "latency_s", "reward")

PAID = {"cost_usd": "with_cost_usd", "latency_s": "with_latency_s"}
"""What of `Pending.learned` says with which cost and latency a weighed reward was computed."""

REMEMBERED_KEYS = 100_000
"""How many idempotency keys of self-contained outcomes are remembered, newest first."""


@dataclass
class PendingDecisions:
    """decisions: by id, oldest first. keys: with a digest of what each key was used for. asked: ids
    of decisions by the key with which they were asked for.
    """

    decisions: Decisions = field(default_factory=Decisions)
    keys: OrderedDict[str, str] = field(default_factory=OrderedDict)
    asked: dict[str, str] = field(default_factory=dict, metadata=codec.IF_ANY)

    @takes(ev.Decided)
    def _decided(self, event: ev.Decided, what: Resolved) -> None:
        if what.pending is not None:
            self.decisions[event.id] = what.pending
            if event.request_key:
                self.asked[event.request_key] = event.id

    @takes_many
    def _decided_many(self, decisions: Sequence[ev.Decided], some: Sequence[Resolved]) -> None:
        self.decisions.add([what.pending for what in some if what.pending is not None])
        for event in decisions:
            if event.request_key:
                self.asked[event.request_key] = event.id

    @takes(ev.Shadowed)
    def _shadowed(self, event: ev.Shadowed, what: Resolved) -> None:
        """What shadows would have done is kept with the decision, for the rewards that come."""
        if what.pending is not None:
            decided = what.pending.decided
            shadows = (*decided.shadows, *event.shadows)
            what.pending.decided = msgspec.structs.replace(decided, shadows=shadows)

    @takes(ev.Redirected)
    def _redirected(self, event: ev.Redirected, what: Resolved) -> None:
        """Too late where its own arm was taught: a correction has to take back what that was."""
        if what.pending is not None and not what.pending.learned:
            what.pending.redirected = event.arm
        if what.pending is not None and event.deployment:
            what.pending.deployment = event.deployment

    @takes(ev.Rewarded)
    def _rewarded(self, event: ev.Rewarded, what: Resolved) -> None:
        pending = what.pending
        if event.idempotency_key and what.subject is not None:
            self._note_key(pending, event)
        if pending is not None:
            _note_reward(pending, event, what)

    @takes(ev.Compared)
    def _compared(self, event: ev.Compared, what: Resolved) -> None:
        if event.idempotency_key and what.subject is not None:
            self._note_key(what.pending, event)
        if what.pending is not None:
            _note_pair(what.pending, event)

    @takes(ev.Spent)
    def _spent(self, event: ev.Spent, what: Resolved) -> None:
        if what.pending is not None and "cost_usd" not in what.pending.signals:
            what.pending.guessed_usd += event.usd

    @takes(ev.DecisionsExpired)
    def _expired(self, _: ev.DecisionsExpired, what: Resolved) -> None:
        if what.pending is not None:
            decided = what.pending.decided
            del self.decisions[decided.id]
            if self.asked.get(decided.request_key) == decided.id:
                del self.asked[decided.request_key]

    @takes(ev.Forgotten)
    def _forgotten(self, event: ev.Forgotten, _: Resolved) -> None:
        gone = set(self.decisions.of_owner(event.owner))
        for id in gone:
            del self.decisions[id]
        for key in [key for key, id in self.asked.items() if id in gone]:
            del self.asked[key]

    def _note_key(self, pending: Pending | None, event: ev.Rewarded | ev.Compared) -> None:
        if pending is not None:
            pending.keys = _noted(pending.keys, event.idempotency_key, event.digest)
            return
        self.keys[event.idempotency_key] = event.digest
        while len(self.keys) > REMEMBERED_KEYS:
            self.keys.popitem(last=False)


def signals_of(outcome: ev.Rewarded | policies.Rewarded) -> dict[str, float]:
    """What is known of quality, cost and latency, by name."""
    signals: dict[str, float] = {}
    if outcome.quality is not None:
        signals["quality"] = outcome.quality
    if outcome.cost_usd is not None:
        signals["cost_usd"] = outcome.cost_usd
    if outcome.latency_s is not None:
        signals["latency_s"] = outcome.latency_s
    return signals


def _note_reward(pending: Pending, event: ev.Rewarded, what: Resolved) -> None:
    pending.signals = what.after
    if event.deployment:
        pending.deployment = event.deployment
    if event.quality is not None or event.explicit:
        pending.provisional = event.provisional
    if what.known and event.cost_usd is not None:
        pending.guessed_usd = 0.0
    taught = pending.learned
    for lesson in what.lessons:
        learned = lesson.after if isinstance(lesson, Correction) else lesson
        if isinstance(learned, policies.Rewarded) and learned.reward is not None:
            pending.learned = signals_of(learned)
            pending.learned["reward"] = learned.reward
            pending.taught = pending.taught or what.number
            if event.revoked:
                pending.learned["revoked"] = 1.0
            elif event.weighed:
                pending.learned |= _weighed(taught, event, what.after)
            elif _credited(taught, event):
                pending.learned["credited"] = 1.0


def settle(pending: Pending, event: ev.Rewarded, number: int) -> None:
    """What `_note_reward` does with the first outcome of a decision, which has nothing but signals
    and their reward.
    """
    signals = signals_of(event)
    assert event.reward is not None
    pending.learned = {**signals, "reward": event.reward}
    pending.signals = dict(pending.learned) if event.explicit else signals
    pending.taught = pending.taught or number
    if event.quality is not None or event.explicit:
        pending.provisional = event.provisional


def _credited(taught: Mapping[str, float], event: ev.Rewarded) -> bool:
    """Whether the quality is a session's: this event brings it, or leaves it as it was."""
    if event.quality is not None or event.explicit:
        return bool(event.session) and not event.explicit
    return "credited" in taught


def _weighed(
    taught: Mapping[str, float], event: ev.Rewarded, after: Mapping[str, float]
) -> dict[str, float]:
    """That its quality is that of named metrics, and the cost and the latency of its reward: those
    that were known, or where only the weights have changed, those of before.
    """
    told = event.metrics or event.cost_usd is not None or event.latency_s is not None
    if event.correction and not told and "weighed" in taught:
        known = {name: taught[name] for name in PAID.values() if name in taught}
    else:
        known = {kept: after[name] for name, kept in PAID.items() if name in after}
    return {"weighed": 1.0, **known}


def _note_pair(pending: Pending, event: ev.Compared) -> None:
    arm = pending.arm
    if arm in (event.winner, event.loser):
        other = event.loser if event.winner == arm else event.winner
        result = 0.5 if event.tie else float(event.winner == arm)
        pending.compared = _noted(pending.compared, other, (result, event.provisional))


def _noted(before: dict[str, V], key: str, value: V) -> dict[str, V]:
    """The dict with this, or one of its own where there was nothing."""
    if before is NOTHING:
        return {key: value}
    before[key] = value
    return before
