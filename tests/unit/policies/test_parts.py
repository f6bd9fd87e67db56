"""What a proposal says of itself: how sure it is, of how much, and what its scores are made of."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from policies import Policy
from policies.eagle import Eagle
from policies.epsilon_greedy import EpsilonGreedy
from policies.forc import FORC
from policies.knn import KNN
from policies.metallm import MetaLLM
from policies.routellm_mf import RouteLLMMF
from policies.routellm_sw import RouteLLMSW
from tests.unit.policies.given import A, B, arms, neighbour, query, rewarded

NEAR = query(0.6, 0.8, near=[neighbour(1, 0.9, (A, 0.5))])


def _taught(policy: Policy[Any], times: int = 3) -> Any:
    state = policy.init()
    for _ in range(times):
        state = policy.learn(state, rewarded(A, 0.5, quality=0.6, context=NEAR))
    return state


@pytest.mark.parametrize("policy", [MetaLLM(), KNN(), FORC()], ids=lambda each: type(each).__name__)
def test_a_score_is_quality_and_bonus_less_cost(policy: Policy[Any]) -> None:
    proposal = policy.propose(_taught(policy), NEAR, arms(A, B, cost_usd=0.02))
    assert proposal.quality is not None
    assert proposal.bonus is not None
    parts = proposal.quality + proposal.bonus - 0.02 / NEAR.willingness_to_pay
    np.testing.assert_allclose(proposal.scores, parts, atol=1e-12)
    assert proposal.deviation is not None
    later = policy.propose(_taught(policy, times=30), NEAR, arms(A, B, cost_usd=0.02))
    assert later.deviation is not None
    assert later.bonus is not None
    assert 0.0 < later.deviation[0] < proposal.deviation[0] <= 0.5
    assert later.bonus[0] < proposal.bonus[0]
    assert (later.deviation[1], later.bonus[1]) == (proposal.deviation[1], proposal.bonus[1])


@pytest.mark.parametrize(
    "policy", [MetaLLM(reward="paper"), FORC(strategy="threshold")], ids=["paper", "threshold"]
)
def test_scores_of_another_form_have_no_such_parts(policy: Policy[Any]) -> None:
    proposal = policy.propose(_taught(policy), NEAR, arms(A, B, cost_usd=0.02))
    assert proposal.bonus is None


@pytest.mark.parametrize(
    "policy",
    [MetaLLM(), KNN(), FORC(), Eagle(), EpsilonGreedy(), RouteLLMMF(), RouteLLMSW()],
    ids=lambda each: type(each).__name__,
)
def test_outcomes_are_counted_and_an_arm_without_is_at_zero(policy: Policy[Any]) -> None:
    proposal = policy.propose(_taught(policy), NEAR, arms(A, B))
    assert proposal.count is not None
    assert proposal.count.tolist() == [3.0, 0.0]
    nothing = policy.propose(policy.init(), NEAR, arms(A, B))
    assert nothing.count is not None
    assert nothing.count.tolist() == [0.0, 0.0]
