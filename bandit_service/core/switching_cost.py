"""Whether a conversation stays with its arm: one objective that includes the cost of a switch.

The policy proposes with each arm's cost as if the conversation had been there. A switch costs more:
another arm pays in full for the part of the prompt that the previous arm has cached, once for all
expected later turns. A turn's share of that is subtracted from each arm's score, in quality (USD /
willingness to pay). If an arm's score is then no better than the previous arm's, its probability
goes to the previous arm. So staying is part of the distribution that is drawn from, and the
recorded propensities are true. A new conversation pays its prompt in full at any arm, which counts
in the same way.

Each arm's exploration floor is scaled by its warm / cold cost: a draw that pays a whole prompt
again is rarer by the factor by which it is more expensive, and no arm's probability becomes 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from bandit_service.core import events as ev
from bandit_service.core.arm_record import ArmRecord
from bandit_service.core.catalogue import Catalogue
from bandit_service.core.conversations import Turn
from policies import Arms, Floats, Proposal

Reasons = Mapping[str, str]
REASONS: Reasons = {
    "drawn": "drawn among several arms",
    "stayed": "its conversation's arm was drawn again",
    "switched": "another arm than its conversation's was drawn",
    "tool_loop": "its conversation's arm, since a tool's result is on its way to it",
    "signed_thinking": "drawn among the arms of the provider that signed the thinking",
    "only_one": "no other arm was eligible",
    "fixed": "an experiment, or its hold-out, names the arm",
    "direct": "the request names the arm",
    "fallback": "another arm failed or refused earlier in this request",
}
"""Why an arm answers: a closed list, with what each means."""


@dataclass(frozen=True, slots=True)
class Stay:
    """The conversation's earlier arm among the eligible ones. at: its position. warm: (K,) USD of
    the query on each arm had the conversation been there. extra: (K,) USD that a switch to it costs
    in addition. later: how many turns are expected to follow, which share the cost of a switch.
    """

    at: int
    warm: Floats
    extra: Floats
    later: float = 0.0

    @property
    def cost_usd(self) -> Floats:
        """(K,) of a turn on each arm, with its part of what a switch costs."""
        return _spread(self.warm, self.extra, self.later)

    def keep(self, proposal: Proposal, worth: float) -> Proposal:
        """The proposal over warm costs, with what a switch costs. worth: USD of one quality."""
        scores = proposal.scores - (self.cost_usd - self.warm) / worth
        better = scores > scores[self.at]
        p = np.where(better, proposal.propensities, 0.0)
        total = float(p.sum())
        p[self.at] = max(0.0, 1.0 - total)
        if total > 1.0:  # by rounding
            p /= total
        return replace(proposal, scores=scores, propensities=p)

    def scaled(self, floor: float) -> Floats:
        """(K,) floors, scaled by the part of an arm's cost that is not the switch."""
        cold = self.warm + self.extra
        share = np.divide(self.warm, cold, out=np.ones_like(cold), where=cold > 0.0)
        scaled: Floats = floor * share
        return scaled


def stay_of(turn: Turn, prompt: int, records: Sequence[ArmRecord], arms: Arms) -> Stay | None:
    """For the next turn of a conversation; None if its earlier arm is not eligible."""
    if turn.before not in arms.ids:
        return None
    lowest = _warm(turn, prompt, records, arms)
    extra: Floats = arms.cost_usd - lowest
    at = arms.ids.index(turn.before)
    extra[at] = 0.0
    lowest[at] = arms.cost_usd[at]
    return Stay(at, lowest, extra, turn.later)


def begun_at(turn: Turn, prompt: int, records: Sequence[ArmRecord], arms: Arms) -> Floats:
    """(K,) USD of a turn on each arm of a conversation that begins, over the turns to come."""
    lowest = _warm(turn, prompt, records, arms)
    return _spread(lowest, arms.cost_usd - lowest, turn.later)


def _spread(warm: Floats, extra: Floats, later: float) -> Floats:
    """(K,) USD of this turn, of a cost that the turns to come share."""
    usd: Floats = warm + extra / (1.0 + later)
    return usd


def _warm(turn: Turn, prompt: int, records: Sequence[ArmRecord], arms: Arms) -> Floats:
    """(K,) USD of the query on each arm had the conversation been there."""
    there = dict(turn.warm)
    costs = [one.expected_prompt_usd(prompt, there.get(one.spec.id, 0)) for one in records]
    lowest: Floats = np.minimum(np.array(costs), arms.cost_usd)
    return lowest


def then(catalogue: Catalogue, decided: ev.Decided) -> tuple[Arms, Stay | None]:
    """The arms of a decision with its expected cost on each, by present knowledge."""
    records = [catalogue.arms[id] for id in decided.arms]
    if not decided.prompt_tokens:
        return catalogue.priced(records, decided.tokens), None
    cached = decided.cached_tokens or (0,) * len(records)
    costs = [
        record.expected_prompt_usd(decided.prompt_tokens, tokens)
        for record, tokens in zip(records, cached, strict=True)
    ]
    arms = catalogue.costing(records, costs)
    turn = turn_of(decided)
    if turn is None:
        return arms, None
    stay = stay_of(turn, decided.prompt_tokens, records, arms)
    if stay is None:
        begun = begun_at(turn, decided.prompt_tokens, records, arms)
        arms = catalogue.costing(records, begun.tolist())
    return arms, stay


def turn_of(decided: ev.Decided) -> Turn | None:
    """Which turn a decision was about; None if it was of no conversation."""
    if not decided.conversation:
        return None
    cached, warm = (
        tuple(zip(decided.arms, tokens, strict=True)) if tokens else ()
        for tokens in (decided.cached_tokens, decided.warm_tokens)
    )
    return Turn(decided.conversation, decided.before, cached, warm, decided.later_turns)
