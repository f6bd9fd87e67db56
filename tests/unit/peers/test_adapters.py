"""Every adapter that can run here, on a small planted problem; those of absent packages skip."""

from __future__ import annotations

import importlib
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import msgspec
import numpy as np
import pytest

from bandit_service.core.outcomes import RewardRule
from bandit_service.data.recordings import load_paretobandit
from bandit_service.offline.baselines import baselines
from loadtest.peers.contextualbandits import ContextualBandits
from loadtest.peers.entrants import EMBEDDING, OURS, PCA, Entrant, entrants, installed
from loadtest.peers.mabwiser import MABWiser
from loadtest.peers.paretobandit import ParetoBandit, held_out, own_arms, own_features
from loadtest.peers.protocol import Asked, Outcome, Peer, Problem, pass_through
from loadtest.peers.river import RiverLinUCB
from loadtest.peers.vw import VowpalWabbit
from policies import Floats
from tests.tools import missing
from tests.unit.data.recordings import planted, recording

# What other libraries warn of is theirs.
pytestmark = pytest.mark.filterwarnings("ignore")

RULE = RewardRule(0.10)
PEERS = [each for each in entrants() if each.package != OURS and not each.arms]
DIFFERENT = list({(each.make, str(each.options), each.shifted): each for each in PEERS}.values())


def _there(package: str) -> None:
    if installed(package):
        return
    if package == "contextualbandits":  # its source is compiled, and it is in no extra
        pytest.skip(f"{package} is not installed")
    missing(f"{package} is not installed; `make test` installs it")


def _played(entrant: Entrant, seed: int) -> tuple[list[int], float, float]:
    recorded, embeddings = planted(250)
    features = embeddings.astype(np.float64)
    target = 1e-5 if entrant.paced else None
    peer = entrant.peer(Problem(recorded.arms, features.shape[1], seed, target))
    passed = pass_through(recorded, features, peer, RULE, seed)
    uniform = baselines(recorded, RULE).uniform.reward.mean()
    return passed.arm.tolist(), float(passed.track.reward.mean()), float(uniform)


@pytest.mark.parametrize("entrant", DIFFERENT, ids=lambda each: each.label)
def test_it_learns_and_is_decided_by_its_seed(entrant: Entrant) -> None:
    _there(entrant.package)
    arms, reward, uniform = _played(entrant, seed=1)
    assert set(arms) <= {0, 1, 2}
    assert reward > uniform + 0.05
    assert _played(entrant, seed=1)[0] == arms


class _LinUCB:
    """Li et al. 2010 by hand: a score per arm, with a constant feature."""

    def __init__(self, k: int, d: int, alpha: float, bonus: Callable[[float], float]) -> None:
        self.a = [np.eye(d + 1) for _ in range(k)]
        self.b = [np.zeros(d + 1) for _ in range(k)]
        self.alpha, self.bonus = alpha, bonus

    def scores(self, x: Floats) -> list[float]:
        found = []
        for a, b in zip(self.a, self.b, strict=True):
            inverse = np.linalg.inv(a)
            found.append(float(x @ inverse @ b) + self.alpha * self.bonus(float(x @ inverse @ x)))
        return found


def _root(v: float) -> float:
    return float(np.sqrt(v))


@pytest.mark.parametrize(
    ("package", "make", "bonus"),
    [
        ("mabwiser", lambda p: MABWiser(p, policy="LinUCB", alpha=0.5, ridge=1.0), _root),
        (
            "contextualbandits",
            lambda p: ContextualBandits(p, alpha=0.5, ridge=1.0, intercept=False),
            _root,
        ),
        (
            "paretobandit",
            lambda p: ParetoBandit(p, scalar=True, alpha=0.5, ridge=1.0, forgetting=1.0),
            _root,
        ),
        (
            "river",
            lambda p: RiverLinUCB(p, alpha=4.0, beta=4.0),
            lambda v: float(np.sqrt(1.0 + v)),
        ),
    ],
)
def test_it_chooses_as_linucb_by_hand(
    package: str, make: Callable[[Problem], Peer], bonus: Callable[[float], float]
) -> None:
    _there(package)
    recorded, rng = recording([[0.0] * 3], [[0.0] * 3]), np.random.default_rng(5)
    peer, hand = make(Problem(recorded.arms, 4, seed=3)), _LinUCB(3, 4, 0.5, bonus)
    truth = rng.normal(scale=0.3, size=(3, 5))
    for step in range(150):
        asked = Asked(rng.normal(size=4), np.zeros(3), 10, "")
        arm, _ = peer.choose(asked)
        x = asked.with_constant
        scores = hand.scores(x)
        if step > 2:  # before, ties and the first draw are the library's own
            assert scores[arm] == pytest.approx(max(scores), abs=1e-4)
        reward = float(np.clip(truth[arm] @ x, -1.0, 1.0))
        peer.learn(asked, arm, None, Outcome(reward, 0.5, 0.0))
        hand.a[arm] += np.outer(x, x)
        hand.b[arm] += reward * x


