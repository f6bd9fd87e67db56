"""Off-policy estimators: by hand, on the Open Bandit sample, and beside two other libraries."""

from __future__ import annotations

import math
import sys
import tarfile
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bandit_service.statistics import offpolicy_sequence, ope, reward_model
from bandit_service.statistics.ope import Modelled
from tests.apart import apart
from tests.fuzz.effort import effort
from tests.open_bandit import archive, clicks
from tests.shared_data import vectors
from tests.tools import imported, needed

W = np.array([2.0, 0.5, 0.5, 1.0])
R = np.array([1.0, 0.0, 1.0, 0.5])
Q = Modelled(value=np.array([0.5, 0.25, 0.75, 0.5]), drawn=np.array([0.75, 0.25, 0.5, 0.5]))


def test_four_decisions_by_hand() -> None:
    assert ope.ips(W, R).value == (2.0 + 0.0 + 0.5 + 0.5) / 4
    assert ope.clipped_ips(W, R, 1.0).value == (1.0 + 0.0 + 0.5 + 0.5) / 4
    assert ope.snips(W, R).value == 3.0 / 4.0
    assert ope.direct(Q).value == 0.5
    # errors of the model, weighted: 2 · 0.25, 0.5 · −0.25, 0.5 · 0.5, 1 · 0
    assert ope.doubly_robust(W, R, Q).value == 0.5 + (0.5 - 0.125 + 0.25) / 4
    assert ope.self_normalised_dr(W, R, Q).value == 0.5 + (0.5 - 0.125 + 0.25) / 4
    assert ope.switch_dr(W, R, Q, 1.0).value == 0.5 + (-0.125 + 0.25) / 4
    shrunk = ope.shrunk_dr(W, R, Q, 2.0).value
    assert shrunk == pytest.approx(0.5 + (4 / 6 * 0.25 - 1 / 2.25 * 0.25 + 1 / 2.25 * 0.5) / 4)


def test_standard_errors_by_hand() -> None:
    # of a plain mean it is the usual one; of SNIPS that of w (r − 0.75) / mean(w)
    plain = ope.ips(np.ones(4), R)
    assert ope.standard_error(plain) == pytest.approx(float(R.std(ddof=1)) / 2.0)
    moved = W * (R - 0.75)
    expected = np.sqrt(float(moved @ moved) / 3) / 2.0
    assert ope.standard_error(ope.snips(W, R)) == pytest.approx(expected)
    # two units of two decisions each: their sums are what varies
    units = np.array([0, 0, 1, 1])
    sums = np.array([R[:2].sum() - 1.25, R[2:].sum() - 1.25])
    by_unit = ope.standard_error(plain, units)
    assert by_unit == pytest.approx(np.sqrt(float(sums @ sums) * 2 / 1) / 4)
    assert ope.standard_error(ope.ips(W[:1], R[:1])) == float("inf")


def test_the_overlap_and_each_reason_to_refuse() -> None:
    found = ope.overlap(W)
    assert (found.n, found.mean, found.share) == (4, 1.0, 0.5)
    assert found.ess == pytest.approx(16.0 / 5.5)
    assert "one outcome carries 50% of the weight, more than 10%" in found.refusal()
    assert ope.overlap(np.ones(100)).refusal() == ""
    assert ope.overlap(np.ones(99)).refusal().startswith("the effective sample size is 99")
    heavy = np.concatenate([np.full(2000, 0.9), np.full(20, 80.0)])
    assert "the effective sample size is 89, below 100" in ope.overlap(heavy).refusal()
    assert "the mean weight is 1.200" in ope.overlap(np.full(1000, 1.2)).refusal()
    assert "the mean weight is 0.800" in ope.overlap(np.full(1000, 0.8)).refusal()
    assert "2.00% of its probability to arms that the log never" in (
        ope.overlap(np.ones(1000), 0.02).refusal()
    )
    assert "effective sample size is 0" in ope.overlap(np.zeros(0)).refusal()
    with pytest.raises(ValueError, match="no decision has any weight"):
        ope.snips(np.zeros(3), np.ones(3))


