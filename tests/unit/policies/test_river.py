"""Policies of river.bandit behind our protocol, and what river does wrong, as the page says."""

from __future__ import annotations

import dataclasses
import inspect
import math
import subprocess
import sys
from collections.abc import Callable
from functools import reduce
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import policies
from bandit_service.core import codec
from policies import ArmId, Arms, Compared, Context, Policy, Rewarded
from policies import _river_policies as adapter

bandit: Any = import_module("river.bandit")
proba: Any = import_module("river.proba")
IDS = tuple(ArmId(name) for name in "abc")
ARMS = Arms(IDS, np.full(3, 0.001), np.full(3, 0.5))


def query(i: int, dim: int = 6) -> Context:
    drawn = np.random.default_rng(i).normal(size=dim)
    return Context((drawn / np.linalg.norm(drawn)).astype(np.float32), 10, 0.1)


def outcome(i: int, arm: ArmId, reward: float | None, propensity: float = 0.5) -> Rewarded:
    return Rewarded(query(i), arm, propensity, 0.5, 0.001, reward=reward)


def past(n: int) -> list[Rewarded]:
    rng = np.random.default_rng(n)
    return [outcome(i, IDS[i % 3], round(float(rng.uniform()), 3)) for i in range(n)]


def pulls(policy: Policy[Any], state: Any, context: Context) -> list[float]:
    found: list[float] = policy.propose(state, context, ARMS).propensities.tolist()
    return found


# The adapter


def test_every_policy_of_the_installed_river_is_there() -> None:
    found = [
        name
        for name in bandit.__all__
        if inspect.isclass(kind := getattr(bandit, name)) and issubclass(kind, bandit.base.Policy)
    ]
    assert sorted(f"river:{name}" for name in found) == list(policies.river_names())
    assert not set(policies.river_names()) & set(policies.names())


@pytest.mark.parametrize("name", policies.river_names())
def test_every_number_that_river_takes_can_be_set(name: str) -> None:
    taken = set(inspect.signature(getattr(bandit, name.removeprefix("river:"))).parameters)
    ours = {field.name for field in dataclasses.fields(policies.policy_class(name))}  # type: ignore[arg-type]
    # these are objects; and smoothing wears LinUCB's prior away, as a test below shows
    assert taken - ours <= {"reward_obj", "reward_scaler", "smoothing"}


@pytest.mark.parametrize("name", ["river:Nobody", "river:", "river:base", "river:_River", "river"])
def test_an_unknown_name_is_refused_with_those_that_there_are(name: str) -> None:
    with pytest.raises(
        ValueError, match=r"no policy named .* and river:NAME, NAME one of BayesUCB"
    ):
        policies.load(name)
    assert not policies.exists(name)


