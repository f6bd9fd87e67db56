"""Offline routers: what each computes, by hand, and what holds of all of them."""

from __future__ import annotations

import importlib
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bandit_service.core.events import surface_of
from bandit_service.embedding import surface
from bandit_service.lab.data import Labelled
from bandit_service.lab.routers import (
    FORC,
    KNN,
    MLP,
    SVM,
    BestSingle,
    HybridLLM,
    KMeans,
    Logistic,
    MatrixFactorization,
    MissingExtra,
    OfflineRouter,
    Oracle,
    PolicyRouter,
    Ridge,
    SimilarityWeighted,
    TaskTable,
    Tuned,
    Uniform,
    ZeroRouter,
    eagle,
    standard,
    trace,
    tuned,
)
from bandit_service.lab.routers._logistic import fit_logistic
from bandit_service.lab.routers._pairs import drawn_pairs, wins_of
from bandit_service.lab.routers._sweep import (
    by_budget,
    by_dominance,
    by_price,
    by_threshold,
    levels_of,
)
from bandit_service.lab.routers.forc import estimated_cost
from bandit_service.lab.routers.policy import _Warm
from policies import Floats
from tests.unit.data.recordings import Looks
from tests.unit.lab.labelled import labelled, topics

NAN = float("nan")
ROUTERS: dict[str, OfflineRouter] = {
    "uniform": Uniform(),
    "best single": BestSingle(),
    "zero router": ZeroRouter(),
    "task label": TaskTable(),
    "kNN": KNN(9),
    "kNN by similarity": KNN(9, "similarity"),
    "kNN tuned": Tuned((KNN(3), KNN(9))),
    "ridge": Ridge(1.0),
    "logistic": Logistic(),
    "MLP": MLP((16,)),
    "MLP stopped early": MLP((16,), early_stopping=True),
    "SVM": SVM(),
    "k-means": KMeans(4, 1),
    "Avengers-Pro": KMeans(4, 1, "alpha"),
    "SW": SimilarityWeighted(),
    "MF": MatrixFactorization(dim=8, epochs=40, learning_rate=1e-2, noise=0.0, pairs=2),
    "FORC": FORC(),
    "FORC shared": FORC("shared"),
    "FORC threshold": FORC(rule="threshold"),
    "Hybrid det": HybridLLM("det"),
    "Hybrid prob": HybridLLM("prob"),
    "Hybrid trans": HybridLLM("trans"),
    "Eagle": eagle(),
    "Eagle on rewards": PolicyRouter("eagle"),
    "Eagle threshold": eagle(2, "dominance"),
    "MetaLLM": PolicyRouter("metallm", {"ridge": 1.0}),
}
BY_THE_QUERY = sorted(
    set(ROUTERS) - {"uniform", "best single", "zero router", "FORC shared", "Hybrid prob"}
)


def _everything(router: OfflineRouter, train: Labelled, test: Labelled) -> list[Any]:
    fitted = router.fit(train, 3)
    chosen = [(setting, choice.tolist()) for setting, choice in fitted.choices(test)]
    return [fitted.axis, fitted.seen, *chosen]


@pytest.mark.parametrize("name", ROUTERS)
def test_equal_arguments_give_equal_choices_and_outcomes_of_the_test_are_not_read(
    name: str,
) -> None:
    train, test = topics(80, missing=0.1), topics(40, missing=0.1, seed=6)
    before = (train.quality.copy(), train.cost.copy(), train.embeddings.copy())
    first = _everything(ROUTERS[name], train, test)
    usd = np.where(test.answered, 3.0, NAN)
    mirrored = replace(test.recorded, quality=1.0 - test.quality, cost=usd)
    again = _everything(ROUTERS[name], train, Labelled(mirrored, test.embeddings))
    np.testing.assert_equal(again, first)
    for table, kept in zip((train.quality, train.cost, train.embeddings), before, strict=True):
        np.testing.assert_array_equal(table, kept)


