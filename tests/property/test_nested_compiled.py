"""The compiled library proposes and learns as numpy does: the same bits."""

from __future__ import annotations

import copy
import shutil
from contextlib import suppress
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bandit_service.core import codec
from policies import SURFACE, ArmId, Arms, Context, Contexts, Proposal, Rewarded, _native
from policies._cells import Cells
from policies.nested import Nested

pytestmark = pytest.mark.skipif(_native.native() is None, reason="it was not compiled here")
SETTINGS = (
    Nested(),
    Nested(cells=8, groups=2, surface=0.0, borrow=3.3),
    Nested(borrow=0.0, kappa=2.0),
    Nested(cells=200, groups=40, borrow=60.0),
)


def _query(rng: np.random.Generator, d: int) -> Context:
    """Near one of a few places, nowhere, or longer than is exact."""
    x = np.zeros(d, np.float32)
    kind = rng.random()
    if kind > 0.05:
        near = np.random.default_rng(rng.integers(12)).normal(size=d) + 0.3 * rng.normal(size=d)
        x = (near / np.linalg.norm(near)).astype(np.float32)
    if kind > 0.98:
        x *= np.float32(5.0)
    return Context(x, 10, 0.1, surface=rng.normal(0.0, 0.2, SURFACE).astype(np.float32))


def _arms(rng: np.random.Generator, arms: int) -> Arms:
    """Some of them, now and then with one that nobody has seen."""
    chosen = np.sort(rng.choice(arms, size=int(rng.integers(1, arms + 1)), replace=False))
    ids = [ArmId(f"a{i:03}") for i in chosen.tolist()]
    if rng.random() < 0.2:
        ids.append(ArmId("never"))
    price = np.where(rng.random(len(ids)) < 0.2, 0.0, rng.random(len(ids)))
    return Arms(tuple(ids), rng.random(len(ids)) * 1e-3, price)


def _bits(proposal: Proposal) -> list[bytes]:
    each = (getattr(proposal, one.name) for one in fields(proposal))
    return [one.tobytes() for one in each]


@settings(max_examples=10, deadline=None)
@given(
    policy=st.sampled_from(SETTINGS),
    seed=st.integers(0, 2**32 - 1),
    d=st.sampled_from([1, 5, 33, 384]),
    arms=st.sampled_from([2, 7, 8, 11, 23, 60]),
)
def test_it_gives_the_bits_of_numpy(policy: Nested, seed: int, d: int, arms: int) -> None:
    rng = np.random.default_rng(seed)
    compiled, plain = policy.init(), policy.init()
    with pytest.MonkeyPatch.context() as patch:
        for i in range(80):
            query, some = _query(rng, d), _arms(rng, arms)
            many = Contexts.of([_query(rng, d) for _ in range(int(rng.integers(1, 5)))])
            rows = some.rows(rng.random((len(many), len(some))) * 1e-3)
            y = float(rng.random())
            arm = ArmId(f"a{int(rng.integers(arms)):03}")
            event = Rewarded(query, arm, 0.5, 1.0, 0.0, quality=y, reward=y)
            found = []
            for state in (compiled, plain):
                if state is plain:
                    patch.setattr(_native, "native", lambda: None)
                one = policy.propose(state, query, some)
                each = [*policy.propose_many(state, many, rows)] if i % 4 == 0 else []
                found.append([_bits(proposal) for proposal in (one, *each)])
                policy.learn(state, event)
                patch.undo()
            assert found[0] == found[1]
    assert codec.dump(compiled) == codec.dump(plain)


def test_a_copy_of_a_state_is_read_where_it_lies() -> None:
    policy, rng = Nested(), np.random.default_rng(3)
    state, arms = policy.init(), _arms(rng, 5)
    for _ in range(50):
        policy.learn(state, _told(rng, 1.0))
    query = _query(rng, 12)
    before = _bits(policy.propose(state, query, arms))
    copied = copy.deepcopy(state)
    assert _bits(policy.propose(copied, query, arms)) == before
    for _ in range(50):
        policy.learn(copied, _told(rng, 0.0))
    assert _bits(policy.propose(state, query, arms)) == before
    after = policy.propose(copied, query, arms)
    assert _bits(after) != before
    fresh = codec.load(codec.dump(copied), Cells)
    assert _bits(policy.propose(fresh, query, arms)) == _bits(after)


