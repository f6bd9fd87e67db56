"""How the laws look at a policy."""

from __future__ import annotations

import dataclasses
import math
import sys
import typing
from collections.abc import Callable, Iterator, Sequence
from functools import cache, reduce
from typing import Any

import numpy as np
from hypothesis import HealthCheck, Phase, settings

from bandit_service.testing import events as made
from policies import (
    ArmId,
    Arms,
    Compared,
    Context,
    Floats,
    Neighbour,
    Outcome,
    Policy,
    Proposal,
    Rewarded,
    Vector,
    draw,
    mix,
)

Factory = Callable[[], Policy[Any]]
Law = Callable[[Factory], None]


class NotApplicable(Exception):
    """The law is about something optional that the policy does not do."""


# What the service takes for "this policy refuses this event"; anything else is a crash.
REFUSALS = (ValueError, ArithmeticError, LookupError, TypeError)
ROUNDING = 1e-6

tried = settings(
    max_examples=40,
    derandomize=True,
    deadline=None,
    database=None,
    print_blob=False,
    report_multiple_bugs=False,
    phases=(Phase.explicit, Phase.generate, Phase.shrink),
    suppress_health_check=list(HealthCheck),
)


def folded(policy: Policy[Any], past: Sequence[made.Event]) -> Any:
    return reduce(lambda state, event: learned(policy, state, event), past, policy.init())


def learned(policy: Policy[Any], state: Any, event: made.Event) -> Any:
    """The state after an event that no policy has a reason to refuse."""
    try:
        return policy.learn(state, event)
    except REFUSALS as error:
        raise AssertionError(f"a proper event was refused: {event}: {error!r}") from error


def distribution(policy: Policy[Any], state: Any, context: Context, arms: Arms) -> Proposal:
    """The proposal, which is checked."""
    try:
        proposal = policy.propose(state, context, arms)
    except REFUSALS as error:
        raise AssertionError(f"no proposal for {len(arms)} arms: {error!r}") from error
    k, p = len(arms), proposal.propensities
    assert p.shape == (k,), f"{p.shape} propensities for {k} arms"
    assert np.isfinite(p).all(), f"propensities are not finite: {p}"
    assert p.min() >= 0.0, f"a propensity is negative: {p}"
    assert abs(float(p.sum()) - 1.0) <= 1e-9, f"propensities sum to {p.sum()}"
    assert proposal.scores.shape == (k,), f"{proposal.scores.shape} scores for {k} arms"
    assert np.isfinite(proposal.scores).all(), f"scores are not finite: {proposal.scores}"
    if proposal.quality is not None:
        assert proposal.quality.shape == (k,), f"quality has shape {proposal.quality.shape}"
        assert np.isfinite(proposal.quality).all(), f"quality is not finite: {proposal.quality}"
    return proposal


def copied(proposal: Proposal) -> Proposal:
    given = {field.name: getattr(proposal, field.name) for field in dataclasses.fields(Proposal)}
    kept: dict[str, Any] = {k: None if each is None else each.copy() for k, each in given.items()}
    return Proposal(**kept)


def permuted(proposal: Proposal, order: list[int]) -> Proposal:
    quality = None if proposal.quality is None else proposal.quality[order]
    return Proposal(proposal.scores[order], proposal.propensities[order], quality)


def identical(one: Proposal, other: Proposal, when: str) -> None:
    for field in dataclasses.fields(Proposal):
        before, after = getattr(one, field.name), getattr(other, field.name)
        assert np.array_equal(before, after), f"{when}: {field.name} {before} became {after}"


def agree(one: Proposal, other: Proposal, when: str) -> None:
    """Equal but for rounding, which may decide between arms whose scores are as good as equal."""
    scale = max(1.0, float(np.abs(one.scores).max()))
    near = bool(np.allclose(one.scores, other.scores, rtol=0.0, atol=ROUNDING * scale))
    assert near, f"{when}: scores {one.scores} became {other.scores}"
    top = np.sort(one.scores)[::-1]
    tied = len(top) > 1 and top[0] - top[1] <= 4 * ROUNDING * scale
    p_near = bool(np.allclose(one.propensities, other.propensities, rtol=0.0, atol=ROUNDING))
    assert p_near or (tied and top[0] != top[1]), (
        f"{when}: propensities {one.propensities} became {other.propensities}"
    )


def turned(context: Context) -> Context:
    return dataclasses.replace(context, neighbours=context.neighbours[::-1])