@pytest.mark.parametrize("name", ROUTERS)
def test_only_arms_that_answered_are_chosen(name: str) -> None:
    train, test = topics(80, missing=0.3), topics(60, missing=0.5, seed=7)
    traced = trace(ROUTERS[name].fit(train, 0), test)
    assert np.isfinite(traced.quality).all()
    assert np.allclose(traced.shares.sum(axis=1), 1.0)


_BEGIN_AT_A_PRIOR = {
    *("uniform", "Eagle", "Eagle on rewards", "Eagle threshold", "MetaLLM", "SW", "MF"),
}


# The others begin at a prior, which may be above what the arms that were seen have earned.
@pytest.mark.parametrize(
    "name",
    sorted(set(ROUTERS) - _BEGIN_AT_A_PRIOR),
)
def test_an_arm_that_training_never_saw_is_left_alone(name: str) -> None:
    train, test = topics(80), topics(30, seed=8)
    train.quality[:, 2] = train.cost[:, 2] = NAN
    traced = trace(ROUTERS[name].fit(train, 0), test)
    on_axis = ~np.isnan(traced.settings)
    assert traced.shares[on_axis, 2].max() == 0.0


@pytest.mark.parametrize("name", BY_THE_QUERY)
def test_two_topics_are_told_apart(name: str) -> None:
    train, test = topics(150), topics(100, seed=9)
    quality = trace(ROUTERS[name].fit(train, 0), test).points[1].max()
    assert quality > max(test.quality.mean(axis=0)) + 0.15


@pytest.mark.parametrize("name", BY_THE_QUERY)
def test_two_arms_are_a_pool_like_any_other(name: str) -> None:
    train, test = topics(150, arms=2), topics(100, arms=2, seed=9)
    traced = trace(ROUTERS[name].fit(train, 0), test)
    cost, quality = traced.points
    assert quality.max() > max(test.quality.mean(axis=0)) + 0.15
    assert cost[quality.argmax()] < cost.max() or cost.max() < test.cost[:, 1].mean()


def test_the_standard_set_can_be_made() -> None:
    assert {"zero router", "kNN tuned", "Eagle", "MetaLLM", "oracle"} <= set(standard())


# --- references ---------------------------------------------------------------------------

SMALL = labelled(
    [[1.0, 0.0], [0.5, 1.0], [0.0, 0.4]],
    [[4.0, 1.0], [4.0, 1.0], [4.0, 2.5]],
    np.eye(3),
    ["a", "a", "b"],
)


def test_uniform_is_an_expectation() -> None:
    part = labelled([[1.0, 0.0, NAN]], [[4.0, 1.0, NAN]], [[1.0]])
    traced = trace(Uniform().fit(SMALL, 0), part)
    assert traced.quality.tolist() == [[0.5]]
    assert traced.cost.tolist() == [[2.5]]
    assert traced.shares.tolist() == [[0.5, 0.5, 0.0]]


def test_the_best_single_arm_is_that_of_the_training_part() -> None:
    # means 0.5 and 0.4667
    traced = trace(BestSingle().fit(SMALL, 0), SMALL)
    assert traced.shares.tolist() == [[1.0, 0.0]]
    assert traced.points[1].tolist() == [0.5]
    # where it has no answer, the next
    gap = labelled([[NAN, 0.2]], [[NAN, 1.0]], [[1.0]])
    assert trace(BestSingle().fit(SMALL, 0), gap).quality.tolist() == [[0.2]]


def test_the_zero_router_offers_every_single_arm() -> None:
    traced = trace(ZeroRouter().fit(SMALL, 0), SMALL)
    assert set(map(tuple, traced.shares.tolist())) == {(1.0, 0.0), (0.0, 1.0)}
    assert np.isnan(traced.settings).sum() == 2
    assert traced.shares[0].tolist() == [1.0, 0.0]


def test_the_oracle_takes_the_cheapest_of_the_best() -> None:
    ties = labelled([[1.0, 1.0], [0.0, 1.0]], [[3.0, 1.0], [1.0, 3.0]], np.eye(2))
    traced = trace(Oracle().fit(ties, 0), ties)
    assert traced.quality[0].tolist() == [1.0, 1.0]
    assert traced.cost[0].tolist() == [1.0, 3.0]