@effort(60)
@given(st.integers(2, 40), st.integers(0, 10_000), st.floats(-5.0, 5.0))
def test_snips_and_dr_follow_a_shift_of_all_rewards(n: int, seed: int, shift: float) -> None:
    rng = np.random.default_rng(seed)
    w, r, q = rng.gamma(1.0, size=n), rng.random(n), rng.random((2, n))
    model, moved = Modelled(q[0], q[1]), Modelled(q[0] + shift, q[1] + shift)
    assert ope.snips(w, r + shift).value == pytest.approx(ope.snips(w, r).value + shift)
    for estimate in (ope.doubly_robust, ope.self_normalised_dr):
        assert estimate(w, r + shift, moved).value == pytest.approx(
            estimate(w, r, model).value + shift
        )
    assert abs(ope.snips(w, r).influence().sum()) < 1e-9 * n
    assert ope.snips(3.0 * w, r).value == pytest.approx(ope.snips(w, r).value)


@pytest.mark.parametrize("campaign", ["men", "women", "all"])
def test_the_published_values_of_the_open_bandit_sample(campaign: str) -> None:
    table = vectors("stats/obd_small_ope.json")["campaigns"][campaign]
    p, r, _ = clicks(campaign)
    w = 1.0 / table["n_actions"] / p
    assert ope.ips(w, r).value == pytest.approx(table["ips"], rel=1e-12)
    assert ope.snips(w, r).value == pytest.approx(table["snips"], rel=1e-12)
    assert ope.clipped_ips(w, r, 10.0).value == pytest.approx(table["clip10"], rel=1e-12)
    assert ope.standard_error(ope.ips(w, r)) == pytest.approx(table["ips_se"], rel=1e-12)
    found = ope.overlap(w)
    assert found.ess == pytest.approx(table["ess"], rel=1e-12)
    assert found.mean == pytest.approx(table["mean_w"], rel=1e-12)
    assert found.most == pytest.approx(table["max_w"], rel=1e-12)
    published = table["vw_cs_95"]  # of an implementation that does not cap its guesses
    uncapped = offpolicy_sequence.interval(w, r, 0.0, 1.0, 0.05, cap=math.inf)
    assert uncapped == pytest.approx(published, abs=1e-8)
    assert offpolicy_sequence.interval(w, r, 0.0, 1.0, 0.05) == pytest.approx(published, abs=2e-5)
    # women: ESS of 2 and a mean weight of 3.1; men and all may just be estimated
    assert bool(found.refusal()) == (campaign == "women")


def a_log(n: int, seed: int) -> tuple[Any, ...]:
    """Items, clicks, propensities, a target policy (n, 5, 1) and a model of it (n, 5, 1)."""
    rng = np.random.default_rng(seed)
    logging, target = rng.dirichlet(np.ones(5), n), rng.dirichlet(np.ones(5), n)
    arm = np.array([rng.choice(5, p=p) for p in logging])
    reward = (rng.random(n) < 0.3 + 0.1 * arm).astype(float)
    at = np.arange(n)
    return arm, reward, logging[at, arm], target[:, :, None], rng.random((n, 5))[:, :, None]


def test_ips_snips_and_the_sequence_agree_with_vw_estimators() -> None:
    ips = imported("estimators.bandits.ips")
    from estimators.bandits import cs, snips

    needed("scipy")
    arm, r, p, target, _ = a_log(1500, seed=5)
    chosen = target[np.arange(len(arm)), arm, 0]
    theirs = [ips.Estimator(), snips.Estimator(), cs.Interval(0.0, 1.0)]
    for i in range(len(arm)):
        for each in theirs:
            each.add_example(float(p[i]), float(r[i]), float(chosen[i]))
    w = chosen / p
    assert ope.ips(w, r).value == pytest.approx(theirs[0].get(), rel=1e-12)
    assert ope.snips(w, r).value == pytest.approx(theirs[1].get(), rel=1e-12)
    found = offpolicy_sequence.interval(w, r, 0.0, 1.0, 0.05, cap=math.inf)
    assert found == pytest.approx(theirs[2].get(alpha=0.05), abs=1e-8)


