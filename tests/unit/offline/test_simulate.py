"""Recorded traffic through the fold: baselines by hand, reproducible runs, policies that learn."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

import policies
from bandit_service.core import events as ev
from bandit_service.core.exploration import Exploration
from bandit_service.core.outcomes import RewardRule
from bandit_service.data.recordings import Recorded
from bandit_service.embedding import surface
from bandit_service.offline.baselines import baselines, rewards
from bandit_service.offline.simulate import (
    Feedback,
    Phase,
    Run,
    Warm,
    added,
    order_of,
    simulate,
)
from policies import ArmId, Vector
from tests.unit.data.recordings import Looks, planted, recording

NAN = math.nan
RULE = RewardRule(willingness_to_pay=0.10)


def _run(recorded: Recorded, vectors: Vector, policy: str, seed: int = 0) -> Run:
    return simulate(
        recorded, vectors, policies.load(policy), seed=seed, explore=Exploration(), rule=RULE
    )


def _random_vectors(n: int) -> Vector:
    vectors = np.random.default_rng(0).normal(size=(n, 4))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors, np.float32)


def test_baselines_by_hand() -> None:
    recorded = recording(
        [[1.0, 0.5], [0.0, 0.5], [0.8, 0.8]], [[0.02, 0.0], [0.02, 0.0], [0.02, 0.01]]
    )
    # the quality less ten times the bill
    reward = [[0.8, 0.5], [-0.2, 0.5], [0.6, 0.7]]
    assert np.allclose(rewards(recorded, RULE), reward)
    found = baselines(recorded, RULE)
    assert found.best_arm == "arm1"  # 1.7 / 3 against 1.2 / 3
    assert np.allclose(found.uniform.reward, [0.65, 0.15, 0.65])
    assert np.allclose(found.uniform.cost, [0.01, 0.01, 0.015])
    assert np.allclose(found.best.reward, [0.5, 0.5, 0.7])
    assert np.allclose(found.oracle.reward, [0.8, 0.5, 0.7])
    assert np.allclose(found.oracle.quality, [1.0, 0.5, 0.8])


def test_an_oracle_takes_the_cheaper_of_equals() -> None:
    free = RewardRule(willingness_to_pay=1e6)
    found = baselines(recording([[0.0, 0.0]], [[0.0, 0.0]]), free)
    assert found.oracle.cost.tolist() == [0.0]
    # −1 is the least reward there is, so these two bills are worth the same
    found = baselines(recording([[0.0, 0.0]], [[3.0, 2.0]]), RewardRule(willingness_to_pay=1.0))
    assert found.oracle.cost.tolist() == [2.0]


def test_missing_answers_are_neither_chosen_nor_counted() -> None:
    recorded = recording([[NAN, 0.5, 0.1], [0.9, NAN, 0.3]], [[NAN, 0.0, 0.0], [0.0, NAN, 0.0]])
    found = baselines(recorded, RULE)
    assert np.allclose(found.uniform.reward, [0.3, 0.6])
    assert found.best_arm == "arm0"  # (0.3 standing in + 0.9) / 2
    assert np.allclose(found.best.reward, [0.3, 0.9])
    assert np.allclose(found.oracle.reward, [0.5, 0.9])
    for seed in range(20):
        run = _run(recorded, _random_vectors(2), "uniform", seed)
        assert not np.isnan(recorded.quality[run.order, run.arm]).any()


def test_an_arm_that_never_answered_is_never_the_best() -> None:
    found = baselines(recording([[NAN, 0.1]], [[NAN, 0.0]]), RULE)
    assert found.best_arm == "arm1"


@pytest.mark.parametrize("seed", range(5))
def test_the_oracle_is_not_below_the_best_single_nor_that_below_uniform(seed: int) -> None:
    rng = np.random.default_rng(seed)
    quality = np.where(rng.random((50, 4)) < 0.2, NAN, rng.random((50, 4)))
    quality[:, 3] = rng.random(50)
    cost = np.where(np.isnan(quality), NAN, rng.random((50, 4)) * 0.05)
    found = baselines(recording(quality.tolist(), cost.tolist()), RULE)
    assert (found.oracle.reward >= found.best.reward - 1e-12).all()
    assert (found.oracle.reward >= found.uniform.reward - 1e-12).all()
    complete = baselines(recording(rng.random((50, 4)).tolist(), np.zeros((50, 4)).tolist()), RULE)
    assert complete.best.reward.mean() >= complete.uniform.reward.mean()


def test_equal_seeds_give_equal_runs_and_others_do_not() -> None:
    recorded, vectors = planted(300)
    first, again, other = (_run(recorded, vectors, "metallm", seed) for seed in (1, 1, 2))
    assert first.order.tolist() == again.order.tolist()
    assert first.arm.tolist() == again.arm.tolist()
    assert first.track.reward.tolist() == again.track.reward.tolist()
    assert first.order.tolist() != other.order.tolist()
    assert sorted(other.order) == list(range(300))


def test_the_order_is_of_the_queries_not_of_the_file() -> None:
    recorded, _ = planted(20)
    cut = recorded.first(10)
    kept = [i for i in order_of(recorded, 5).tolist() if i < 10]
    assert order_of(cut, 5).tolist() == kept


def test_what_is_told_is_what_was_recorded() -> None:
    recorded, vectors = planted(50)
    told: list[tuple[int, float]] = []
    run = simulate(
        recorded,
        vectors,
        policies.load("uniform"),
        seed=4,
        explore=Exploration(),
        rule=RULE,
        watch=lambda steps, total: told.append((steps, total)),
    )
    table = rewards(recorded, RULE)
    assert np.array_equal(run.track.reward, table[run.order, run.arm])
    assert np.array_equal(run.track.cost, recorded.cost[run.order, run.arm])
    assert [steps for steps, _ in told] == list(range(1, 51))
    assert told[-1][1] == pytest.approx(run.track.reward.sum())
    assert run.regret(run.baselines.best)[-1] == pytest.approx(
        run.baselines.best.reward.sum() - run.track.reward.sum()
    )


@pytest.mark.parametrize("feedback", ["bandit", "full", "duel"])
def test_a_policy_is_shown_the_surface_of_each_text(
    feedback: Feedback,
) -> None:
    looks = Looks()
    recorded, vectors = planted(30)
    texts = tuple(f"{i} " * i + "why?" * (i % 2) for i in range(1, 31))
    recorded = replace(recorded, texts=texts)
    simulate(
        recorded.first(20),
        vectors[:20],
        looks,
        seed=1,
        explore=Exploration(),
        rule=RULE,
        feedback=feedback,
        warm=Warm(recorded.take(np.arange(20, 30)), vectors[20:], pairs=int(feedback == "duel")),
    )
    of = [
        (ev.surface_of(surface(text)).tobytes(), float(x[0]))
        for text, x in zip(texts, vectors, strict=True)
    ]
    assert looks.proposed == [of[row] for row in order_of(recorded.first(20), 1).tolist()]
    assert set(looks.learned) == set(of)


@pytest.mark.parametrize("policy", ["metallm", "eagle"])
def test_a_policy_finds_the_planted_topics(policy: str) -> None:
    recorded, vectors = planted(1200)
    run = _run(recorded, vectors, policy)
    assert (run.fallbacks, run.failures) == (0, 0)
    last = slice(800, None)
    uniform, best = run.baselines.uniform.reward[last], run.baselines.best.reward[last]
    assert run.track.reward.mean() > run.baselines.uniform.reward.mean() + 0.15
    assert run.track.reward[last].mean() > uniform.mean() + 0.2
    assert run.track.reward[last].mean() > best.mean()


def test_forgetting_old_decisions_and_a_small_history_hold_memory_down() -> None:
    recorded, vectors = planted(1100)
    run = simulate(
        recorded,
        vectors,
        policies.load("eagle"),
        seed=0,
        explore=Exploration(),
        rule=RULE,
        capacity=50,
    )
    assert run.track.reward.mean() > run.baselines.uniform.reward.mean()


def test_full_feedback_shows_every_answer_and_a_duel_one_comparison() -> None:
    recorded, vectors = planted(120)
    expected: list[tuple[Feedback, int]] = [("bandit", 120), ("full", 360), ("duel", 120)]
    for feedback, shown in expected:
        run = simulate(
            recorded,
            vectors,
            policies.load("eagle"),
            seed=0,
            explore=Exploration(),
            rule=RULE,
            feedback=feedback,
        )
        assert (run.outcomes, run.failures, run.fallbacks) == (shown, 0, 0)


def test_what_is_known_beforehand_is_learnt_before_the_first_query() -> None:
    recorded, vectors = planted(400)
    known, rest = np.arange(200), np.arange(200, 400)
    warm = Warm(recorded.take(known), vectors[known])
    votes = Warm(recorded.take(known), vectors[known], pairs=2)
    rewards = {}
    shown = {"cold": 200, "warm": 200 + 200 * 3, "votes": 200 + 200 * 2}
    for name, before in (("cold", None), ("warm", warm), ("votes", votes)):
        run = simulate(
            recorded.take(rest),
            vectors[rest],
            policies.load("metallm"),
            seed=1,
            explore=Exploration(),
            rule=RULE,
            warm=before,
        )
        rewards[name] = run.track.reward[:50].mean()
        assert run.outcomes == shown[name]
    assert min(rewards["warm"], rewards["votes"]) > rewards["cold"] + 0.05


def test_what_is_known_beforehand_is_weighed_once_and_before_the_first_query() -> None:
    recorded, vectors = planted(60)
    warm = Warm(recorded.take(np.arange(40)), vectors[:40], strength=3.0)
    heard: list[ev.AnyEvent] = []
    simulate(
        recorded,
        vectors,
        policies.load("epsilon_greedy"),
        seed=0,
        explore=Exploration(),
        rule=RULE,
        warm=warm,
        heard=heard.append,
    )
    kinds = [ev.kind(event) for event in heard]
    (at,) = [i for i, kind in enumerate(kinds) if kind == "prior_weighed"]
    assert kinds[at - 1] == "rewarded"
    assert kinds[at + 1] == "decided"
    event = heard[at]
    assert isinstance(event, ev.PriorWeighed)
    assert set(event.keep.values()) == {3.0 / 40.0}
    taught = [one.prior for one in heard if isinstance(one, ev.Rewarded)]
    assert taught == [True] * (40 * len(recorded.arms)) + [False] * 60


def test_phases_change_the_outcomes_the_arms_and_the_baselines() -> None:
    recorded, vectors = planted(300)
    worse = replace(recorded, quality=np.where([True, False, False], 0.0, recorded.quality))
    without = replace(
        worse,
        quality=np.where([False, True, False], NAN, worse.quality),
        cost=np.where([False, True, False], NAN, worse.cost),
    )
    run = simulate(
        recorded,
        vectors,
        policies.load("uniform"),
        seed=2,
        explore=Exploration(),
        rule=RULE,
        phases=(
            Phase(0, recorded, added(recorded)),
            Phase(100, worse),
            Phase(200, without, (ev.ArmRetired(ts=0.0, id=ArmId("arm1"), source="api"),)),
        ),
    )
    assert set(run.arm[:200].tolist()) == {0, 1, 2}
    assert set(run.arm[200:].tolist()) == {0, 2}
    assert run.track.quality[100:][run.arm[100:] == 0].max() == 0.0
    assert run.track.quality[:100][run.arm[:100] == 0].max() > 0.0
    rows = run.order[250]
    assert run.baselines.uniform.quality[250] == pytest.approx(without.quality[rows, [0, 2]].mean())
    assert run.baselines.oracle.quality[50] == recorded.quality[run.order[50]].max()


def test_a_recorded_latency_is_a_signal_and_part_of_the_reward() -> None:
    recorded, vectors = planted(200)
    slow = replace(recorded, latency=np.tile([10.0, 1.0, NAN], (200, 1)))
    rule = RewardRule(willingness_to_pay=1e6, latency_weight=0.05)
    assert baselines(slow, rule).oracle.reward[0] == pytest.approx(
        np.max(recorded.quality[0] - [0.5, 0.05, 0.0]), abs=1e-6
    )
    run = simulate(
        slow, vectors, policies.load("metallm"), seed=0, explore=Exploration(), rule=rule
    )
    assert slow.latency is not None
    waited = np.nan_to_num(slow.latency[run.order, run.arm])
    expected = run.track.quality - 0.05 * waited
    assert run.track.reward == pytest.approx(np.clip(expected, -1.0, 1.0), abs=1e-6)


def test_outcomes_that_come_late_are_all_shown_and_teach_late() -> None:
    recorded, vectors = planted(1200)

    def run(delay: int) -> Run:
        return simulate(
            recorded,
            vectors,
            policies.load("metallm"),
            seed=1,
            explore=Exploration(),
            rule=RULE,
            delay=delay,
        )

    at_once, late, never = run(0), run(50), run(5000)
    assert at_once.outcomes == late.outcomes == never.outcomes == 1200
    table = rewards(recorded, RULE)
    for each in (at_once, late, never):
        assert np.array_equal(each.track.reward, table[each.order, each.arm])
    # what came too late for every decision taught none of them
    assert late.chance[:50].tolist() == never.chance[:50].tolist()
    assert late.chance[60:].tolist() != never.chance[60:].tolist()
    regrets = [each.regret(each.baselines.oracle)[-1] for each in (at_once, late, never)]
    assert regrets[0] < regrets[2]
    assert regrets[1] < regrets[2]