def test_a_library_of_other_source_is_not_used(tmp_path: Path) -> None:
    library = str(shutil.copy(_native.LIBRARY, tmp_path))
    source = Path(shutil.copy(Path(_native.LIBRARY).with_suffix(".c"), tmp_path))
    _native.Native(library)
    source.write_text(source.read_text() + "\n")
    with pytest.raises(OSError, match=r"_nested.so: was compiled from other source"):
        _native.Native(library)


def _learned(d: int, policy: Nested) -> Cells:
    rng, state = np.random.default_rng(5), policy.init()
    for _ in range(30):
        event = Rewarded(_query(rng, d), ArmId("a000"), 0.5, 1.0, 0.0, quality=0.5, reward=0.5)
        policy.learn(state, event)
    return state


def _whole(shape: tuple[int, ...], queries: int, worths: int) -> tuple[Contexts, Arms]:
    """Three arms with costs of this shape, and queries of which so many say their worth."""
    rng = np.random.default_rng(7)
    many = Contexts.of([_query(rng, 12) for _ in range(queries)])
    many = replace(many, willingness_to_pay=many.willingness_to_pay[:worths])
    return many, Arms(tuple(map(ArmId, "abc")), np.full(shape, 1e-3), np.ones(3))


@pytest.mark.parametrize(
    ("shape", "queries", "worths"),
    [((2,), 4, 4), ((), 4, 4), ((1, 3), 4, 4), ((2, 3), 4, 4), ((4, 2), 4, 4), ((3,), 4, 3),
     ((3,), 4, 1)],
)  # fmt: skip
def test_it_reads_no_array_of_another_shape(
    shape: tuple[int, ...], queries: int, worths: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = Nested()
    state, (many, arms) = _learned(12, policy), _whole(shape, queries, worths)
    found = []
    for _ in range(2):
        try:
            found.append(tuple(map(_bits, policy.propose_many(state, many, arms))))
        except ValueError as error:
            found.append((str(error),))  # type: ignore[arg-type]
        monkeypatch.setattr(_native, "native", lambda: None)
    assert found[0] == found[1]


@pytest.mark.parametrize(
    "price", [np.ones(3, np.float32), np.ones(2), np.ones(1), np.ones((1, 3)), np.ones(4)], ids=str
)
def test_it_reads_no_prices_of_another_kind(price: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = Nested()
    state, (many, arms) = _learned(12, policy), _whole((3,), 4, 4)
    library = _native.native()
    assert library is not None
    monkeypatch.setattr(library, "_begin", None)  # it would be called
    with suppress(ValueError, TypeError):  # of numpy, where they are not one for each arm
        policy.propose_many(state, many, replace(arms, price=price))


def test_it_reads_no_features_at_an_odd_address(monkeypatch: pytest.MonkeyPatch) -> None:
    policy, rng = Nested(surface=0.0), np.random.default_rng(3)
    state, arms, query = _learned(12, policy), _arms(rng, 5), _query(rng, 12)
    odd = np.frombuffer(b"-" + query.embedding.tobytes(), np.float32, offset=1)
    before = _bits(policy.propose(state, query, arms))
    library = _native.native()
    assert library is not None
    monkeypatch.setattr(library, "_begin", None)  # it would be called
    assert _bits(policy.propose(state, replace(query, embedding=odd), arms)) == before


def test_a_proposal_is_of_its_own_arms_whoever_asks_meanwhile(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    policy, rng = Nested(), np.random.default_rng(3)
    state, query = _learned(12, policy), _query(rng, 12)
    few, more = _whole((3,), 1, 1)[1], Arms(tuple(map(ArmId, "defg")), np.ones(4), np.ones(4))
    before, real = _bits(policy.propose(state, query, few)), _native.Native.propose

    def meanwhile(*given: Any) -> Any:
        """As if another thread came first."""
        monkeypatch.setattr(_native.Native, "propose", real)
        Nested(kappa=3.0).propose(state, query, more)
        return real(*given)

    monkeypatch.setattr(_native.Native, "propose", meanwhile)
    assert _bits(policy.propose(state, query, few)) == before


def _told(rng: np.random.Generator, y: float) -> Rewarded:
    arm = ArmId(f"a{int(rng.integers(5)):03}")
    return Rewarded(_query(rng, 12), arm, 0.5, 1.0, 0.0, quality=y, reward=y)
