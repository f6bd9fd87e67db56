"""What is expected of an arm, and the parts of its score, in numbers. Pure."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import UNSET, UnsetType

from bandit_service.core.decide import Weighed
from bandit_service.core.display import rounded
from bandit_service.core.fields import doc
from policies import Floats

_Z95 = 1.959963984540054
COUNT = "Outcomes behind it, by weight; a comparison counts as a part of one."
UNTRIED = "True if no outcome of the arm has come, so that no quality is known."


class Belief(msgspec.Struct, kw_only=True):
    """The quality that is expected of an arm."""

    value: Annotated[
        float | None, doc("Expected quality; null for an untried arm or if there is none.", 0.71)
    ]
    n: Annotated[float | None, doc(COUNT + " Null if the policy keeps none.", 12.0, minimum=0)]
    untried: Annotated[bool | UnsetType, doc(UNTRIED, True, const=True)] = UNSET
    prior: Annotated[
        float | UnsetType, doc("What the policy assumes of any arm that has no outcome yet.", 0.5)
    ] = UNSET
    low: Annotated[
        float | UnsetType, doc("Lower end of the 95 % interval, cut to [0, 1].", 0.58)
    ] = UNSET
    high: Annotated[
        float | UnsetType, doc("Upper end of the 95 % interval, cut to [0, 1].", 0.84)
    ] = UNSET


class WeighedArm(msgspec.Struct, kw_only=True):
    """An arm that could be drawn: its probability, its score, and what is expected of it."""

    id: Annotated[str, doc("The arm.", "gpt-5-mini")]
    propensity: Annotated[float, doc("Its probability.", 0.92)]
    score: Annotated[float, doc("value + bonus − cost, where those are given.", 0.83)]
    value: Annotated[float | UnsetType, doc("The quality that the policy assumes.", 0.71)] = UNSET
    bonus: Annotated[
        float | UnsetType, doc("What is added to explore the arm, in quality.", 0.2)
    ] = UNSET
    cost: Annotated[
        float | UnsetType,
        doc(
            "Cost / willingness_to_pay, in quality; a switch is spread over the later turns.",
            0.08,
        ),
    ] = UNSET
    switch_usd: Annotated[
        float | UnsetType,
        doc("Part of cost_usd: what a switch of the conversation to this arm costs.", 0.004),
    ] = UNSET
    expected: Annotated[Belief, doc("The quality that is expected of it.")]
    quality: Annotated[float | None, doc("The same as `expected.value`.", 0.71)]
    cost_usd: Annotated[float, doc("Expected cost of the answer, USD.", 0.008)]
    latency_s: Annotated[
        float | None, doc("Expected time to answer, seconds; null if unknown.", 1.4)
    ]


def belief(value: float | None, deviation: float | None, n: float | None) -> Belief:
    """Expected quality as answers tell it: value, its 95 % interval cut to [0, 1], and n.

    Without an outcome there is no value: what the policy believes then is called the prior.

    >>> msgspec.to_builtins(belief(0.5, 0.1, 12.0)) == {
    ...     "value": 0.5, "n": 12.0, "low": 0.5 - 0.1 * _Z95, "high": 0.5 + 0.1 * _Z95}
    True
    >>> msgspec.to_builtins(belief(1.0, None, 0.0))
    {'value': None, 'n': 0.0, 'untried': True, 'prior': 1.0}
    """
    untried = n == 0.0
    told = Belief(value=None if untried else value, n=n)
    if untried:
        told.untried = True
        if value is not None:
            told.prior = value
    if value is not None and deviation is not None:
        told.low = min(1.0, max(0.0, value - _Z95 * deviation))
        told.high = max(0.0, min(1.0, value + _Z95 * deviation))
    return told


def weighed_arms(weighed: Weighed) -> list[WeighedArm]:
    """Every arm that could be drawn: its chance, its score and the parts of it, what is expected.

    score = value + bonus − cost, all in quality; only where the policy's score has such parts.
    """
    proposal = weighed.proposal
    rows = []
    for k, record in enumerate(weighed.records):
        score, usd = float(proposal.scores[k]), float(weighed.arms.cost_usd[k])
        quality = _at(proposal.quality, k)
        expected = belief(quality, _at(proposal.deviation, k), _at(proposal.count, k))
        row = WeighedArm(
            id=record.spec.id,
            propensity=float(weighed.propensities[k]),
            score=score,
            expected=expected,
            quality=expected.value,
            cost_usd=rounded(usd),
            latency_s=record.expected_latency_s(),
        )
        if weighed.stay is not None:
            row.switch_usd = rounded(float(weighed.stay.extra[k]))
        bonus = _at(proposal.bonus, k)
        if bonus is not None:
            row.cost = cost = float(weighed.planned_usd[k]) / weighed.worth
            # from the score and not the quality, which is cut to [0, 1] where a policy's own is not
            row.value, row.bonus = score - bonus + cost, bonus
        rows.append(row)
    return rows


def _at(values: Floats | None, k: int) -> float | None:
    return None if values is None else float(values[k])
