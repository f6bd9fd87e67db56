"""The papers' own settings, by hand, equation by equation; and that the pages name them."""

from __future__ import annotations

import dataclasses
from functools import reduce
from math import sqrt
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import policies
from bandit_service.lab.faithful import FAITHFUL, STATED
from policies import ArmId, Arms, Compared, Comparison, Floats, Neighbour, Policy
from tests.unit.policies.given import A, B, C, arms, neighbour, query, rewarded

PAGES = Path(__file__).parents[3] / "docs" / "policies"
OURS = ("eagle", "metallm", "pickllm_gradient", "pickllm_q", "forc", "hybrid_llm")


def faithful(name: str, **others: Any) -> Policy[Any]:
    """The policy in its paper's setting, with what a test sets beside it."""
    return policies.load(name, **{**FAITHFUL[name], **others})


def test_every_setting_can_be_had_and_has_its_sentence() -> None:
    for name in FAITHFUL:
        assert faithful(name) != policies.load(name), f"{name} by default is its paper's already"
    assert set(STATED) == {*FAITHFUL, "uniform"}
    for name, sentence in STATED.items():
        assert "tated" in sentence, name
        assert "Open: " in sentence or "Ours: " in sentence, name


@pytest.mark.parametrize("name", OURS)
def test_the_page_names_the_setting(name: str) -> None:
    """All that differs from the defaults, in the order of the list."""
    default: Any = policies.load(name)
    fields = {field.name for field in dataclasses.fields(default)}
    assert set(FAITHFUL[name]) <= fields
    changed = [
        f"{key}={value!r}".replace("'", '"')
        for key, value in FAITHFUL[name].items()
        if getattr(default, key) != value
    ]
    page = (PAGES / f"{name}.md").read_text(encoding="utf-8")
    assert f"`{name}({', '.join(changed)})`" in page


# Eagle: R' = R + K·(S − E); local from global; P·global + (1 − P)·local


def test_eagle_end_to_end() -> None:
    """a beats b: 1016 and 984. Nearby b beat a: with E = 1/(1 + 10^0.08) = 0.4540781 for b,

    b gains 32·0.5459219 = 17.4695012 locally: 1001.4695012 against 998.5304988; half and half.
    """
    policy = faithful("eagle")
    state = policy.learn(policy.init(), Compared(query(), A, B))
    near = [Neighbour(1, 0.9, comparisons=(Comparison(B, A),))]
    proposal = policy.propose(state, query(near=near), arms(A, B))
    assert proposal.scores.tolist() == pytest.approx([1007.2652494, 992.7347506])
    assert proposal.propensities.tolist() == [1.0, 0.0]


def test_eagle_a_tie_takes_from_the_higher_rated() -> None:
    """A lead of 32: 32·(1/2 − 0.5459219) = −1.4695012."""
    policy = faithful("eagle")
    votes = [Compared(query(), A, B), Compared(query(), B, A, tie=True)]
    state = reduce(policy.learn, votes, policy.init())
    proposal = policy.propose(state, query(), arms(A, B))
    assert proposal.scores.tolist() == pytest.approx([1014.5304988, 985.4695012])


def test_eagle_is_deaf_to_rewards_and_to_cost() -> None:
    policy = faithful("eagle")
    context = query(near=[neighbour(1, 1.0, (B, 0.5))])
    state = policy.learn(policy.init(), rewarded(A, 0.8, context=context))
    for cost in (0.0, 5.0):
        pool = Arms((A, B), np.array([cost, 0.0]), np.array([1.0, 0.1]))
        assert policy.propose(state, context, pool).scores.tolist() == [1000.0, 1000.0]


@given(st.floats(-500.0, 500.0), st.lists(st.sampled_from(["win", "loss", "tie"]), max_size=8))
@settings(derandomize=True, deadline=None, database=None)
def test_eagle_only_differences_of_ratings_matter(shift: float, votes: list[str]) -> None:
    """Why the paper's silence on the initial rating costs nothing."""
    found = []
    for initial in (1000.0, 1000.0 + shift):
        policy = faithful("eagle", initial=initial)
        state = policy.init()
        for vote in votes:
            first, second = (B, A) if vote == "loss" else (A, B)
            state = policy.learn(state, Compared(query(), first, second, vote == "tie"))
        found.append(policy.propose(state, query(), arms(A, B)).scores - initial)
    np.testing.assert_allclose(found[0], found[1], atol=1e-8)