@pytest.mark.parametrize(
    ("name", "parameters", "said"),
    [
        ("river:UCB", {"delta": -1.0}, r"^delta: must be a number >= 0"),
        ("river:UCB", {"delta": "much"}, r"^delta: must be a number, got 'much'"),
        (
            "river:UCB",
            {"gamma": 0.1},
            r"^gamma: river:UCB has no such parameter; expected one of eps",
        ),
        ("river:Exp3", {"low": 2.0}, r"^low: must be below high, got 2.0 and 1.0"),
        ("river:ThompsonSampling", {"reward_obj": "Mean"}, r"^reward_obj: must be one of Beta, G"),
        ("river:LinUCBDisjoint", {"dimensions": 0}, r"^dimensions: must be a number >= 1"),
    ],
)
def test_bad_parameters_are_refused_by_name(
    name: str, parameters: dict[str, Any], said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        policies.load(name, **parameters)


def theirs(name: str) -> tuple[Any, Callable[[Rewarded], tuple[Any, ...]]]:
    """river's own object, and what its update gets after the arm."""
    match name:
        case "UCB":
            return bandit.UCB(delta=0.5), lambda event: (event.reward,)
        case "EpsilonGreedy":
            return bandit.EpsilonGreedy(epsilon=0.0), lambda event: (event.reward,)
        case "BayesUCB":
            return bandit.BayesUCB(), lambda event: (event.reward,)
    return bandit.LinUCBDisjoint(beta=4.0), lambda event: (
        dict(enumerate([*event.context.embedding.tolist(), 1.0])),
        event.reward,
    )


@pytest.mark.parametrize("name", ["UCB", "EpsilonGreedy", "BayesUCB", "LinUCBDisjoint"])
def test_it_pulls_what_river_pulls(name: str) -> None:
    parameters = {"UCB": {"delta": 0.5}, "LinUCBDisjoint": {"beta": 4.0}}.get(name, {})
    ours: Policy[Any] = policies.load(f"river:{name}", epsilon=0.3, **parameters)
    state, (river, told) = ours.init(), theirs(name)
    for i, event in enumerate(past(60)):
        if name == "BayesUCB":  # for other rewards a coin is thrown
            event = dataclasses.replace(event, reward=float(event.reward or 0.0) > 0.5)
        state = ours.learn(state, event)
        river.update(event.arm, *told(event))
        if i < 10:
            continue
        context = query(100 + i)
        features = told(dataclasses.replace(event, context=context))[0]
        given = (list(IDS), features) if name == "LinUCBDisjoint" else (list(IDS),)
        equals = {river.pull(*given) for _ in range(20)}
        found = pulls(ours, state, context)
        assert sorted(found) == pytest.approx([0.1, 0.1, 0.8])
        assert IDS[found.index(max(found))] in equals, i


def test_thompson_proposes_what_its_samples_say() -> None:
    policy = policies.load("river:ThompsonSampling", epsilon=0.0, pulls=1000)
    state = reduce(policy.learn, past(60), policy.init())
    rng = np.random.default_rng(1)
    learned = [state.arms[arm].numbers for arm in IDS]
    samples = [rng.beta(alpha, beta, size=20_000) for alpha, beta in learned]
    expected = np.bincount(np.argmax(samples, axis=0), minlength=3) / 20_000
    assert pulls(policy, state, query(1)) == pytest.approx(expected.tolist(), abs=0.06)
    shares = {tuple(pulls(policy, state, query(i))) for i in range(5)}
    assert len(shares) == 5, "the samples are the query's own"


def test_exp3_proposes_its_probabilities_and_learns_by_the_events_propensity() -> None:
    policy = policies.load("river:Exp3", gamma=0.3, epsilon=0.0)
    state = reduce(policy.learn, past(3), policy.init())
    before = [state.arms[arm].numbers[-1] for arm in IDS]
    total = sum(before)
    assert pulls(policy, state, query(1)) == pytest.approx([0.7 * w / total + 0.1 for w in before])
    state = policy.learn(state, outcome(9, IDS[1], 0.6, propensity=0.25))
    grown = before[1] * math.exp(0.3 * 0.6 / 0.25 / 3)
    assert state.arms[IDS[1]].numbers[-1] == pytest.approx(grown)


def test_exp3_outlives_the_overflow_of_its_weights() -> None:
    policy = policies.load("river:Exp3", gamma=0.9)
    state = policy.init()
    for i in range(3000):
        state = policy.learn(state, outcome(1, IDS[i % 2], float(i % 2), propensity=0.3))
    weights = [state.arms[arm].numbers[-1] for arm in IDS[:2]]
    assert all(math.isfinite(weight) for weight in weights)
    assert pulls(policy, state, query(1))[1] == max(pulls(policy, state, query(1)))


def test_graded_rewards_are_successes_as_often_as_they_are_high() -> None:
    policy = policies.load("river:BayesUCB", low=-1.0)
    state = policy.init()
    for i in range(2000):
        state = policy.learn(state, outcome(i, IDS[0], -0.4))
    alpha, beta = state.arms[IDS[0]].numbers[-2:]
    assert alpha + beta == 2002.0
    assert alpha / (alpha + beta) == pytest.approx(0.3, abs=0.03)


def test_epsilon_greedy_decays_what_it_declares() -> None:
    policy = policies.load("river:EpsilonGreedy", epsilon=0.3, decay=0.01)
    state = reduce(policy.learn, past(30), policy.init())
    least = 0.3 * math.exp(-0.3) / 3
    assert sorted(pulls(policy, state, query(1)))[:2] == pytest.approx([least, least])


def test_arms_in_their_burn_in_are_proposed_alike_until_their_outcomes_came() -> None:
    policy = policies.load("river:LinUCBDisjoint", burn_in=2, epsilon=0.0)
    state = policy.init()
    assert pulls(policy, state, query(1)) == pytest.approx([1 / 3] * 3)
    for arm in (IDS[0], IDS[0], IDS[1]):
        state = policy.learn(state, outcome(1, arm, 1.0))
    assert pulls(policy, state, query(1)) == [0.0, 0.5, 0.5]


def test_a_comparison_teaches_nothing_and_an_embedding_of_another_length_is_refused() -> None:
    policy = policies.load("river:LinUCBDisjoint")
    state = reduce(policy.learn, past(5), policy.init())
    before = codec.dump(state)
    state = policy.learn(state, Compared(query(1), IDS[0], IDS[1]))
    wrong = dataclasses.replace(outcome(1, IDS[0], 1.0), context=query(1, dim=7))
    with pytest.raises(ValueError, match=r"^embedding: must have 6 features, got 7"):
        policy.learn(state, wrong)
    with pytest.raises(ValueError, match=r"^reward: must be within ±1e\+09"):
        policy.learn(state, outcome(1, IDS[0], 1e10))
    assert codec.dump(state) == before


def test_folding_keeps_what_is_near_near() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(200, 384)) + 2.0 * rng.normal(size=(200, 1))[:, [0] * 384]
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    folded = np.array([adapter._folded(x.astype(np.float32), 64) for x in vectors])
    assert folded.shape == (200, 64)
    inner, kept = vectors @ vectors[0], folded @ folded[0]
    assert np.corrcoef(inner[1:], kept[1:])[0, 1] > 0.9
    short = vectors[0, :64].astype(np.float32)
    assert adapter._folded(short, 64).tolist() == short.tolist()