def test_a_task_table_by_hand() -> None:
    fitted = TaskTable().fit(SMALL, 0)
    assert np.allclose(fitted.quality(SMALL), [[0.75, 0.5], [0.75, 0.5], [0.0, 0.4]])
    other = labelled([[0.0, 0.0]], [[1.0, 1.0]], [[1.0]], ["c"])
    assert np.allclose(fitted.quality(other), [[0.5, 1.4 / 3]])


# --- the sweeps ---------------------------------------------------------------------------

ALL = np.ones((1, 3), bool)


def _chosen(found: Any) -> list[int]:
    return [int(choice[0]) for _, choice in found]


def test_by_price_by_hand() -> None:
    quality, cost = np.array([[0.9, 0.5, 0.9]]), np.array([3.0, 1.0, 2.0])
    # at 0 the cheaper of two equal ones; 0.9 − 2λ = 0.5 − λ at λ = 0.4, where the cheaper wins
    prices = np.array([0.0, 0.3, 0.41])
    assert _chosen(by_price(quality, cost, ALL, prices)) == [2, 2, 1]
    masked = np.array([[True, True, False]])
    assert _chosen(by_price(quality, cost, masked, prices)) == [0, 1, 1]


def test_by_budget_by_hand() -> None:
    scores, cost = np.array([[3.0, 1.0, 2.0]]), np.array([3.0, 1.0, 2.0])
    assert next(iter(by_budget(scores, cost, ALL)))[0] == 3.0
    assert _chosen(by_budget(scores, cost, ALL)) == [0, 2, 1]
    # nothing fits a budget of 1 but what has no answer: the cheapest that has
    masked = np.array([[True, False, True]])
    assert _chosen(by_budget(scores, cost, masked)) == [0, 2, 2]


def test_by_threshold_by_hand() -> None:
    score = np.array([0.2, 0.6, 0.9, 0.9, 0.1])
    answered = np.array([[1, 1, 1], [1, 1, 1], [1, 1, 0], [0, 0, 1], [0, 1, 0]], bool)
    ((_, chosen),) = by_threshold(score, np.array([0.5]), 0, 1, answered)
    assert chosen.tolist() == [1, 0, 0, 2, 1]


def test_by_dominance_by_hand() -> None:
    # arms from cheap to dear: 1, 2, 0, with strengths 0, 2, 1
    strength, cost = np.array([[1.0, 0.0, 2.0]]), np.array([3.0, 1.0, 2.0])
    # 2 beats 1 with σ(2) = 0.881, 0 beats 2 with σ(−1) = 0.269
    levels = np.array([0.0, 0.2, 0.3, 0.5, 0.88, 0.89, 2.0])
    assert _chosen(by_dominance(strength, cost, levels, ALL)) == [0, 0, 2, 2, 2, 1, 1]
    masked = np.array([[True, True, False]])
    # 0 beats 1 with σ(1) = 0.731
    assert _chosen(by_dominance(strength, cost, levels, masked)) == [0, 0, 0, 0, 1, 1, 1]


@given(st.lists(st.tuples(st.floats(-5, 5), st.floats(-5, 5)), min_size=1, max_size=20))
def test_for_two_arms_dominance_is_a_threshold_on_the_chance_that_the_dear_one_wins(
    strengths: list[tuple[float, float]],
) -> None:
    strength = np.round(np.array(strengths), 3)
    answered = np.ones(strength.shape, bool)
    cost = np.array([2.0, 1.0])
    chance = 1.0 / (1.0 + np.exp(strength[:, 1] - strength[:, 0]))
    for level, chosen in by_dominance(strength, cost, np.array([0.11, 0.5, 0.83]), answered):
        clear = np.abs(chance - level) > 1e-9
        assert np.array_equal((chosen == 0)[clear], (chance >= level)[clear])
    levels = levels_of(strength, cost, answered)
    assert levels[0] == 0.5
    shares = [(chosen == 0).mean() for _, chosen in by_dominance(strength, cost, levels, answered)]
    assert (min(shares), max(shares)) == (0.0, 1.0)


