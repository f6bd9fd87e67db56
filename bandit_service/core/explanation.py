"""In numbers: what is believed of an arm, and what its score is made of. Pure."""

from __future__ import annotations

from typing import Any

from bandit_service.core.decide import Weighed
from policies import Floats

_Z95 = 1.959963984540054


def belief(value: float | None, deviation: float | None, n: float | None) -> dict[str, Any]:
    """Expected quality as answers tell it: value, its 95 % interval cut to [0, 1], and n.

    Without an outcome there is no value: what the policy believes then is called the prior.

    >>> belief(0.5, 0.1, 12.0) == {"value": 0.5, "n": 12.0, "low": 0.5 - 0.1 * _Z95,
    ...                            "high": 0.5 + 0.1 * _Z95}
    True
    >>> belief(1.0, None, 0.0)
    {'value': None, 'n': 0.0, 'untried': True, 'prior': 1.0}
    """
    untried = n == 0.0
    told: dict[str, Any] = {"value": None if untried else value, "n": n}
    if untried:
        told["untried"] = True
        if value is not None:
            told["prior"] = value
    if value is not None and deviation is not None:
        told["low"] = min(1.0, max(0.0, value - _Z95 * deviation))
        told["high"] = max(0.0, min(1.0, value + _Z95 * deviation))
    return told


def weighed_arms(weighed: Weighed) -> list[dict[str, Any]]:
    """Every arm that could be drawn: its chance, its score and the parts of it, what is expected.

    score = value + bonus − cost, all in quality; only where the policy's score has such parts.
    """
    proposal = weighed.proposal
    rows = []
    for k, record in enumerate(weighed.records):
        score, usd = float(proposal.scores[k]), float(weighed.arms.cost_usd[k])
        quality = _at(proposal.quality, k)
        expected = belief(quality, _at(proposal.deviation, k), _at(proposal.count, k))
        row: dict[str, Any] = {
            "id": record.spec.id,
            "propensity": float(weighed.propensities[k]),
            "score": score,
        }
        bonus = _at(proposal.bonus, k)
        if bonus is not None:
            cost = usd / weighed.worth
            # from the score and not the quality, which is cut to [0, 1] where a policy's own is not
            row |= {"value": score - bonus + cost, "bonus": bonus, "cost": cost}
        rows.append(
            row
            | {
                "expected": expected,
                "quality": expected["value"],
                "cost_usd": usd,
                "latency_s": record.expected_latency_s(),
            }
        )
    return rows


def _at(values: Floats | None, k: int) -> float | None:
    return None if values is None else float(values[k])