# MetaLLM: θ_j = (XᵀX + λI)⁻¹ Xᵀ(a_j − p·c_j); xᵀθ_j + α·√(xᵀA_j⁻¹x)


def full_information(policy: Policy[Any], x: Floats, quality: Floats, price: Floats) -> Any:
    """The state after a log in which every arm answered every query."""
    state = policy.init()
    for row, levels in zip(x, quality, strict=True):
        context = query(*row)
        for arm, level, each in zip((A, B, C), levels.tolist(), price.tolist(), strict=True):
            event = rewarded(arm, level, quality=level, price=each, context=context)
            state = policy.learn(state, event)
    return state


@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_metallms_warm_start_is_the_batch_solution(alpha: float) -> None:
    """And what is learned online after it is the batch solution with one row more.

    But for features in 2⁻¹⁴ and targets in 2⁻¹⁶.
    """
    rng = np.random.default_rng(8)
    x = rng.normal(size=(40, 4))
    x = (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32).astype(np.float64)
    quality = (rng.uniform(size=(40, 3)) < 0.6).astype(np.float64)
    price = np.array([1.0, 0.4, 0.1])
    policy = faithful("metallm", alpha=alpha, cost_weight=0.3)
    state = full_information(policy, x, quality, price)
    pool = Arms((A, B, C), price, price)
    probe = query(*x[0])
    assert policy.propose(state, probe, pool).scores == pytest.approx(
        batch(x, quality - 0.3 * price, x[0], alpha), abs=2e-5
    )
    state = policy.learn(state, rewarded(B, 1.0, quality=1.0, price=0.4, context=query(*x[1])))
    theirs = batch(x, quality - 0.3 * price, x[0], alpha)
    more, earned = np.vstack([x, x[1]]), np.append(quality[:, 1], 1.0) - 0.3 * 0.4
    theirs[1] = batch(more, earned[:, None], x[0], alpha)[0]
    assert policy.propose(state, probe, pool).scores == pytest.approx(theirs, abs=2e-5)


def batch(x: Floats, y: Floats, at: Floats, alpha: float) -> Floats:
    """The paper's index of each column of y, (K,), solved at once with λ = 12.94."""
    a = x.T @ x + 12.94 * np.eye(x.shape[1])
    means: Floats = at @ np.linalg.solve(a, x.T @ y)
    return means + alpha * sqrt(float(at @ np.linalg.solve(a, at)))


def test_metallm_bakes_the_price_in_and_apart_does_not() -> None:
    """λ = 1, x = 1: half of y = 1 − 0.4·0.5 is 0.4, whatever a dollar is worth today.

    Apart: the quality ½·1 less 0.02 USD over 0.1 and over 1 USD.
    """
    event = rewarded(A, 1.0, quality=1.0, price=0.5)
    paper = faithful("metallm", ridge=1.0, alpha=0.0, cost_weight=0.4)
    apart = policies.load("metallm", ridge=1.0, alpha=0.0, bias=False, prior=0.0)
    wanted = {paper: {0.1: 0.4, 1.0: 0.4}, apart: {0.1: 0.3, 1.0: 0.48}}
    for policy, scores in wanted.items():
        state = policy.learn(policy.init(), event)
        for pay, score in scores.items():
            pool = Arms((A,), np.array([0.02]), np.array([0.5]))
            proposal = policy.propose(state, query(willingness_to_pay=pay), pool)
            assert proposal.scores.tolist() == pytest.approx([score], abs=2e-5)


# PickLLM: R = (w_a·a − w_c·c) / (w_l·log₁₀(l)/t); L_R-I; Q ← Q + α·(R − Q)


