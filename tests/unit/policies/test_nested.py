"""nested: its tree by hand, its memory of cells, its alarm, and bits that hang on no order."""

from __future__ import annotations

import itertools
import math
import os
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import pytest

from bandit_service.core import codec
from policies import (
    ArmId,
    Arms,
    Compared,
    Context,
    Contexts,
    Floats,
    Rewarded,
    _native,
    _spreads,
)
from policies._borrowed import borrowed, of_others
from policies._cells import Cells, on_grid
from policies.nested import Nested

A, B, C = (ArmId(name) for name in "abc")
ONE = Arms((A,), np.zeros(1), np.ones(1))
PAIR = Arms((A, B), np.zeros(2), np.ones(2))


def _context(number: int, d: int = 8, worth: float = 0.1) -> Context:
    vector = np.random.default_rng(number).normal(size=d)
    return Context((vector / np.linalg.norm(vector)).astype(np.float32), 10, worth)


def _told(context: Context, arm: ArmId, quality: float) -> Rewarded:
    return Rewarded(context, arm, 0.5, 1.0, 0.0, quality=quality, reward=quality)


def _after(policy: Nested, events: Iterable[Rewarded | Compared]) -> Cells:
    state = policy.init()
    for event in events:
        state = policy.learn(state, event)
    return state


def test_an_untried_arm_is_the_prior_and_has_no_outcome() -> None:
    proposal = Nested().propose(Nested().init(), _context(1), PAIR)
    assert proposal.quality is not None
    assert proposal.deviation is not None
    assert proposal.count is not None
    assert proposal.quality.tolist() == pytest.approx([0.7, 0.7])
    assert proposal.count.tolist() == [0.0, 0.0]
    assert proposal.propensities.tolist() == pytest.approx([0.5, 0.5])
    # variance 0.04 of the arm, 0.008 of its group, 0.004 of its cell
    assert (proposal.deviation**2).tolist() == pytest.approx([0.052, 0.052])


def test_one_outcome_by_hand() -> None:
    """Of one arm without a price line, in a cell that no other query shares."""
    policy = Nested(slope=0.0, surface=0.0)
    state = _after(policy, [_told(_context(1), A, 0.2)])
    rho, t0, m0 = 0.9, 0.04, 0.7
    coin, k0 = 0.2, rho * 0.2 / t0
    # the group's difficulty, settled in two rounds, taken out of the arm's sum
    mean, eased = (0.2 + k0 * m0) / (1 + k0), 0.2
    for _ in range(2):
        w = 1 / (0.008 + rho * coin)
        q = (0.2 * w - w * mean) / (1 / 0.1 + w)
        eased = 0.2 - q
        mean = (eased + k0 * m0) / (1 + k0)
    weight = 1 / (1 + k0)
    line = m0 + weight * (eased - m0) / (4 + weight)
    s2 = rho * max(line * (1 - line), 0.03)
    k = s2 / t0
    m, v = (eased + k * line) / (1 + k), s2 / (1 + k)
    for h, g in ((0.008, 0.1), (0.004, 0.06)):
        s2 = rho * max(m * (1 - m), 0.03)
        m += (0.2 - m) / (h + s2) / (1 / g + 1 / (h + s2))
        k = s2 / h
        v = h * k / (1 + k) + (k / (1 + k)) ** 2 * v
        m = (0.2 + k * m) / (1 + k)
    proposal = policy.propose(state, _context(1), ONE)
    assert proposal.quality is not None
    assert proposal.deviation is not None
    assert proposal.quality[0] == pytest.approx(m, abs=1e-4)  # 0.2 is rounded to the grid
    assert proposal.deviation[0] == pytest.approx(math.sqrt(v), abs=1e-4)