# --- predictors by hand -------------------------------------------------------------------


def test_knn_by_hand() -> None:
    train = labelled(
        [[1.0, 0.0], [0.0, NAN], [1.0, 1.0]],
        [[1.0, 2.0], [1.0, NAN], [1.0, 2.0]],
        [[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]],
    )
    query = labelled([[0.0, 0.0]], [[1.0, 1.0]], [[1.0, 0.0]])
    # the two nearest are the first, cosine 1, and the second, 0.8, which arm1 did not answer
    assert np.allclose(KNN(2).fit(train, 0).quality(query), [[0.5, 0.0]], atol=1e-5)
    by_similarity = KNN(2, "similarity").fit(train, 0).quality(query)
    assert np.allclose(by_similarity, [[1.0 / 1.8, 0.0]], atol=1e-5)
    assert np.allclose(KNN(9).fit(train, 0).quality(query), [[2 / 3, 0.5]], atol=1e-5)


def test_ridge_is_what_scikit_learn_fits() -> None:
    linear_model = importlib.import_module("sklearn.linear_model")
    train, test = topics(60), topics(10, seed=1)
    got = Ridge(3.0).fit(train, 0).quality(test)
    x = train.embeddings.astype(float)
    for arm in range(3):
        theirs = linear_model.Ridge(alpha=3.0).fit(x, train.quality[:, arm])
        assert np.allclose(got[:, arm], theirs.predict(test.embeddings.astype(float)))


def test_logistic_is_what_scikit_learn_fits() -> None:
    linear_model = importlib.import_module("sklearn.linear_model")
    train, test = topics(60), topics(10, seed=1)
    got = Logistic(0.7).fit(train, 0).quality(test)
    x = train.embeddings.astype(float)
    for arm in range(3):
        theirs = linear_model.LogisticRegression(C=0.7, tol=1e-10).fit(x, train.quality[:, arm])
        chance = theirs.predict_proba(test.embeddings.astype(float))[:, 1]
        # the thousandth of an observation on either side is ours
        assert np.allclose(got[:, arm], chance, atol=1e-3)


def test_a_soft_label_is_a_share_of_both() -> None:
    x = np.array([[0.3], [-0.2], [0.9]])
    soft = fit_logistic(x, np.array([0.25, 1.0, 0.5]), 2.0)
    twice = np.array([0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2])
    hard = fit_logistic(x[twice], np.array([1, 0, 0, 0, 1, 1, 1, 1, 1, 1, 0, 0.0]), 0.5)
    assert np.allclose(soft.chance(x), hard.chance(x), atol=2e-3)
    one_sided = fit_logistic(x, np.ones(3), 1.0)
    assert (one_sided.chance(x) > 0.99).all()


def test_k_means_by_hand() -> None:
    train = labelled(
        [[1.0, 0.0], [0.5, 0.0], [0.0, NAN]],
        [[1.0, 2.0], [1.0, 2.0], [1.0, NAN]],
        [[1.0, 0.0], [1.0, 0.001], [0.0, 1.0]],
    )
    query = labelled([[0.0, 0.0]] * 2, [[1.0, 1.0]] * 2, [[1.0, 0.0], [0.0, 1.0]])
    one = KMeans(2, 1).fit(train, 0).quality(query)
    assert np.allclose(one, [[0.75, 0.0], [0.0, 0.0]], atol=1e-5)
    both = KMeans(2, 2).fit(train, 0).quality(query)
    assert np.allclose(both, [[0.375, 0.0]] * 2, atol=1e-5)


def test_the_avengers_scale_quality_and_cost_for_each_query() -> None:
    train = labelled([[0.9, 0.5, 0.1]], [[3.0, 1.0, 2.0]], [[1.0]])
    fitted = KMeans(1, 1, "alpha").fit(train, 0)
    # q̃ = 1, ½, 0 and c̃ = 1, 0, ½: the first leads while α > (1 − α)/1 + α/2, so above 2/3
    chosen = {round(alpha, 2): int(choice[0]) for alpha, choice in fitted.choices(train)}
    assert [chosen[alpha] for alpha in (1.0, 0.67, 0.66, 0.0)] == [0, 0, 1, 1]