def test_pickllms_automaton_on_its_reward() -> None:
    """a: 0.9 less 0.01/0.1 is 0.8, at 1 s: R = 0.8, p_a = ½ + ½·0.8·½ = 0.7.

    b: 0.8 at 10 s is divided by log₁₀(10⁴)/3 = 4/3: R = 0.6, p_b = 0.3 + ½·0.6·0.7 = 0.51.
    """
    policy = faithful("pickllm_gradient")
    events = [
        rewarded(A, 0.5, quality=0.9, cost_usd=0.01, latency_s=1.0),
        rewarded(B, 0.5, quality=0.9, cost_usd=0.01, latency_s=10.0),
    ]
    state = policy.learn(policy.init(), events[0])
    p = policy.propose(state, query(), arms(A, B)).propensities
    assert p.tolist() == pytest.approx([0.7, 0.3])
    p = policy.propose(policy.learn(state, events[1]), query(), arms(A, B)).propensities
    assert p.tolist() == pytest.approx([0.49, 0.51])


def test_pickllms_automaton_takes_a_handful_of_rewards_to_converge() -> None:
    """p = 1 − ½·0.6ⁿ for R = 0.8 at b = ½; what the arm has claimed, 1 − 0.6ⁿ, is 0.994 at 10."""
    policy: Any = faithful("pickllm_gradient")
    state = policy.init()
    for n in range(1, 11):
        state = policy.learn(state, rewarded(A, 0.5, quality=0.8, cost_usd=0.0, latency_s=1.0))
        p = policy.propose(state, query(), arms(A, B)).propensities
        assert p[0] == pytest.approx(1.0 - 0.5 * 0.6**n)
        assert policy.converged(state) == (A if n >= 10 else None)


def test_pickllms_values_on_its_reward() -> None:
    """α = ½ from 0: R = 0.8 gives 0.4, then R = 0.6 gives 0.5; ε = 0.2 over two arms."""
    policy = faithful("pickllm_q", learning_rate=0.5, epsilon=0.2)
    state = policy.init()
    for latency, q in ((1.0, 0.4), (10.0, 0.5)):
        event = rewarded(A, 0.5, quality=0.9, cost_usd=0.01, latency_s=latency)
        state = policy.learn(state, event)
        proposal = policy.propose(state, query(), arms(A, B))
        assert proposal.scores.tolist() == pytest.approx([q, 0.0])
        assert proposal.propensities.tolist() == pytest.approx([0.9, 0.1])


# Blending: n ~ Uniform{1..N} at every turn


def test_blending_draws_evenly_at_every_turn() -> None:
    """Whatever came before, whatever the query, also with models that joined or left."""
    policy = policies.load("uniform")
    state = policy.init()
    for turn, pool in enumerate([(A, B), (A, B), (A, B, C), (C,)]):
        p = policy.propose(state, query(float(turn)), arms(*pool)).propensities
        assert p.tolist() == [1.0 / len(pool)] * len(pool)
        state = policy.learn(state, rewarded(pool[0], 1.0, quality=1.0))
        state = policy.learn(state, Compared(query(), A, B))


# Conversions, both ways, off


@pytest.mark.parametrize("name", sorted(set(FAITHFUL) - {"eagle", "routellm_sw", "routellm_mf"}))
def test_pointwise_policies_are_deaf_to_comparisons_when_told_so(name: str) -> None:
    before, after = proposals(faithful(name), Compared(query(), A, B))
    assert before == after


@pytest.mark.parametrize("name", ["eagle", "routellm_sw", "routellm_mf"])
def test_pairwise_policies_are_deaf_to_rewards_when_told_so(name: str) -> None:
    near = [neighbour(1, 1.0, (B, 0.1))]
    before, after = proposals(faithful(name), rewarded(A, 0.9, context=query(near=near)))
    assert before == after


@pytest.mark.parametrize("name", ["eagle", "metallm", "pickllm_gradient", "pickllm_q"])
def test_by_default_they_listen_to_both(name: str) -> None:
    near = [neighbour(1, 1.0, (B, 0.1))]
    others = {"trial": 0} if name == "eagle" else {}
    for event in (
        Compared(query(), A, B),
        rewarded(A, 0.9, quality=0.95, context=query(near=near)),
    ):
        before, after = proposals(policies.load(name, **others), event)
        assert before != after


def proposals(policy: Policy[Any], event: Any) -> tuple[list[float], list[float]]:
    """The scores before and after an event."""
    pool, probe = arms(A, B, ArmId("c")), query()
    before = policy.propose(policy.init(), probe, pool).scores.tolist()
    return before, policy.propose(policy.learn(policy.init(), event), probe, pool).scores.tolist()
