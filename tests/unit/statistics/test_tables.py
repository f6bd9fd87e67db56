"""The statistics against published tables and against scipy-free arithmetic by hand."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bandit_service.statistics import (
    bernstein,
    binomial,
    boundaries,
    means,
    quantiles,
    special,
    srm,
)
from bandit_service.statistics.calibration import ALPHA, Calibration
from tests.shared_data import vectors


def _sample(told: dict[str, float]) -> means.Sample:
    n, mean = int(told["n"]), told["sum"] / told["n"]
    if "sum_squares" in told:
        variance = (told["sum_squares"] - told["sum"] ** 2 / n) / (n - 1)
    else:
        variance = mean * (1.0 - mean)
    return means.Sample(n, mean, variance)


def test_asymptotic_sequences_have_growthbooks_values() -> None:
    for case in vectors("stats/gbstats_sequential.json")["cases"]:
        if case["difference"] != "relative":
            found = means.difference(
                _sample(case["a"]), _sample(case["b"]), case["alpha"], case["n_star"]
            )
        else:
            found = means.relative(
                _sample(case["a"]), _sample(case["b"]), case["alpha"], case["n_star"]
            )
        assert round(found.estimate, 5) == round(case["expected"], 5)
        assert round(found.stderr, 5) == round(case["stderr"], 5)
        low, high = case["ci"]
        if case["test"] == "two_sided":
            assert (round(found.low, 5), round(found.high, 5)) == (low, high)
            assert found.p == pytest.approx(case["p"], abs=1e-5)


def _boundaries() -> dict[tuple[str, str], float]:
    one, two = boundaries.best_rho(100, 0.1), boundaries.best_rho(100, 0.05)

    def exponential(s: float) -> float:
        return boundaries.gamma_exponential_log_mixture(s, 100, one, 2)

    def both(s: float) -> float:
        return binomial.log_mixture(s, 100, 100, 0.2, 0.8)

    def above(s: float) -> float:
        return binomial.log_mixture(s, 100, 100, 0.2, 0.8, one_sided=True)

    def bound(log_mixture: Callable[[float], float]) -> float:
        return boundaries.bound(log_mixture, 0.05, 100)

    coins = "v=100,g=0.2,h=0.8"
    return {
        ("two_sided_normal_best_rho", "v_opt=100,alpha_opt=0.05"): two,
        ("normal_mixture_bound", "v=100,two-sided"): boundaries.normal_bound(100, two, 0.05),
        ("gamma_exponential_log_mixture", "s=10,v=100,c=2"): exponential(10),
        ("gamma_exponential_mixture_bound", "v=100,c=2"): bound(exponential),
        ("beta_binomial_log_mixture", f"s=10,{coins},two-sided"): both(10),
        ("beta_binomial_mixture_bound", f"{coins},two-sided"): bound(both),
        ("beta_binomial_log_mixture", f"s=10,{coins},one-sided"): above(10),
        ("beta_binomial_mixture_bound", f"{coins},one-sided"): bound(above),
        ("poly_stitching_bound", "v=100,alpha=0.05,v_min=10,c=3"): boundaries.stitched_bound(
            100, 0.05, 10, 3
        ),
        ("poly_stitching_bound", "v=100,alpha=0.05,v_min=10,c=-1"): boundaries.stitched_bound(
            100, 0.05, 10, -1
        ),
        (
            "empirical_process_lil_bound",
            "t=1000,alpha=0.05,t_min=100,A=0.85",
        ): boundaries.empirical_process_bound(1000, 0.05, 100, 0.85),
    } | {
        (
            "double_stitching_bound",
            f"p={p},t=1000,alpha=0.05,t_opt=100",
        ): boundaries.double_stitched_bound(p, 1000, 0.05, 100)
        for p in (0.5, 0.9, 0.1)
    }


def test_the_rows_of_confseqs_table_come_out() -> None:
    """All 31 but the five of boundaries that the service does not compute."""
    table = vectors("stats/confseq_boundaries.json")
    found, rows = _boundaries(), 0
    for name, said, value in (each for each in table["cases"] if (each[0], each[1]) in found):
        assert found[name, said] == pytest.approx(value, rel=table["tol"]), (name, said)
        rows += 1
    for heads, trials, alpha, t_opt, low, high in table["bernoulli_confidence_interval"]:
        at = binomial.interval(heads, trials, alpha, t_opt)
        assert at == pytest.approx((low, high), abs=table["tol"]), (heads, trials)
        rows += 1
    a = dict.fromkeys(range(1, 1001), 1)
    for p, offset, value in table["quantile_ab_p_value"]["cases"]:
        b = {x + offset: n for x, n in a.items()}
        assert quantiles.compare(a, b, p, t_opt=100) == pytest.approx(value, rel=table["tol"])
        assert quantiles.compare(b, a, p, t_opt=100) == pytest.approx(value, rel=table["tol"])
        rows += 1
    assert rows == 26


def test_the_sequential_srm_has_optimizelys_values() -> None:
    for case in vectors("stats/ssrm_sequential_srm.json")["cases"]:
        totals, coefficient = [0] * len(case["null"]), 0.0
        for row, log_m1, log_m0 in zip(case["data"], case["log_m1"], case["log_m0"], strict=True):
            totals = [a + b for a, b in zip(totals, row, strict=True)]
            free, fixed = srm.log_marginals(case["null"], totals, case["dirichlet_alpha0"])
            coefficient += math.lgamma(sum(row) + 1) - sum(math.lgamma(c + 1) for c in row)
            assert free + coefficient == pytest.approx(log_m1, abs=1e-9)
            assert fixed + coefficient == pytest.approx(log_m0, abs=1e-9)


def test_srm_by_epochs_and_zero_weights() -> None:
    fair = [([0.5, 0.5], [5000, 5000]), ([0.9, 0.1], [9000, 1000])]
    assert srm.sequential_p(fair) == 1.0
    assert srm.sequential_p([([0.5, 0.5], [14_000, 6_000])]) < 1e-6
    # the totals look wrong for either weights, each epoch is right
    assert srm.sequential_p([([1.0, 0.0], [10, 1])]) == 0.0
    assert srm.sequential_p([([0.5, 0.5, 0.0], [50, 50, 0])]) == 1.0
    assert srm.chi_square_p([]) is None
    assert srm.chi_square_p([([0.5, 0.5, 0.0], [50, 50, 0])]) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("freedom", "statistic", "p"),
    [(1, 3.841459, 0.05), (2, 5.991465, 0.05), (5, 1.145476, 0.95), (1, 10.827566, 0.001),
     (10, 29.588298, 0.001)],
)  # fmt: skip
def test_the_chi_squares_tail_has_the_tables_values(
    freedom: int, statistic: float, p: float
) -> None:
    assert special.upper_gamma(freedom / 2, statistic / 2) == pytest.approx(p, rel=1e-5)


def test_bernstein_by_hand() -> None:
    """Two numbers, worked out from theorem 2 with one made-up ½ before them."""
    state, alpha = bernstein.State(), 0.05
    bernstein.add(state, 1.0, alpha)
    bernstein.add(state, 0.0, alpha)
    first = min(0.5, math.sqrt(2 * math.log(40) / (0.25 * 1 * math.log(2))))
    variance = (0.25 + (1.0 - 0.75) ** 2) / 2
    second = min(0.5, math.sqrt(2 * math.log(40) / (variance * 2 * math.log(3))))
    assert (first, second) == (0.5, 0.5)
    psi = -math.log(0.5) - 0.5
    penalty = (1.0 - 0.5) ** 2 * psi + (0.0 - 0.75) ** 2 * psi
    assert state.penalty == pytest.approx(penalty)
    low, high = bernstein.interval(state, alpha)
    assert (low, high) == (0.0, 1.0)
    assert bernstein.interval(bernstein.State(), 0.05) == (0.0, 1.0)
    with pytest.raises(ValueError, match="from 0 to 1"):
        bernstein.add(state, 1.5, alpha)


@given(st.lists(st.floats(0.0, 1.0), min_size=1, max_size=60), st.floats(0.01, 0.2))
def test_bernsteins_interval_is_one_and_wider_for_less_alpha(
    numbers: list[float], alpha: float
) -> None:
    wide, narrow = bernstein.State(), bernstein.State()
    for x in numbers:
        bernstein.add(narrow, x, alpha)
        bernstein.add(wide, x, alpha / 10)
    low, high = bernstein.interval(narrow, alpha)
    assert 0.0 <= low <= high <= 1.0
    assert (
        bernstein.interval(wide, alpha / 10)[1] - bernstein.interval(wide, alpha / 10)[0]
        >= (high - low) * 0.999
    )


def test_quantiles_cover_at_every_look() -> None:
    """40 log-normal streams of 2,000 with a look at every 50: the 95th centile is covered in all
    but a few, and is narrow at the end."""
    rng, step = np.random.default_rng(5), 1.05
    truth = math.exp(1.6448536)
    missed, width = 0, []
    for _ in range(40):
        buckets: dict[int, int] = {}
        ok = True
        for t, x in enumerate(np.exp(rng.standard_normal(2000)), 1):
            bucket = math.floor(math.log(x) / math.log(step))
            buckets[bucket] = buckets.get(bucket, 0) + 1
            if t % 50 == 0:
                found = quantiles.interval(buckets, step, 0.95, 0.05)
                assert found is not None
                ok &= found[1] <= truth <= found[2]
        missed += not ok
        width.append(found[2] / found[1] if found else 0.0)
    assert missed <= 2
    assert np.median(width) < 4.0
    assert quantiles.interval({}, step, 0.5, 0.05) is None


def test_calibration_is_silent_for_true_propensities_and_finds_wrong_ones() -> None:
    rng = np.random.default_rng(3)
    for bias, found in ((0.0, False), (0.06, True)):
        alarms = []
        for _ in range(20):
            calibration = Calibration()
            least = 1.0
            for i in range(3000):
                p = 0.2 + 0.6 * ((i * 37) % 100) / 100
                drawn = "a" if rng.random() < p + bias else "b"
                calibration.add([("a", p), ("b", 1.0 - p)], drawn)
                if i % 50 == 0:
                    least = min(least, calibration.p_value())
            alarms.append(least < ALPHA)
        assert all(alarms) if found else not any(alarms)
    sure = Calibration()
    sure.add([("a", 1.0)], "a")
    sure.add([("a", 1.0), ("b", 0.0)], "a")
    assert (sure.p_value(), sure.decisions, sure.sums) == (1.0, 0, {})
    sure.add([("a", 1.0), ("b", 0.0)], "b")
    assert sure.p_value() == 0.0


@pytest.mark.parametrize("seed", range(20))
def test_calibration_counts_many_to_the_same_bits_as_one_by_one(seed: int) -> None:
    rng = np.random.default_rng(seed)
    arms = ("a", "b", "c", "d")[: int(rng.integers(2, 5))]
    rows = rng.dirichlet(np.full(len(arms), 0.5), size=int(rng.integers(1, 60))).tolist()
    if seed % 4 == 0:  # what chance had no part in
        rows[len(rows) // 2] = [1.0] + [0.0] * (len(arms) - 1)
    drawn = rng.integers(len(arms), size=len(rows)).tolist()
    one_by_one, together = Calibration(sums={"b": [0.1, 0.2]}), Calibration(sums={"b": [0.1, 0.2]})
    for row, at in zip(rows, drawn, strict=True):
        one_by_one.add(zip(arms, row, strict=True), arms[at])
    cut = int(rng.integers(len(rows) + 1))
    for part in (slice(0, cut), slice(cut, None)):
        if rows[part]:
            together.add_many(arms, rows[part], drawn[part])
    assert repr(together) == repr(one_by_one)