def test_pairs_by_hand() -> None:
    train = labelled([[1.0, 0.0, 0.96], [0.2, NAN, 0.4]], np.ones((2, 3)), np.eye(2))
    train.cost[1, 1] = NAN
    pairs = drawn_pairs(train, None, 0.05, 0)
    assert pairs.row.tolist() == [0, 0, 0, 1]
    assert list(zip(pairs.first.tolist(), pairs.second.tolist(), strict=True)) == [
        (0, 1),
        (0, 2),
        (1, 2),
        (0, 2),
    ]
    assert pairs.margin.tolist() == pytest.approx([1.0, 0.0, -0.96, -0.2])
    wins = wins_of(pairs, 2, 3)
    assert wins[0].tolist() == [[0, 1, 0.5], [0, 0, 0], [0.5, 1, 0]]
    assert wins[1].tolist() == [[0, 0, 0], [0, 0, 0], [1, 0, 0]]
    few = drawn_pairs(train, 1, 0.0, 4)
    assert few.row.tolist() == [0, 1]


def test_similarity_weighted_ranking_by_hand() -> None:
    # q0: arm0 won, at cosine 1; q1: arm1 won, at cosine 0. Weights 10·10 and 10·1.
    train = labelled([[1.0, 0.0], [0.0, 1.0]], [[2.0, 1.0]] * 2, np.eye(2))
    query = labelled([[0.0, 0.0]], [[1.0, 1.0]], [[1.0, 0.0]])
    fitted = SimilarityWeighted(ridge=1e-9).fit(train, 0)
    (gap,) = np.diff(fitted.strengths(query)[0])
    assert gap == pytest.approx(-np.log(10.0), abs=1e-6)
    # arm0, the dearer, wins with 10/11
    shares = {level: int(c[0]) for level, c in fitted.choices(query)}
    assert shares[0.5] == 0
    chosen = by_dominance(
        fitted.strengths(query), fitted.cost, np.array([0.90, 0.92]), np.ones((1, 2), bool)
    )
    assert _chosen(chosen) == [0, 1]


def test_forc_estimates_cost_by_hand() -> None:
    train = labelled([[1.0, 0.0], [0.0, NAN]], [[5e-5, 3e-5], [7e-5, NAN]], np.eye(2))
    # 10 tokens at 1 USD per million are 1e-5, so outputs cost 4e-5 and 6e-5, and 2e-5
    query = labelled([[0.0, 0.0]], [[1.0, 1.0]], [[1.0, 0.0]])
    query = Labelled(replace(query.recorded, tokens=np.array([30])), query.embeddings)
    assert np.allclose(estimated_cost(train, query), [[8e-5, 5e-5]])


def test_forc_takes_the_cheapest_arm_that_is_good_enough() -> None:
    train = topics(80)
    fitted = FORC(rule="threshold").fit(train, 0)
    chance, cost = fitted.quality(train), estimated_cost(train, train)
    half = {round(level, 2): choice for level, choice in fitted.choices(train)}[0.5]
    for i, arm in enumerate(half):
        good = np.flatnonzero(chance[i] > 0.5)
        want = good[np.argmin(cost[i, good])] if good.size else np.argmax(chance[i])
        assert arm == want


def test_hybrid_labels_by_hand() -> None:
    gap = np.array([-1.0, -0.5, 0.0, 0.5])
    assert HybridLLM("det").labels(gap).tolist() == [0.0, 0.0, 1.0, 1.0]
    prob = HybridLLM("prob", temperature=0.5).labels(gap)
    assert np.allclose(prob, 1.0 / (1.0 + np.exp(-gap / 0.5)))
    # two of four at t = 0, three of four from ½ on: the former spread more
    hard = HybridLLM("trans", temperature=0.0)
    assert hard.labels(gap).tolist() == [0.0, 0.0, 1.0, 1.0]
    # one of four at t = 0, two from ½ on
    worse = np.array([-1.0, -0.8, -0.5, 0.5])
    assert hard.labels(worse).tolist() == [0.0, 0.0, 1.0, 1.0]


