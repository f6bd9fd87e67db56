"""Arms of one family: what is known of one is a prior for the others, and outcomes overrule it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import policies
from bandit_service.core import events as ev
from bandit_service.core import snapshot
from bandit_service.core.apply import apply
from bandit_service.core.decide import weigh
from bandit_service.core.exploration import Exploration
from bandit_service.core.query import Query, Recalled
from bandit_service.core.world import World, new_world
from policies import ArmId, Arms, Context, Contexts, Floats, Rewarded
from policies._cells import Cells
from policies.nested import Nested

OLD, NEW, OTHER = ArmId("a"), ArmId("b"), ArmId("c")
KINDS, DIM = 6, 16
STRANGERS = Arms((OLD, NEW, OTHER), np.zeros(3), np.ones(3))
FAMILY = replace(STRANGERS, family=("x", "x", ""))
GOOD_AT = np.array([0.95, 0.9, 0.2, 0.3, 0.9, 0.25])
"""The old arm's quality by kind of query."""


def _middles() -> Floats:
    drawn = np.random.default_rng(0).normal(size=(KINDS, DIM))
    made: Floats = drawn / np.linalg.norm(drawn, axis=1, keepdims=True)
    return made


MIDDLES = _middles()


def _context(rng: np.random.Generator) -> tuple[int, Context]:
    kind = int(rng.integers(KINDS))
    vector = MIDDLES[kind] + 0.15 * rng.normal(size=DIM)
    return kind, Context((vector / np.linalg.norm(vector)).astype(np.float32), 10, 0.1)


def _told(context: Context, arm: ArmId, good: bool) -> Rewarded:
    return Rewarded(context, arm, 0.5, 1.0, 0.0, quality=float(good), reward=float(good))


def _errors(arms: Arms, quality: Floats, n: int, seeds: int = 2) -> Floats:
    """By how much the new arm's quality is misjudged, after 0 to n outcomes of it."""
    policy, errors = Nested(), np.zeros((seeds, n))
    for seed in range(seeds):
        rng, state = np.random.default_rng(seed), policy.init()
        for i in range(900):
            kind, context = _context(rng)
            arm, chance = ((OLD, GOOD_AT[kind]), (OTHER, 0.6))[i % 2]
            state = policy.learn(state, _told(context, arm, rng.random() < chance))
        for i in range(n):
            kind, context = _context(rng)
            believed = policy.propose(state, context, arms).quality
            assert believed is not None
            errors[seed, i] = abs(believed[1] - quality[kind])
            state = policy.learn(state, _told(context, NEW, rng.random() < quality[kind]))
    means: Floats = errors.mean(axis=0)
    return means


def test_a_second_arm_of_a_family_learns_faster() -> None:
    like_it = GOOD_AT - 0.05
    alone, helped = (_errors(arms, like_it, 40) for arms in (STRANGERS, FAMILY))
    assert helped[:10].mean() < 0.75 * alone[:10].mean()
    assert helped[10:].mean() < 0.85 * alone[10:].mean()


def test_a_wrong_family_is_overruled() -> None:
    """The new arm is bad at what the old one is good at, and the other way round."""
    misled = _errors(FAMILY, 1.0 - GOOD_AT, 240)
    assert misled[:10].mean() > 0.5
    assert misled[-20:].mean() < 0.25


def _state(outcomes: int) -> Cells:
    policy, rng = Nested(), np.random.default_rng(5)
    state = policy.init()
    for _ in range(outcomes):
        kind, context = _context(rng)
        state = policy.learn(state, _told(context, OLD, rng.random() < GOOD_AT[kind]))
    return state


def test_without_a_second_arm_a_family_changes_nothing() -> None:
    state, context = _state(60), _context(np.random.default_rng(1))[1]
    alone = Nested().propose(state, context, STRANGERS)
    for same in (
        Nested().propose(state, context, replace(STRANGERS, family=("x", "y", "z"))),
        Nested(family=0.0).propose(state, context, FAMILY),
    ):
        assert same.scores.tobytes() == alone.scores.tobytes()
        assert same.propensities.tobytes() == alone.propensities.tobytes()