def test_the_score_is_value_and_bonus_less_cost() -> None:
    state = _after(Nested(), [_told(_context(i), (A, B)[i % 2], 0.5) for i in range(30)])
    arms = Arms((A, B, C), np.array([0.001, 0.02, 0.0]), np.array([0.05, 1.0, 0.5]))
    for policy in (Nested(), Nested(explore="ucb")):
        found = policy.propose(state, _context(99), arms)
        assert found.quality is not None
        assert found.bonus is not None
        split = found.quality + found.bonus - arms.cost_usd / 0.1
        assert found.scores.tolist() == pytest.approx(split.tolist())


def test_context_tells_when_two_arms_are_good_at_different_things() -> None:
    policy, state = Nested(surface=0.0, explore="ucb"), Nested().init()
    rng = np.random.default_rng(0)
    ends = np.eye(8, dtype=np.float32)[:2]
    for i in range(400):
        kind = i % 2
        x = ends[kind] + 0.1 * rng.normal(size=8).astype(np.float32)
        context = Context((x / np.linalg.norm(x)).astype(np.float32), 10, 0.1)
        arm = (A, B)[i // 2 % 2]
        good = (arm == A) == (kind == 0)
        state = policy.learn(state, _told(context, arm, 1.0 if good else 0.0))
    for kind in range(2):
        found = policy.propose(state, Context(ends[kind], 10, 0.1), PAIR)
        assert found.propensities.tolist() == [1.0 - kind, float(kind)]


def test_errors_of_predictions_that_leave_one_out_are_those_of_leaving_each_out() -> None:
    """Allen's closed form beside the loop that it stands for, on coins and with nothing shared."""
    rng, h, rho = np.random.default_rng(4), 0.02, 1.0
    told = [(g, k, float(rng.random() < 0.4)) for g in range(3) for k in range(2) for _ in range(7)]
    parent, cells = np.full((3, 2), 0.5), np.zeros((2, 3, 2))
    for g, k, y in told:
        cells[:, g, k] += 1.0, y
    n, s = cells
    found = _spreads._errors(rho, parent, n, s, h, 1e-12)
    one = rho * 0.25 / h
    each = [(s[g, k] - y + one * 0.5) / (n[g, k] - 1 + one) - y for g, k, y in told]
    assert found == pytest.approx(sum(error**2 for error in each))


def test_other_cells_lend_by_distance_and_a_cell_lends_itself_nothing() -> None:
    """The formula of `borrow` cell by cell, with the nearest of the others as the nearest."""
    told = [_told(_context(i), (A, B)[i % 2], 0.25 * (i % 5)) for i in range(9)]
    state = _after(Nested(surface=0.0), told)
    n, s = of_others(state, 2.5, 128)
    assert n.shape == s.shape == (9, 3)
    where = state.centres[:9].astype(np.float64)
    for i, own in enumerate(where):
        d2 = ((where - own) ** 2).sum(axis=1)
        mean, order = d2.mean(), [int(c) for c in np.argsort(d2) if c != i]
        left, expected = 2.5, np.zeros((2, 3))
        for c in order:  # each cell has one outcome
            like = max(mean - d2[c], 0.0) / (mean - d2[order[0]])
            expected += min(1.0, max(left, 0.0)) * like**3 * np.array([state.n[c], state.s[c]])
            left -= 1.0
        assert n[i].tolist() == pytest.approx(expected[0].tolist(), abs=1e-3)
        assert s[i].tolist() == pytest.approx(expected[1].tolist(), abs=1e-3)
    few, _ = of_others(state, 2.5, 4)
    assert len(few) == 4
    assert not of_others(state, 2.5, 1)[0].any()


def test_errors_of_cells_are_those_of_means_that_the_other_cells_tell() -> None:
    rng, h, rho, mean = np.random.default_rng(6), 0.02, 0.9, 0.5
    n, other_n = rng.integers(0, 4, (2, 5, 2)).astype(float)
    s, other_s = n * rng.random((5, 2)), other_n * rng.random((5, 2))
    found = _spreads._errors_of_cells(rho, np.full((1, 2), mean), n, s, other_n, other_s, h, 1e-12)
    expected, k = 0.0, rho * 0.25 / h
    for c, a in np.argwhere(n > 0.0):
        m = (other_s[c, a] + k * mean) / (other_n[c, a] + k)
        expected += n[c, a] * (s[c, a] / n[c, a] - m) ** 2
    assert found == pytest.approx(expected)


def test_cells_show_specialists_by_half_where_groups_do_not() -> None:
    """Twelve kinds in two groups; each arm is right with 0.9 at three and with 0.5 at others."""
    rng, ends = np.random.default_rng(3), np.eye(12, dtype=np.float32)
    arms = [ArmId(f"arm{i}") for i in range(4)]
    policies = [Nested(surface=0.0, groups=2, evidence=one) for one in ("cells", "groups")]
    states = [policy.init() for policy in policies]
    for _ in range(200):
        kind, k = int(rng.integers(12)), int(rng.integers(4))
        x = ends[kind] + 0.1 * rng.normal(size=12).astype(np.float32)
        context = Context((x / np.linalg.norm(x)).astype(np.float32), 10, 0.1)
        event = _told(context, arms[k], float(rng.random() < (0.9 if kind % 4 == k else 0.5)))
        states = [policy.learn(one, event) for policy, one in zip(policies, states, strict=True)]
    assert states[0].special > 0.0 > states[1].special


@pytest.mark.parametrize("evidence", ["cells", "groups"])
@pytest.mark.parametrize(("special", "low", "high"), [(True, 0.05, 0.16), (False, 0.0, 0.012)])
def test_it_finds_out_whether_the_arms_are_specialists(
    special: bool, low: float, high: float, evidence: str
) -> None:
    """Six kinds of queries: either each is one arm's own, or all arms are as good in some of them.

    Without the hypothesis the spread of specialists is still below 0.03 after 150 outcomes.
    """
    arms = [ArmId(f"arm{i}") for i in range(6)]
    rng, ends = np.random.default_rng(1), np.eye(8, dtype=np.float32)
    policy = Nested(surface=0.0, evidence=evidence)
    state = policy.init()
    old, before = Nested(surface=0.0, specialists=0.0), Nested(surface=0.0).init()
    for _ in range(150):
        kind, k = int(rng.integers(6)), int(rng.integers(6))
        x = ends[kind] + 0.1 * rng.normal(size=8).astype(np.float32)
        context = Context((x / np.linalg.norm(x)).astype(np.float32), 10, 0.1)
        chance = float(kind == k) if special else (0.2, 0.9)[kind % 2]
        event = _told(context, arms[k], float(rng.random() < chance))
        state, before = policy.learn(state, event), old.learn(before, event)
    assert low <= state.spread[0] <= high
    assert before.spread[0] < 0.03
    known = state.special
    for arm in arms:
        state = policy.forget(state, arm, 0.02)
    # what the outcomes said of the pool stays, when what they said of each arm has faded
    assert state.faded == pytest.approx(0.98 * known, rel=0.05)


@pytest.mark.parametrize(
    ("evidence", "errors", "wide"),
    [
        ("cells", 0.01, 1.0),
        ("cells", 0.0, 0.0),
        ("cells", -0.01, 0.0),
        ("groups", 0.0, 0.5),
        ("groups", 0.1, 0.622),
    ],
)
def test_cells_take_the_likelier_hypothesis_and_groups_mix_both(
    monkeypatch: pytest.MonkeyPatch, evidence: str, errors: float, wide: float
) -> None:
    """Above P = 1/2 each spread is 20 times as wide as set, else as learned; or between them."""
    told = [_told(_context(i), (A, B)[i % 2], 0.25 * (i % 5)) for i in range(20)]
    learned = _after(Nested(specialists=0.0), told).spread
    monkeypatch.setattr(Nested, "_special", lambda *_: errors)
    policy = Nested(specialists=0.5, evidence=evidence)
    found = _after(policy, told).spread
    for h, alike, start in zip(found, learned, (0.008, 0.004), strict=True):
        assert h == pytest.approx(alike + wide * (20.0 * start - alike), rel=1e-3)


def test_a_price_line_lets_the_dearer_arm_be_expected_better() -> None:
    arms = Arms((A, B), np.zeros(2), np.array([1.0, 0.01]), np.array([10.0, 0.1]))
    found = Nested().propose(Nested().init(), _context(1), arms)
    assert found.quality is not None
    assert found.quality.tolist() == pytest.approx([0.82, 0.58])  # 0.7 +- 0.12 a decade


def test_a_promotion_is_no_belief_about_skill_and_a_free_arm_is_none() -> None:
    policy = Nested()
    first = np.array([10.0, 0.1, 0.0])
    before = Arms((A, B, C), np.zeros(3), np.array([1.0, 0.01, 0.0]), first)
    after = Arms((A, B, C), np.zeros(3), np.array([0.01, 1.0, 0.0]), first)
    one, other = (policy.propose(policy.init(), _context(1), arms) for arms in (before, after))
    assert one.quality is not None
    assert other.quality is not None
    assert one.quality.tolist() == other.quality.tolist()
    assert one.quality[2] == pytest.approx(0.7)


def test_good_raises_the_value_and_with_thompson_the_chance_too() -> None:
    """With "ucb" a chance may fall after Good, and only since the bonus fell by more."""
    for policy in (Nested(), Nested(explore="ucb")):
        state, context, seen = policy.init(), _context(1), []
        for _ in range(8):
            found = policy.propose(state, context, PAIR)
            assert found.quality is not None
            assert found.bonus is not None
            seen.append((found.propensities[0], found.quality[0], found.bonus[0]))
            state = policy.learn(state, _told(context, A, 1.0))
        for (chance, value, bonus), (then, more, less) in itertools.pairwise(seen):
            assert more > value
            assert then >= chance or (policy.explore == "ucb" and bonus - less > more - value)


def test_an_arm_that_drops_raises_the_alarm_and_is_tried_again() -> None:
    queries = [_context(i % 40) for i in range(400)]

    def after(policy: Nested, then: float) -> Floats:
        good = [_told(context, A, 1.0) for context in queries[:200]]
        state = _after(policy, [*good, *(_told(context, A, then) for context in queries[:30])])
        found = policy.propose(state, queries[0], PAIR)
        assert found.count is not None
        return found.count

    kept = after(Nested(alarm=0.0), 0.0)[0]
    assert kept == 230.0
    assert after(Nested(), 0.0)[0] < 60.0  # a tenth of what was known, and what came since
    assert after(Nested(), 1.0)[0] == 230.0


def test_any_order_of_outcomes_between_two_groupings_gives_the_same_bits() -> None:
    """Sums are exact; only which query founds a cell, and the alarm's sums, hang on the order."""
    policy, rng = Nested(alarm=0.0), np.random.default_rng(3)
    founded = [_told(_context(i), (A, B, C)[i % 3], float(rng.uniform())) for i in range(19)]
    # None of these founds a cell, and the first grouping is due at the twentieth outcome.
    state = _after(policy, founded)
    state.due = 10_000
    dumped = codec.dump(state)
    again = [_told(_context(i % 19), (A, B, C)[i % 3], float(rng.uniform())) for i in range(200)]
    reached = set()
    for order in (range(200), reversed(range(200)), rng.permutation(200).tolist()):
        one = codec.load(dumped, Cells)
        for i in order:
            one = policy.learn(one, again[i])
        reached.add(codec.dump(one))
    assert len(reached) == 1


def test_many_proposals_are_those_of_one_by_one() -> None:
    rng = np.random.default_rng(5)
    told = [_told(_context(i), (A, B, C)[i % 3], float(rng.uniform())) for i in range(200)]
    for policy in (Nested(), Nested(explore="ucb"), Nested(borrow=4.0)):
        state = _after(policy, told)
        contexts = [_context(i, worth=0.01 * (i + 1)) for i in range(190, 220)]
        costs = np.array([[0.001 * i, 0.002] for i in range(30)])
        alike = Arms((A, C), costs, np.array([0.5, 1.0]))
        together = policy.propose_many(state, Contexts.of(contexts), alike)
        for each, context, cost in zip(together, contexts, costs, strict=True):
            alone = policy.propose(state, context, replace(alike, cost_usd=cost))
            assert each.scores.tolist() == pytest.approx(alone.scores.tolist(), abs=1e-12)
            assert each.propensities.tolist() == pytest.approx(alone.propensities.tolist())


def _four_cells() -> Cells:
    """Of one group, with 1, 4, 2 and 8 outcomes; the last two rows are of no cell."""
    n = np.array([[1.0, 0, 0], [3, 1, 0], [0, 2, 0], [8, 0, 0], [0, 0, 0], [5, 5, 0]])
    return Cells(n=n, s=n / 2, used=4, mass=np.ones(4, np.int64), groups=1)


@pytest.mark.parametrize(
    ("own", "group", "borrow", "counts"),
    [
        # D = 2, so the weights are 1, 1/8, 0 and 0
        (0, 0, 9.0, [1.375, 0.125]),
        (0, 0, 3.0, [1.1875, 0.0625]),  # two of the second cell's four outcomes make three
        (0, 0, 1.0, [1.0, 0.0]),  # its own are enough
        (4, 0, 9.0, [1.375, 0.125]),  # it has no cell yet
        (4, 1, 9.0, [0.0, 0.0]),  # it has no features
    ],
)
def test_the_nearest_cells_count_by_distance_until_there_are_enough(
    own: int, group: int, borrow: float, counts: list[float]
) -> None:
    state, far = _four_cells(), np.array([0.0, 1.0, 2.0, 5.0], np.float32)
    n, s = borrowed(state, far, np.array(own), np.array(group), borrow)
    assert n.tolist() == [*counts, 0.0]
    assert s.tolist() == [x / 2 for x in n]
    rows = np.array([[0.0, 1, 2, 5], [5, 2, 1, 0]], np.float32)
    many = borrowed(state, rows, np.array([own, 3]), np.array([group, 0]), borrow)
    # the fourth cell has eight of nine, and the ninth is a half of the third's two
    assert many[0].tolist() == [n.tolist(), [8.0, 0.125 if borrow == 9.0 else 0.0, 0.0]]
    assert many[1].tolist() == (many[0] / 2).tolist()
    assert state.n.tolist() == _four_cells().n.tolist()


def test_of_cells_equally_far_the_first_counts() -> None:
    state, far = _four_cells(), np.array([3.0, 0.0, 0.0, 9.0], np.float32)
    n, _ = borrowed(state, far, np.array(4), np.array(0), 4.0)
    assert n.tolist() == [3.0, 1.0, 0.0]
    n, _ = borrowed(state, np.full(4, 7.0, np.float32), np.array(4), np.array(0), 9.0)
    assert n.tolist() == [1.0, 0.0, 0.0]


def test_what_is_lent_is_on_a_grid_so_that_any_order_of_addition_gives_it() -> None:
    rng = np.random.default_rng(2)
    told = [_told(_context(i), (A, B, C)[i % 3], float(rng.uniform())) for i in range(90)]
    lent = np.frombuffer(_lent(_after(Nested(), told), 8))
    assert lent.any()
    assert (lent * 2.0**28 % 1.0 == 0.0).all()  # a weight of 2⁻¹² times a quality of 2⁻¹⁶


def test_an_outcome_counts_for_a_new_query_that_is_like_it() -> None:
    """Of two kinds of queries; a query of its own cell has no outcome yet."""
    ends = np.eye(8, dtype=np.float32)[:2]

    def query(kind: int) -> Context:
        x = ends[kind] + 0.1 * rng.normal(size=8).astype(np.float32)
        return Context((x / np.linalg.norm(x)).astype(np.float32), 10, 0.1)

    rng, gaps = np.random.default_rng(0), []
    told = [_told(query(i % 2), A, float(i % 2)) for i in range(18)]
    new = query(0), query(1)
    for borrow in (0.0, 9.0):
        policy = Nested(surface=0.0, borrow=borrow)
        bad, good = (policy.propose(_after(policy, told), one, ONE).quality for one in new)
        assert bad is not None
        assert good is not None
        gaps.append(good[0] - bad[0])
    assert gaps[0] == pytest.approx(0.0)  # before the first grouping all cells are of one group
    assert gaps[1] > 0.1


def test_the_state_is_of_one_size_from_the_first_outcome_on() -> None:
    policy = Nested()
    sizes = set()
    state = policy.init()
    for i in range(1000):
        state = policy.learn(state, _told(_context(i, 384), A, 0.5))
        if i in (0, 50, 999):
            sizes.add(len(codec.dump(state)))
    assert max(sizes) - min(sizes) < 64
    assert max(sizes) < 600_000


def _lent(state: Cells, d: int = 384) -> bytes:
    """What counts for new queries with `borrow`."""
    policy, contexts = Nested(), Contexts.of([_context(i, d) for i in range(700, 720)])
    x = on_grid(policy._features(contexts))
    n, s = borrowed(state, state.distances(x), *state.find(x), 30.0)
    return n.tobytes() + s.tobytes()


_FOLD = """
import hashlib
from tests.unit.policies.test_nested import A, B, C, Nested, _after, _context, _lent, _told
from bandit_service.core import codec
import numpy as np
rng = np.random.default_rng(1)
told = [_told(_context(i, 384), (A, B, C)[i % 3], float(rng.uniform())) for i in range(700)]
state = _after(Nested(), told)
print(hashlib.sha256(codec.dump(state) + _lent(state)).hexdigest())
"""


def test_the_state_is_the_same_bits_with_any_kernel_of_the_blas() -> None:
    """OpenBLAS takes another order of summation on other processors; here it is told which."""
    digests = set()
    for core in ("Prescott", "Nehalem", "Haswell"):
        kernel = {"OPENBLAS_CORETYPE": core, "OPENBLAS_NUM_THREADS": "1"}
        environ = os.environ | kernel  # noqa: TID251 - passed on
        run = subprocess.run(
            [sys.executable, "-c", _FOLD], env=environ, capture_output=True, text=True, check=False
        )
        assert run.returncode == 0, run.stderr
        digests.add(run.stdout.strip())
    assert len(digests) == 1


_FULL = 2**31 - 1


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize("room", [3, 10**6])
def test_a_cells_sum_stays_within_its_bits(
    monkeypatch: pytest.MonkeyPatch, compiled: bool, together: bool, room: int
) -> None:
    """After two million queries of one cell between two groupings it forgets half of them; one that
    still has room keeps them all, to the bit."""
    if not compiled:
        monkeypatch.setattr(_native, "native", lambda: None)
    policy, context = (
        Nested(cells=2, groups=1, surface=0.0),
        Context(np.eye(4, dtype=np.float32)[0], 10, 0.1),
    )
    state = _after(policy, [_told(context, A, 1.0)])
    state.outcomes, state.due, state.mass[0] = 2_100_000, 3_000_000, 2_000_000
    state.sums_x[0, 0] = _FULL - room
    events = [_told(context, A, 1.0)] * 5
    if together:
        state = policy.learn_many(state, events)
    else:
        for event in events:
            state = policy.learn(state, event)
    if room > 5 * 1024:
        assert (state.sums_x[0, 0], state.mass[0]) == (_FULL - room + 5 * 1024, 2_000_005)
    else:
        assert (state.sums_x[0, 0], state.mass[0]) == ((_FULL - room) // 2 + 5 * 1024, 1_000_005)
    assert state.sums_x[0, 1:].tolist() == [0, 0, 0]
    assert state.outcomes == 2_100_005