def test_river_is_imported_only_where_one_of_its_policies_is_made() -> None:
    code = (
        "import sys, policies, bandit_service.app.service, bandit_service.cli.main; "
        "policies.load('river:UCB', delta=2.0); print('river.bandit' in sys.modules); "
        "policies.load('river:UCB').init(); print('river.bandit' in sys.modules)"
    )
    root = str(Path(policies.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root
    )
    assert done.stdout.split() == ["False", "True"]


def test_without_river_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "river", None)
    with pytest.raises(
        ValueError, match=r"^river is not installed; run: pip install river==0.26.1"
    ):
        policies.load("river:UCB")


# What is wrong with river 0.26.1: docs/policies/river.md says it, and must be mended with river


def test_river_any_reward_but_0_is_a_success() -> None:
    for reward in (0.01, -1.0):
        policy = bandit.BayesUCB()
        policy.update("a", reward)
        assert (policy._posteriors["a"].alpha, policy._posteriors["a"].beta) == (2, 1)


@pytest.mark.parametrize("kind", [bandit.BayesUCB, bandit.RandomPolicy, bandit.LinUCBDisjoint])
def test_river_burn_in_is_taken_for_the_reward_scaler(kind: Any) -> None:
    policy = kind(burn_in=3)
    assert (policy.burn_in, policy.reward_scaler) == (0, 3)
    with pytest.raises(AttributeError, match="_update"):
        policy.update("a", *([{0: 1.0}] if kind is bandit.LinUCBDisjoint else []), 1.0)


def test_river_exp3_learns_by_its_last_pull() -> None:
    policy = bandit.Exp3(gamma=0.1, seed=1)
    policy.pull(["a", "b"])
    with pytest.raises(KeyError):
        policy.update("c", 1.0)
    weights = []
    for later in ([], [["a"]]):
        policy = bandit.Exp3(gamma=0.1, seed=1)
        for ids in (["a", "b"], *later):
            policy.pull(ids)
        policy.update("a", 1.0)
        weights.append(policy._weights["a"])
    assert weights[0] != weights[1]
    burning = bandit.Exp3(gamma=0.1, burn_in=1)
    burning.pull(["a", "b"])
    with pytest.raises(KeyError):
        burning.update("a", 1.0)
    policy.pull(["c", "d"])
    assert set(policy._weights) == set("abcd"), "a pull makes weights"