def test_before_any_outcome_a_family_knows_nothing() -> None:
    context = _context(np.random.default_rng(1))[1]
    alone, helped = (
        Nested().propose(Nested().init(), context, arms) for arms in (STRANGERS, FAMILY)
    )
    assert helped.quality == pytest.approx(alone.quality)
    assert helped.deviation == pytest.approx(alone.deviation)


def test_many_queries_at_once_are_bit_for_bit_the_same() -> None:
    policy, state, rng = Nested(), _state(80), np.random.default_rng(2)
    contexts = [_context(rng)[1] for _ in range(7)]
    kin = Arms((ArmId("old"),), np.zeros(1), np.ones(1), family=("x",))
    arms = replace(FAMILY, kin=kin)
    many = policy.propose_many(state, Contexts.of(contexts), arms.rows(np.zeros((7, 3))))
    for one, context in zip(many, contexts, strict=True):
        alone = policy.propose(state, context, arms)
        assert one.scores.tobytes() == alone.scores.tobytes()


# --- as a fold of the log


def _spec(id: ArmId, family: str = "") -> ev.ArmSpec:
    return ev.ArmSpec(id=id, usd_per_mtok_in=1.0, usd_per_mtok_out=1.0, family=family)


def _events(family: str) -> list[ev.AnyEvent]:
    """The old arm learns, leaves, and a new one of the same family comes."""
    rng = np.random.default_rng(3)
    events: list[ev.AnyEvent] = [
        ev.ArmAdded(ts=0.0, arm=_spec(OLD, family), source="api"),
        ev.ArmAdded(ts=0.0, arm=_spec(OTHER), source="api"),
    ]
    for _ in range(200):
        kind, context = _context(rng)
        subject = ev.Subject(
            embedding=ev.pack(context.embedding), tokens=10, willingness_to_pay=0.1
        )
        quality = float(rng.random() < GOOD_AT[kind])
        events.append(
            ev.Rewarded(ts=1.0, subject=subject, arm=OLD, quality=quality, reward=quality)
        )
    events.append(ev.ArmRetired(ts=2.0, id=OLD, source="api"))
    return [*events, ev.ArmAdded(ts=3.0, arm=_spec(NEW, family), source="api")]


def _folded(events: list[ev.AnyEvent]) -> World:
    world = new_world({"nested": policies.load("nested")}, "nested", 100)
    for event in events:
        apply(world, ev.decode(ev.encode(event)))
    return world


def _weighed(world: World, kind: int) -> Floats:
    query = Query(MIDDLES[kind].astype(np.float32), 10, 0.1)
    weighed = weigh(world, query, Recalled(), Exploration())
    assert weighed.arms.ids == (NEW, OTHER)
    assert weighed.proposal.quality is not None
    return weighed.proposal.quality


def test_a_new_arm_begins_with_what_a_retired_one_of_its_family_knew() -> None:
    world, stranger = _folded(_events("x")), _folded(_events(""))
    good, bad = 0, 2  # what the old arm was good and bad at
    assert _weighed(world, good)[0] - _weighed(world, bad)[0] > 0.1
    apart = [float(_weighed(one, good)[0] - _weighed(one, bad)[0]) for one in (stranger, world)]
    assert apart[1] > apart[0] + 0.05


def test_it_is_a_fold_so_replay_and_a_snapshot_know_the_same() -> None:
    events = _events("x")
    world, again = _folded(events), _folded(events)
    assert world.digest() == again.digest()
    policy = policies.load("nested")
    kept = snapshot.read(snapshot.dump(world))
    restored = snapshot.restore(kept, {"nested": policy}, "nested")
    for kind in range(KINDS):
        expected = _weighed(world, kind).tobytes()
        assert _weighed(again, kind).tobytes() == _weighed(restored, kind).tobytes() == expected
