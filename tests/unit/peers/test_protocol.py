"""The pass itself: order, reward, what a peer is shown, and what it may choose."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest

from bandit_service.core.exploration import Exploration
from bandit_service.core.outcomes import RewardRule
from bandit_service.offline.simulate import order_of, simulate
from loadtest.peers.protocol import (
    Asked,
    Floored,
    Illegal,
    Missing,
    Outcome,
    Problem,
    Shifted,
    list_costs,
    need,
    pass_through,
)
from policies.metallm import MetaLLM
from tests.unit.data.recordings import planted, recording

RULE = RewardRule(0.10)


@dataclass
class _Scripted:
    """Plays these arms and remembers what it was shown."""

    arms: list[int]
    propensity: float | None = None
    asked: list[Asked] = field(default_factory=list)
    learned: list[tuple[str, int, float | None, Outcome]] = field(default_factory=list)

    def choose(self, asked: Asked) -> tuple[int, float | None]:
        self.asked.append(asked)
        return self.arms[len(self.asked) - 1], self.propensity

    def learn(self, asked: Asked, arm: int, propensity: float | None, outcome: Outcome) -> None:
        self.learned.append((asked.text, arm, propensity, outcome))


def test_only_the_chosen_arms_outcome_comes_back_in_the_order_of_the_seed() -> None:
    recorded = recording([[1.0, 0.5], [0.25, 0.75]], [[0.05, 0.0], [0.2, 0.01]])
    features = np.array([[1.0, 2.0], [3.0, 4.0]])
    order = order_of(recorded, seed=4).tolist()
    peer = _Scripted([0, 1], propensity=0.5)
    passed = pass_through(recorded, features, peer, RULE, seed=4)
    outcomes = {
        (0, 0): Outcome(0.5, 1.0, 0.05),
        (1, 0): Outcome(-1.0, 0.25, 0.2),  # 0.25 − 2, cut to −1
        (0, 1): Outcome(0.5, 0.5, 0.0),
        (1, 1): Outcome(0.75 - 0.01 / 0.10, 0.75, 0.01),
    }
    expected = [(f"question {row}", k, 0.5, outcomes[row, k]) for k, row in enumerate(order)]
    assert peer.learned == expected
    assert [asked.x.tolist() for asked in peer.asked] == features[order].tolist()
    assert peer.asked[0].with_constant.tolist() == [*features[order[0]], 1.0]
    assert passed.arm.tolist() == [0, 1]
    assert passed.track.reward.tolist() == [outcome.reward for *_, outcome in expected]
    assert min(passed.decide_s) >= 0.0 <= min(passed.learn_s)


def test_a_peer_that_does_as_ours_earns_what_ours_earns() -> None:
    recorded, embeddings = planted(120)
    ours = simulate(
        recorded, embeddings, MetaLLM(), seed=7, explore=Exploration(), rule=RULE, neighbours=0
    )
    peer = _Scripted(ours.arm.tolist())
    passed = pass_through(recorded, embeddings.astype(np.float64), peer, RULE, seed=7)
    for name in ("reward", "quality", "cost"):
        assert np.array_equal(getattr(passed.track, name), getattr(ours.track, name))


def test_a_shifted_peer_is_taught_one_less_and_earns_the_same() -> None:
    recorded = recording([[1.0, 0.5]], [[0.05, 0.0]])
    peer = _Scripted([0])
    passed = pass_through(recorded, np.ones((1, 2)), Shifted(peer), RULE, seed=0)
    assert peer.learned == [("question 0", 0, None, Outcome(-0.5, 1.0, 0.05))]
    assert passed.track.reward.tolist() == [0.5]


@pytest.mark.parametrize(
    ("arm", "propensity", "why"),
    [(2, None, "arm from 0 to 1"), (-1, None, "arm from 0"), (0, 0.0, "prop"), (0, 1.1, "prop")],
)
def test_an_illegal_choice_ends_the_pass(arm: int, propensity: float | None, why: str) -> None:
    recorded = recording([[1.0, 0.5]], [[0.0, 0.0]])
    with pytest.raises(Illegal, match=why):
        pass_through(recorded, np.ones((1, 2)), _Scripted([arm], propensity), RULE, seed=0)


def test_list_costs_by_hand() -> None:
    arms = recording([[1.0, 1.0]], [[0.0, 0.0]]).arms
    # 1 USD per million tokens each way, 300 of output expected
    assert list_costs(arms, np.array([100])).tolist() == [[0.0004, 0.0004]]


def test_what_is_missing_is_named_with_the_command_that_installs_it() -> None:
    with pytest.raises(Missing, match="no_such_library is not installed: pip install it"):
        need("no_such_library.part", "pip install it")


class _Sure:
    """Always arm 0, and says that it had 0.7."""

    def __init__(self) -> None:
        self.learned: list[tuple[int, float | None]] = []

    def choose(self, _asked: Asked) -> tuple[int, float | None]:
        return 0, 0.7

    def probability(self, arm: int) -> float:
        return (0.7, 0.2, 0.1, 0.0)[arm]

    def learn(self, _asked: Asked, arm: int, propensity: float | None, _outcome: Outcome) -> None:
        self.learned.append((arm, propensity))


def test_a_floor_gives_every_arm_its_part_and_the_peer_learns_of_it() -> None:
    """A fifth of all to four arms alike: p = 0.8 · the peer's + 0.05."""
    recorded = recording([[1.0, 0.5, 0.2, 0.1]] * 4000, [[0.0] * 4] * 4000)
    problem, peer = Problem(recorded.arms, 1, 3), _Sure()
    floored = Floored(peer, problem, 0.2)
    passed = pass_through(recorded, np.ones((4000, 1)), floored, RULE, seed=3)
    counts = np.bincount(passed.arm, minlength=4)
    expected = 4000 * np.array([0.85, 0.05, 0.05, 0.05])
    assert float(((counts - expected) ** 2 / expected).sum()) < 16.27  # 0.1 %, 3 degrees
    assert [arm for arm, _ in peer.learned] == passed.arm.tolist()
    given = {(arm, round(propensity or 0.0, 9)) for arm, propensity in peer.learned}
    assert given == {(0, 0.61), (1, 0.21), (2, 0.13), (3, 0.05)}
    again = pass_through(recorded, np.ones((4000, 1)), Floored(_Sure(), problem, 0.2), RULE, seed=3)
    assert again.arm.tolist() == passed.arm.tolist()
    silent = _Scripted([0] * 4000)
    passed = pass_through(recorded, np.ones((4000, 1)), Floored(silent, problem, 0.2), RULE, 3)
    assert {propensity for _, _, propensity, _ in silent.learned} == {None}
    assert len(set(passed.arm.tolist())) == 4