def test_hybrid_takes_the_best_arm_and_the_best_cheap_one() -> None:
    quality = [[0.9, 0.8, 0.5, 0.6]]
    train = labelled(quality, [[10.0, 9.0, 1.0, 4.0]], [[1.0]])
    assert HybridLLM().pair(train) == (3, 0)
    assert HybridLLM(ratio=0.2).pair(train) == (2, 0)
    assert HybridLLM(ratio=0.05).pair(train) == (2, 0)
    assert HybridLLM(ratio=1.0).pair(train) == (1, 0)
    with pytest.raises(ValueError, match="two arms"):
        HybridLLM().pair(labelled([[1.0]], [[1.0]], [[1.0]]))
    apart = labelled([[0.9, NAN], [NAN, 0.5]], [[2.0, NAN], [NAN, 1.0]], np.eye(2))
    with pytest.raises(ValueError, match="both arm1 and arm0"):
        HybridLLM().fit(apart, 0)


# --- policies -----------------------------------------------------------------------------


def test_eagle_is_taught_by_matches() -> None:
    train = labelled([[1.0, 0.0]], [[2.0, 1.0]], [[1.0, 0.0]])
    fitted = eagle().fit(train, 0)
    assert fitted.state.ratings == {"arm0": 1016.0, "arm1": 984.0}
    assert (fitted.axis, fitted.seen) == ("budget", 1)
    assert _chosen(fitted.choices(train)) == [0, 1]
    # global 1016 and 984; locally the match is played again, from E = 1/(1 + 10^(−32/400))
    again = 32.0 * (1.0 - 1.0 / (1.0 + 10.0**-0.08))
    scores = fitted._scores(train, 1.0)
    assert np.allclose(scores, [[1016.0 + again / 2, 984.0 - again / 2]])
    chance = 1.0 / (1.0 + 10.0 ** (-(32.0 + again) / 400.0))
    swept = eagle(without_price="dominance").fit(train, 0)
    assert swept.axis == "threshold"
    by_level = {level: int(choice[0]) for level, choice in swept.choices(train)}
    assert max(level for level, arm in by_level.items() if arm == 0) == pytest.approx(chance)


def test_a_policy_whose_scores_are_merit_less_cost_is_asked_once() -> None:
    train, test = topics(60, missing=0.1), topics(20, missing=0.1, seed=2)
    fitted = PolicyRouter("metallm", {"ridge": 1.0}).fit(train, 0)
    assert isinstance(fitted, _Warm)
    assert (fitted.form, fitted.axis, fitted.seen) == ("merit", "price", train.answered.sum())
    slow = replace(fitted, form="other")
    swept = dict(fitted.choices(test))
    for price, choice in slow.choices(test):
        near = min(swept, key=lambda other: abs(other - price))
        assert np.array_equal(swept[near], choice)