def _values_by_obp(directory: Path, logged: dict[str, Any], given: Any) -> list[float]:
    """What obp's estimators make of a log, in a process of its own, since they bring torch.

    obp as a whole wants an older Python: only these files of its source package are imported.
    """
    with tarfile.open(archive()) as tar:
        tar.extractall(directory, filter="data")
    for name, below in (("obp", "obp"), ("obp.ope", "obp/ope")):
        package = ModuleType(name)
        package.__path__ = [str(directory / "obp-0.5.7" / below)]
        sys.modules[name] = package
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of invalid escapes in its docstrings
        from obp.ope import estimators

    made = [getattr(estimators, name)(**parameters) for name, parameters in given]
    return [float(each.estimate_policy_value(**logged)) for each in made]


def test_every_estimator_agrees_with_obp(tmp_path: Path) -> None:
    needed("torch")
    needed("sklearn")
    archive()  # or it is skipped here
    arm, r, p, target, q = a_log(2000, seed=6)
    at = np.arange(len(arm))
    w = target[at, arm, 0] / p
    model = Modelled((target * q)[:, :, 0].sum(axis=1), q[at, arm, 0])
    logged = {
        "reward": r, "action": arm, "pscore": p, "action_dist": target,
        "position": np.zeros(len(arm), int), "estimated_rewards_by_reg_model": q,
    }  # fmt: skip
    pairs = [
        (("InverseProbabilityWeighting", {}), ope.ips(w, r)),
        (("InverseProbabilityWeighting", {"lambda_": 3.0}), ope.clipped_ips(w, r, 3.0)),
        (("SelfNormalizedInverseProbabilityWeighting", {}), ope.snips(w, r)),
        (("DirectMethod", {}), ope.direct(model)),
        (("DoublyRobust", {}), ope.doubly_robust(w, r, model)),
        (("SelfNormalizedDoublyRobust", {}), ope.self_normalised_dr(w, r, model)),
        (("SwitchDoublyRobust", {"lambda_": 3.0}), ope.switch_dr(w, r, model, 3.0)),
        (("DoublyRobustWithShrinkage", {"lambda_": 9.0}), ope.shrunk_dr(w, r, model, 9.0)),
    ]
    with apart() as run:
        theirs = run(_values_by_obp, tmp_path, logged, [given for given, _ in pairs])
    for value, (_, mine) in zip(theirs, pairs, strict=True):
        assert mine.value == pytest.approx(value, rel=1e-12)


def test_the_bootstrap_is_as_wide_as_the_standard_error_says() -> None:
    arm, r, p, target, _ = a_log(3000, seed=7)
    terms = ope.snips(target[np.arange(len(arm)), arm, 0] / p, r)
    low, high = ope.bootstrap(terms, 0.05, rounds=2000)
    assert (high - low) / (2 * 1.96 * ope.standard_error(terms)) == pytest.approx(1.0, abs=0.1)
    assert ope.bootstrap(terms, 0.05, rounds=2000) == (low, high)
    # every decision twice, as one unit: nothing more is known than before
    twice = ope.Terms(*(np.repeat(part, 2) for part in (terms.plain, terms.weighted, terms.weight)))
    units = np.repeat(np.arange(len(r)), 2)
    assert ope.standard_error(twice, units) == pytest.approx(ope.standard_error(terms))
    assert ope.bootstrap(twice, 0.05, units, rounds=2000) == pytest.approx((low, high))


def test_the_sequence_covers_the_truth_at_every_look() -> None:
    rng = np.random.default_rng(8)
    missed = 0
    for _ in range(60):
        arm = (rng.random(600) < 0.2).astype(int)  # the log takes arm 1 rarely, the target often
        r = (rng.random(600) < np.where(arm == 1, 0.7, 0.4)).astype(float)
        w = np.where(arm == 1, 0.8 / 0.2, 0.2 / 0.8)
        truth = 0.8 * 0.7 + 0.2 * 0.4
        looks = [offpolicy_sequence.interval(w[:n], r[:n], 0.0, 1.0, 0.1) for n in (50, 200, 600)]
        missed += any(not low <= truth <= high for low, high in looks)
        assert looks[-1][1] - looks[-1][0] < 0.6
    assert missed <= 6