def all_finite(value: Any) -> bool:
    """No NaN and no infinity anywhere in a state, caches included."""
    if isinstance(value, np.ndarray):
        return value.dtype.kind != "f" or bool(np.isfinite(value).all())
    if dataclasses.is_dataclass(value):
        return all(all_finite(getattr(value, field.name)) for field in dataclasses.fields(value))
    if isinstance(value, dict):
        return all(all_finite(item) for item in value.values())
    if isinstance(value, list | tuple):
        return all(all_finite(item) for item in value)
    return not isinstance(value, float) or math.isfinite(value)


def calls(function: Callable[..., Any], *arguments: Any) -> int:
    """How many functions, of Python or of C, one call calls, once caches are warm."""
    function(*arguments)
    count = 0

    def counted(frame: Any, what: str, _: Any) -> None:
        nonlocal count
        count += what in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(counted)
    try:
        function(*arguments)
    finally:
        sys.setprofile(before)
    return count


def outcome_of(context: Context, arm: ArmId, value: float) -> made.Event:
    return made.rewarded(context, arm, value, 0.0, 1.0, value)


def play(
    policy: Policy[Any], state: Any, context: Context, arm: ArmId, other: ArmId, value: float
) -> Any:
    """The state after one reward, and one comparison that says the same."""
    state = learned(policy, state, outcome_of(context, arm, value))
    winner, loser = (arm, other) if value > 0.5 else (other, arm)
    return learned(policy, state, Compared(context, winner, loser))


def parameters_of(policy: Policy[Any]) -> Iterator[tuple[str, set[type]]]:
    """The name of each parameter and the types that it may have."""
    hints = typing.get_type_hints(type(policy))
    for field in dataclasses.fields(policy):  # type: ignore[arg-type]
        hint = hints[field.name]
        yield field.name, set(typing.get_args(hint) or (hint,))


def wrong_values(kinds: set[type]) -> list[Any]:
    if str in kinds:
        return ["", "no such thing"]
    if float in kinds:
        odd = [math.nan, math.inf, -math.inf, 10**400]
        near_zero = [-1e-9, 0.0, 5e-324, 1e-300, 1e-30, 1e-9]
        large = [1e3, 1e6, 1e9, 1e12, 1e30, 1e150, sys.float_info.max]
        return [*odd, *(-each for each in large), -1.0, *near_zero, 0.5, 1.0, 1.5, *large]
    return [-(10**30), -(10**9), -1, 0, 1, 2, 1000, 10**6, 10**9, 2**53, 2**63, 10**30]


def share_of_best(policy: Policy[Any], seed: int) -> float:
    """How often the best arm was drawn in the last 200 of 1,000 rounds."""
    rng = np.random.default_rng([2024, seed])
    arms = made.alike(made.IDS[:3])
    best = seed % 3
    means: Floats = np.where(np.arange(3) == best, 0.8, 0.3)
    queries, near = _asked(seed)
    rng.normal(size=queries.shape)  # what the queries were made of
    outcomes: list[Outcome] = []
    state, drawn = policy.init(), []
    for i in range(1000):
        recalled = tuple(Neighbour(k + 1, similar, (outcomes[k],)) for k, similar in near[i])
        context = Context(queries[i], 100, 0.1, recalled)
        p = mix(policy.propose(state, context, arms).propensities, 0.02)
        j = draw(p, float(rng.uniform()))
        drawn.append(j)
        noise = rng.uniform(-0.1, 0.1, size=3)
        quality = float(means[j] + noise[j])
        reward = quality - 0.001 / 0.1
        event = Rewarded(context, arms.ids[j], float(p[j]), 0.5, 0.001, quality, 0.001, 1.0, reward)
        state = learned(policy, state, event)
        outcomes.append(Outcome(arms.ids[j], quality, reward))
        if i % 4 == 0:
            other = (j + 1 + int(rng.integers(0, 2))) % 3
            better, worse = (j, other) if means[j] >= means[other] else (other, j)
            tie = bool(means[j] == means[other])
            state = learned(
                policy, state, Compared(context, arms.ids[better], arms.ids[worse], tie)
            )
    return drawn[-200:].count(best) / 200


@cache
def _asked(seed: int) -> tuple[Vector, list[list[tuple[int, float]]]]:
    """1,000 queries, and of each the ten nearest before it: the same for every policy."""
    vectors = np.random.default_rng([2024, seed]).normal(size=(1000, made.DIM))
    vectors += 2.0 * np.eye(made.DIM)[0]
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    queries = vectors.astype(np.float32)
    near = list[list[tuple[int, float]]]()
    for i, query in enumerate(queries):
        similarity = queries[:i] @ query
        order = np.argsort(-similarity, kind="stable")[:10]
        near.append([(int(k), float(similarity[k])) for k in order])
    return queries, near