@pytest.mark.parametrize("feedback", ["rewards", "comparisons"])
def test_a_policy_is_shown_the_surface_of_each_text(
    feedback: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks, data = Looks(), topics(12)
    texts = tuple(f"{i} " * i + "why?" * (i % 2) for i in range(1, 13))
    data = Labelled(replace(data.recorded, texts=texts), data.embeddings)
    monkeypatch.setattr(PolicyRouter, "policy", lambda _: looks)
    PolicyRouter("uniform", feedback=feedback).fit(data, 0)
    shown = zip(texts, data.embeddings, strict=True)
    of = [(surface_of(surface(text)).tobytes(), float(x[0])) for text, x in shown]
    assert set(looks.learned) == set(of)
    assert looks.proposed[:8] == of[:8]


def test_what_is_taken_in_later_counts_as_much() -> None:
    train, more, test = topics(40), topics(30, seed=3), topics(20, seed=4)
    router = PolicyRouter("metallm", {"ridge": 1.0})
    both = Labelled(
        replace(
            train.recorded,
            ids=train.recorded.ids + tuple(f"more {id}" for id in more.recorded.ids),
            texts=train.recorded.texts + more.recorded.texts,
            quality=np.concatenate([train.quality, more.quality]),
            cost=np.concatenate([train.cost, more.cost]),
            tokens=np.concatenate([train.recorded.tokens, more.recorded.tokens]),
            tasks=train.recorded.tasks + more.recorded.tasks,
        ),
        np.concatenate([train.embeddings, more.embeddings]),
    )
    at_once = router.fit(both, 0)
    later = router.fit(train, 0).update(more, 0)
    assert later.seen == at_once.seen
    scores = at_once._scores(test, 1.0)
    assert np.allclose(later._scores(test, 1.0), scores, atol=1e-5)
    assert np.allclose(later.cost, at_once.cost)


def test_eagle_remembers_what_it_took_in_later() -> None:
    train, more = topics(40), topics(30, seed=3)
    fitted = eagle(2).fit(train, 0).update(more, 0)
    assert (fitted.seen, len(fitted.rows), len(fitted.vectors)) == (140, 70, 70)
    assert [row.id for row in fitted.rows] == list(range(70))


# --- tuning and refusals ------------------------------------------------------------------


def test_the_better_setting_is_chosen_without_the_test_part() -> None:
    train = topics(120)
    grid = (KNN(100), KNN(5))
    assert tuned(grid, train, 0) == KNN(5)
    fitted, alone = Tuned(grid).fit(train, 0), KNN(5).fit(train, 0)
    for (_, got), (_, want) in zip(fitted.choices(train), alone.choices(train), strict=True):
        assert np.array_equal(got, want)


def test_a_grid_of_one_needs_no_validation() -> None:
    assert tuned([KNN(3)], topics(1), 0) == KNN(3)


def test_without_scikit_learn_the_error_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = importlib.import_module

    def missing(name: str, package: str | None = None) -> Any:
        if name.startswith("sklearn"):
            raise ModuleNotFoundError(name)
        return real(name, package)

    monkeypatch.setattr(importlib, "import_module", missing)
    for router in (MLP(), SVM(), KMeans()):
        with pytest.raises(
            MissingExtra, match=r"scikit-learn is not installed; pip install .*scikit-learn"
        ):
            router.fit(topics(20), 0)


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: KNN(0), "k: "),
        (lambda: KNN(3, "other"), "weighting"),
        (lambda: Ridge(0.0), "alpha"),
        (lambda: Logistic(-1.0), "strength"),
        (lambda: MLP(()), "hidden"),
        (lambda: MLP(iterations=0), "iterations"),
        (lambda: SVM(epsilon=-1.0), "epsilon"),
        (lambda: KMeans(0), "clusters"),
        (lambda: KMeans(nearest=0), "nearest"),
        (lambda: KMeans(rule="x"), "rule"),
        (lambda: SimilarityWeighted(base=0.0), "base"),
        (lambda: MatrixFactorization(pairs=0), "pairs"),
        (lambda: FORC("x"), "head"),
        (lambda: FORC(otherwise="x"), "otherwise"),
        (lambda: HybridLLM("x"), "label"),
        (lambda: HybridLLM(ratio=2.0), "ratio"),
        (lambda: PolicyRouter("nobody"), "nobody"),
        (lambda: PolicyRouter("eagle", {"blend": 2.0}), "blend"),
        (lambda: PolicyRouter("eagle", feedback="x"), "feedback"),
        (lambda: eagle(without_price="x"), "without_price"),
        (lambda: Tuned(()), "grid"),
        (lambda: tuned((), topics(3), 0), "router_grid"),
        (lambda: tuned((KNN(), KNN(1)), topics(1), 0), "too few"),
    ],
)
def test_bad_settings_are_refused_by_name(make: Any, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        make()


def test_an_arm_without_an_answer_is_never_scored() -> None:
    class Blind:
        axis = "price"
        seen = 0

        def choices(self, queries: Labelled) -> Any:
            yield 0.0, np.zeros(len(queries), np.int64)

    gap: Floats = np.array([[NAN, 0.2]])
    with pytest.raises(RuntimeError, match="no answer"):
        trace(Blind(), labelled(gap, gap, [[1.0]]))  # type: ignore[arg-type]