def test_river_exp3_overflows() -> None:
    def play() -> None:
        policy = bandit.Exp3(gamma=1.0, seed=1)
        for _ in range(5000):
            policy.update(policy.pull(["a", "b"]), 1.0)

    with pytest.raises(ValueError, match="must be finite"):
        play()


def test_river_ucb_of_a_distribution_has_no_bonus() -> None:
    policy = bandit.UCB(delta=100.0, reward_obj=proba.Beta(), seed=1)
    for arm, n in (("a", 50), ("b", 3)):
        for _ in range(n):
            policy.update(arm, 1)
        policy.update(arm, 0)
    assert {policy.pull(["a", "b"]) for _ in range(20)} == {"a"}


def test_river_epsilon_greedy_takes_an_untried_arm_for_0_and_the_first_of_equals() -> None:
    policy = bandit.EpsilonGreedy(epsilon=0.0)
    assert (policy.pull(["a", "b"]), policy.pull(["b", "a"])) == ("a", "b")
    policy.update("b", 0.01)
    assert policy.pull(["a", "b", "c"]) == "b"


def test_river_burn_in_waits_for_outcomes_and_not_for_pulls() -> None:
    policy = bandit.EpsilonGreedy(epsilon=0.0, burn_in=5)
    assert {policy.pull(["a", "b"]) for _ in range(20)} == {"a"}


def test_river_thompson_cannot_be_made_of_its_defaults_and_hangs_on_the_order_of_arms() -> None:
    with pytest.raises(TypeError, match="seed"):
        bandit.ThompsonSampling().pull(["a", "b"])
    pulled = []
    for order in ("ab", "ba"):
        policy = bandit.ThompsonSampling(reward_obj=proba.Beta(), seed=3)
        for arm in order:
            policy.update(arm, 1)
        pulled.append([policy.pull(["a", "b"]) for _ in range(20)])
    assert pulled[0] != pulled[1]


def test_river_gaussian_thompson_never_narrows_and_is_certain_after_one_outcome() -> None:
    policy = bandit.ThompsonSampling(reward_obj=proba.Gaussian(), seed=1)
    policy.update("a", 0.5)
    assert policy._rewards["a"].sigma == 0.0
    for reward in np.random.default_rng(0).uniform(size=5000).tolist():
        policy.update("a", reward)
    assert policy._rewards["a"].sigma == pytest.approx(12**-0.5, abs=0.01)


def test_river_lin_ucb_counts_the_noise_of_an_answer_for_ignorance() -> None:
    policy = bandit.LinUCBDisjoint()
    for _ in range(2000):
        policy.update("a", {0: 1.0}, 0.5)
    told = policy._bayes_lin_regs["a"].predict_one({0: 1.0}, with_dist=True)
    assert told.sigma == pytest.approx(1.0, abs=0.001)


def test_river_lin_ucb_begins_with_a_covariance_that_is_not_the_inverse() -> None:
    policy = bandit.LinUCBDisjoint(alpha=4.0)
    policy.update("a", {0: 1.0}, 0.5)
    model = policy._bayes_lin_regs["a"]
    assert (model._ss_arr @ model._ss_inv_arr)[0, 0] == pytest.approx(0.25)


def test_river_smoothing_wears_the_prior_away() -> None:
    policy = bandit.LinUCBDisjoint(smoothing=0.9)
    sigmas = []
    for i in range(600):
        policy.update("a", {0: 1.0, 1: 0.0}, 0.5)
        if i in (99, 599):
            told = policy._bayes_lin_regs["a"].predict_one({0: 0.0, 1: 1.0}, with_dist=True)
            sigmas.append(told.sigma)
    assert sigmas[0] > 100.0
    assert sigmas[1] > 1e12


def test_river_a_policy_without_an_outcome_cannot_be_printed() -> None:
    with pytest.raises(ValueError, match="empty"):
        repr(bandit.UCB(delta=1.0))