def test_vowpal_wabbit_is_drawn_from_its_own_distribution() -> None:
    _there("vowpalwabbit")
    arms = recording([[0.0] * 3], [[0.0] * 3]).arms
    asked = Asked(np.array([1.0, 0.5]), np.zeros(3), 10, "")
    drawn: Counter[int] = Counter()
    for seed in range(90):
        arm, propensity = VowpalWabbit(Problem(arms, 2, seed), explore="--epsilon 1").choose(asked)
        assert propensity == pytest.approx(1 / 3, abs=1e-5)
        drawn[arm] += 1
    assert min(drawn[k] for k in range(3)) >= 15  # P(fewer of one) < 0.001


def test_paretobandit_keeps_the_budget_that_it_is_given() -> None:
    _there("paretobandit")
    recorded, embeddings = planted(600)
    dear = replace(
        recorded,
        cost=np.tile([1e-2, 1e-4, 1e-4], (600, 1)),
        arms=tuple(
            msgspec.structs.replace(arm, usd_per_mtok_in=price, usd_per_mtok_out=price)
            for arm, price in zip(recorded.arms, (50.0, 0.5, 0.5), strict=True)
        ),
    )

    def spent(target: float | None) -> float:
        peer = ParetoBandit(Problem(dear.arms, 8, 0, target), scalar=True, alpha=0.5)
        passed = pass_through(dear, embeddings.astype(np.float64), peer, RULE, 0)
        return float(passed.track.cost.mean())

    assert spent(None) > 4e-3  # the dear arm is worth it on half of the queries
    assert spent(1e-3) == pytest.approx(1e-3, rel=0.25)


def test_paretobandits_own_data_features_and_priors() -> None:
    _there("paretobandit")
    recorded = load_paretobandit()
    test = held_out(recorded)
    assert (len(test), len(recorded) > len(test)) == (1824, True)
    assert own_arms() == [str(arm.id) for arm in recorded.arms]
    some = test.first(300)
    vectors = np.random.default_rng(0).normal(size=(300, 384)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    features = own_features(some, vectors)
    package = importlib.import_module("pareto_bandit")
    where = importlib.import_module("pareto_bandit.config").DEFAULT_PCA_PATH
    pca = package.FeatureService(custom_encoder=len, embedding_dim=384, pca_path=where).pca
    by_hand = (vectors - pca.mean_) @ pca.components_.T / np.sqrt(pca.explained_variance_)
    assert np.allclose(features, by_hand, atol=1e-5)
    warm = next(each for each in entrants() if each.options.get("warm") and not each.paced)
    assert (warm.features, warm.arms) == (PCA, tuple(own_arms()))
    passed = pass_through(some, features, warm.peer(Problem(some.arms, 25, 0)), RULE, 0)
    beside = baselines(some, RULE)
    assert passed.track.reward.mean() > beside.uniform.reward.mean()


def test_every_row_has_a_name_of_its_own() -> None:
    found = entrants(["eagle"])
    assert len({each.label for each in found}) == len(found)
    assert found[0].label == "nested [embedding]"
    assert [each.label for each in entrants(["eagle"], only=["ours"], features=[EMBEDDING])] == [
        "nested [embedding]",
        "eagle [embedding]",
    ]
    assert {each.package for each in entrants(only=["river"])} == {"ours", "river"}


def test_every_row_of_a_comparison_has_the_same_floor() -> None:
    assert {each.share for each in entrants(["eagle"])} == {0.02}
    assert {each.share for each in entrants(["eagle"], share=0.0)} == {0.0}


def test_paretobandit_learns_of_an_arm_that_the_floor_drew() -> None:
    """Each outcome counts for the arm that was drawn, though the package routed elsewhere."""
    _there("paretobandit")
    recorded, x = planted(60)
    peer = ParetoBandit(Problem(recorded.arms, x.shape[1], 1), scalar=True)
    asked = Asked(x[0].astype(np.float64), np.zeros(len(recorded.arms)), 10, "q")
    arm, _ = peer.choose(asked)
    other = (arm + 1) % len(recorded.arms)
    before = {id: matrix.copy() for id, matrix in peer._router.bandit.A.items()}
    peer.learn(asked, other, None, Outcome(0.5, 0.5, 0.0))
    after = peer._router.bandit.A
    moved = {id for id, matrix in after.items() if not np.allclose(matrix, before[id])}
    assert moved == {str(recorded.arms[other].id)}