def test_known_propensities_make_the_sequence_narrower_and_it_covers_what_moves() -> None:
    rng = np.random.default_rng(11)
    missed, narrower = 0, 0
    for _ in range(30):
        n = 600
        logged = np.tile([0.8, 0.15, 0.05], (n, 1))
        # the candidate changes its mind half-way, and so does its value
        target = np.where(np.arange(n)[:, None] < n // 2, [[0.2, 0.7, 0.1]], [[0.1, 0.2, 0.7]])
        worth = np.array([0.7, 0.8, 0.9])
        arm = rng.choice(3, size=n, p=logged[0])
        r = (rng.random(n) < worth[arm]).astype(float)
        w = target[np.arange(n), arm] / logged[np.arange(n), arm]
        of = offpolicy_sequence.Distributions(target, logged)
        truths = np.cumsum(target @ worth) / np.arange(1, n + 1)
        for look in (100, 300, 600):
            some = offpolicy_sequence.Distributions(target[:look], logged[:look])
            low, high = offpolicy_sequence.interval(w[:look], r[:look], 0.0, 1.0, 0.1, some)
            if not low <= truths[look - 1] <= high:
                missed += 1
                break
        plain = offpolicy_sequence.interval(w, r, 0.0, 1.0, 0.1)
        both = offpolicy_sequence.interval(w, r, 0.0, 1.0, 0.1, of)
        narrower += both[1] - both[0] < plain[1] - plain[0]
    assert missed <= 4
    assert narrower > 25


def test_the_sequence_scales_with_the_range_and_begins_as_all_of_it() -> None:
    w, r = np.full(400, 1.0), np.tile([0.25, 0.75], 200)
    low, high = offpolicy_sequence.interval(w, r, 0.0, 1.0, 0.05)
    scaled = offpolicy_sequence.interval(w, 2.0 * r - 1.0, -1.0, 1.0, 0.05)
    assert scaled == pytest.approx((2.0 * low - 1.0, 2.0 * high - 1.0))
    assert low < 0.5 < high
    assert offpolicy_sequence.interval(w[:0], r[:0], -1.0, 1.0, 0.05) == (-1.0, 1.0)
    with pytest.raises(ValueError, match="low: must be below high"):
        offpolicy_sequence.interval(w, r, 1.0, 1.0, 0.05)


@pytest.mark.parametrize(
    ("a", "x"), [(1, 1), (5, 3), (100, 120), (2000, 2100), (1e5, 1.02e5), (3, 500), (1e4, 9e3)]
)
def test_the_incomplete_gamma_function_is_scipys(a: float, x: float) -> None:
    special = imported("scipy.special")
    expected = np.log(special.gammainc(a, x)) + special.gammaln(a)
    assert offpolicy_sequence.log_lower_gamma(a, x) == pytest.approx(expected, rel=1e-12)


def test_the_model_is_a_ridge_of_the_other_folds_alone() -> None:
    linear = imported("sklearn.linear_model")
    rng = np.random.default_rng(9)
    x = rng.normal(size=(300, 4)).astype(np.float32)
    arm = rng.integers(0, 3, 300)
    reward = np.clip(0.5 + 0.2 * x[:, 0] * (arm - 1) + 0.05 * rng.normal(size=300), -1.0, 1.0)
    found = reward_model.crossfit(x, arm, reward, 4, (-1.0, 1.0))
    centred = np.asarray(x, float) - np.asarray(x, float).mean(axis=0)
    fold = np.arange(300) % 5
    for f in range(5):
        train = (fold != f) & (arm == 2)
        overall = reward[fold != f].mean()
        mean = (5.0 * overall + reward[train].sum()) / (5.0 + train.sum())
        ridge = linear.Ridge(alpha=1.0, fit_intercept=False).fit(
            centred[train], reward[train] - mean
        )
        expected = np.clip(mean + ridge.predict(centred[fold == f]), -1.0, 1.0)
        assert found[fold == f, 2] == pytest.approx(expected)
        assert found[fold == f, 3] == pytest.approx(overall)  # no one ever took arm 3
    other = reward.copy()
    other[0] = -1.0
    assert reward_model.crossfit(x, arm, other, 4, (-1.0, 1.0))[fold == 0] == pytest.approx(
        found[fold == 0]
    )
    with pytest.raises(ValueError, match="3 outcomes cannot be split into 5 folds"):
        reward_model.crossfit(x[:3], arm[:3], reward[:3], 4, (-1.0, 1.0))
