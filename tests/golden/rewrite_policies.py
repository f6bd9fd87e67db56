"""What every policy proposes after a fixed history; `python -m tests.golden.rewrite_policies`.

Everything follows from formulas, so nothing here depends on a generator or on a recorded file.
"""

from __future__ import annotations

import json
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np

import policies
from policies import (
    ArmId,
    Arms,
    Compared,
    Context,
    Neighbour,
    Outcome,
    Policy,
    Proposal,
    Rewarded,
    Vector,
)

GOLDEN = Path(__file__).with_name("policies.json")
DIM = 6
IDS = tuple(ArmId(name) for name in ("large", "medium", "small", "tiny"))
COST_USD = {"large": 0.008, "medium": 0.003, "small": 0.001, "tiny": 0.0002, "new": 0.002}
QUALITY = {"large": 0.9, "medium": 0.75, "small": 0.6, "tiny": 0.35}
CUTS = (0, 20, 60)
Answer = dict[str, list[float]]


def embedding(i: int) -> Vector:
    """Query i: a common direction and what is its own, of unit norm."""
    x = np.sin(1.7 * i + 0.9 * np.arange(DIM)) + np.eye(DIM)[0]
    unit: Vector = (x / np.linalg.norm(x)).astype(np.float32)
    return unit


def level(i: int, arm: ArmId) -> float:
    """The quality of an arm's answer to query i, in [0, 1]; the small one is good at some."""
    swing = 0.25 if arm == "small" else 0.1
    return round(min(1.0, max(0.0, QUALITY[arm] + swing * float(np.sin(1.7 * i)))), 6)


def context(i: int) -> Context:
    """Query i with the queries before it as neighbours."""
    neighbours = tuple(
        Neighbour(
            id=j + 1,
            similarity=round(0.95 - 0.07 * (i - j), 6),
            outcomes=(Outcome(IDS[j % 4], level(j, IDS[j % 4]), level(j, IDS[j % 4]) - 0.05),),
        )
        for j in range(max(0, i - 6), i)
    )
    return Context(embedding(i), 50 + 7 * i, 0.1, neighbours)


def event(i: int) -> Rewarded | Compared:
    """Event i: every fifth a comparison, every seventh without quality or without reward."""
    arm, other = IDS[i % 4], IDS[(i + 1 + i // 5 % 3) % 4]
    if i % 5 == 4:
        first, second = sorted((arm, other), key=lambda id: -level(i, id))
        return Compared(context(i), first, second, tie=i % 15 == 14)
    cost, quality = COST_USD[arm], level(i, arm)
    settled = i % 7 != 6
    return Rewarded(
        context=context(i),
        arm=arm,
        propensity=0.1 + 0.2 * (i % 4),
        price=cost / COST_USD["large"],
        expected_cost_usd=cost,
        quality=quality if settled and i % 7 != 5 else None,
        cost_usd=None if i % 3 == 2 else cost,
        latency_s=0.5 + 0.25 * (i % 4) if i % 2 else None,
        reward=round(quality - cost / 0.1, 6) if settled else None,
    )


def pools() -> list[Arms]:
    """All arms; two of them; and all with one that was never seen."""
    ids = (IDS, IDS[1:3], tuple(sorted((*IDS, ArmId("new")))))
    return [
        Arms(
            pool,
            np.array([COST_USD[arm] for arm in pool]),
            np.array([COST_USD[arm] for arm in pool]) / COST_USD["large"],
        )
        for pool in ids
    ]


def variants() -> dict[str, Policy[Any]]:
    """Every policy by its name, and its examples numbered."""
    found: dict[str, Policy[Any]] = {}
    for name in (*policies.names(), *policies.river_names()):
        found[name] = policies.load(name)
        examples: list[Policy[Any]] = getattr(policies.policy_class(name), "examples", list)()
        found.update((f"{name}-{i}", example) for i, example in enumerate(examples, start=1))
    return found


def proposed(policy: Policy[Any]) -> dict[str, list[Answer]]:
    """Propensities and scores on three queries for each pool, after 0, 20 and 60 events."""
    answers = {}
    for cut in CUTS:
        state = reduce(policy.learn, (event(i) for i in range(cut)), policy.init())
        answers[f"after {cut}"] = [
            _answer(policy.propose(state, context(i), arms))
            for i in (61, 64, 67)
            for arms in pools()
        ]
    return answers


def _answer(proposal: Proposal) -> Answer:
    return {
        name: [round(value, 9) for value in getattr(proposal, name).tolist()]
        for name in ("propensities", "scores")
    }


def main() -> None:
    """Write the file anew, one proposal per line, so that a change reads well as a diff."""
    lines = []
    for name, policy in sorted(variants().items()):
        cuts = [
            f"    {json.dumps(cut)}: [\n"
            + ",\n".join(f"      {json.dumps(p)}" for p in answers)
            + "\n    ]"
            for cut, answers in proposed(policy).items()
        ]
        lines.append(f"  {json.dumps(name)}: {{\n" + ",\n".join(cuts) + "\n  }")
    GOLDEN.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
