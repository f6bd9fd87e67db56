"""`nested` learns many outcomes at once to the same bits as one by one, however they are cut."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bandit_service.core import codec
from policies import SURFACE, ArmId, Compared, Context, Rewarded, Vector, _native
from policies.nested import Nested

Event = Rewarded | Compared
D, N = 6, 240
SETTINGS = (
    Nested(),
    Nested(alarm=0.0, comparison_weight=1.0),
    Nested(alarm=1.5, allowance=0.1, comparison_weight=1.0, cells=8, groups=3),
    Nested(cells=3, groups=2, surface=0.0, alarm=2.0, comparison_weight=0.0),
)


def _query(rng: np.random.Generator) -> Context:
    """Of one of a few places, or of none; with or without a text."""
    x = np.zeros(D, np.float32)
    if rng.random() > 0.1:
        x = np.eye(D, dtype=np.float32)[rng.integers(D)] + 0.1 * rng.normal(size=D)
        x = (x / np.linalg.norm(x)).astype(np.float32)
    surface: Vector = np.zeros(SURFACE, np.float32)
    if rng.random() > 0.5:
        surface = rng.uniform(-0.3, 0.3, SURFACE).astype(np.float32)
    return Context(x, 10, 0.1, surface=surface)


def _events(seed: int) -> list[Event]:
    """Outcomes, late parts of them, comparisons and ties; arms appear, and one turns bad."""
    rng, found = np.random.default_rng(seed), list[Event]()
    for i in range(N):
        query, arms = _query(rng), 2 + i // 30
        arm = ArmId(f"a{rng.integers(arms)}")
        kind = rng.random()
        if kind < 0.1:
            other = ArmId(f"b{rng.integers(3)}")
            found.append(Compared(query, arm, other, tie=bool(rng.random() < 0.3)))
        elif kind < 0.2:  # a signal without its reward
            found.append(Rewarded(query, arm, 0.5, 1.0, 0.01, latency_s=1.0))
        elif kind < 0.3:  # a reward without a quality
            found.append(Rewarded(query, arm, 0.5, 1.0, 0.01, reward=float(rng.random())))
        else:
            y = float(rng.random() < (0.9 if i < N // 2 or arm != "a0" else 0.05))
            found.append(Rewarded(query, arm, 0.5, 1.0, 0.01, y, 0.01, 1.0, y - 0.1))
    return found


@pytest.mark.parametrize("policy", SETTINGS, ids=str)
@settings(max_examples=4, deadline=None)
@given(data=st.data(), seed=st.integers(0, 2**32 - 1))
def test_any_cut_is_as_one_by_one(policy: Nested, data: Any, seed: int) -> None:
    events = _events(seed)
    rng = np.random.default_rng(seed)
    alone, together, start = policy.init(), policy.init(), 0
    while start < N:
        stop = start + data.draw(st.integers(1, 200))
        for event in events[start:stop]:
            alone = policy.learn(alone, event)
        together = policy.learn_many(together, events[start:stop])
        assert codec.dump(together) == codec.dump(alone)
        if rng.random() < 0.3:  # what is learned one by one stands between blocks
            arm = next(iter(alone.columns))
            alone, together = policy.forget(alone, arm, 0.5), policy.forget(together, arm, 0.5)
        start = stop


@pytest.mark.skipif(_native.native() is None, reason="it was not compiled here")
@pytest.mark.parametrize("policy", SETTINGS, ids=str)
@settings(max_examples=4, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), at_once=st.integers(1, 100))
def test_the_compiled_library_learns_the_bits_of_numpy(
    policy: Nested, seed: int, at_once: int
) -> None:
    events = _events(seed)
    compiled, plain = policy.init(), policy.init()
    for start in range(0, N, at_once):
        compiled = policy.learn_many(compiled, events[start : start + at_once])
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(_native, "native", lambda: None)
            plain = policy.learn_many(plain, events[start : start + at_once])
        assert codec.dump(compiled) == codec.dump(plain)


def test_what_is_covered_is_there() -> None:
    """The events above raise alarms, and group cells anew while blocks are learned."""
    policy, few = SETTINGS[2], SETTINGS[0]
    state, other = policy.init(), few.init()
    for start in range(0, N, 80):
        state = policy.learn_many(state, _events(1)[start : start + 80])
        other = few.learn_many(other, _events(1)[start : start + 80])
    assert state.alarms.sum() > 0
    assert state.groups == 3
    assert other.used > 64


def test_what_is_too_long_to_be_exact_is_left_to_one_by_one() -> None:
    policy = Nested()
    long = Context(np.full(D, 3.0, np.float32), 10, 0.1)
    event = Rewarded(long, ArmId("a"), 0.5, 1.0, 0.01, 0.5, 0.01, 1.0, 0.5)
    state = policy.init()
    before = codec.dump(state)
    with pytest.raises(ValueError, match="embedding: is too long for exact products"):
        policy.learn_many(state, [event])
    assert codec.dump(state) == before
