"""Shadows look at a decision after its answer, and before anybody knows what came of it."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import msgspec
import pytest

from bandit_service import wire
from bandit_service.core import events as ev
from bandit_service.core.apply import apply
from bandit_service.core.decide import decide
from bandit_service.core.experiments.spec import Experiment, Variant
from bandit_service.core.exploration import Exploration
from bandit_service.core.query import Recalled
from bandit_service.core.shadows import cast
from bandit_service.core.world import World
from bandit_service.embedding import EmbeddingStage
from bandit_service.runtime import shadows
from bandit_service.runtime.router import Router
from bandit_service.runtime.router_rules import RouterRules
from bandit_service.runtime.writer import Writer
from bandit_service.settings import Settings
from bandit_service.telemetry.telemetry import Telemetry
from store.history import HybridIndex
from store.memory import MemoryLog
from tests.property.test_replay_equals_live import _NoModel
from tests.unit.experiments.given import a_unit_vector, a_world, asked, decided, run, two_arms

SHADES = (
    Variant(key="s", policy="eagle", shadow=True),
    Variant(key="t", policy="nested", shadow=True),
)


def _world() -> World:
    world = a_world()
    spec = two_arms(share=0.5)
    run(world, Experiment(id="e", variants=(*spec.variants, *SHADES), share=0.5))
    return world


def _router(log: MemoryLog) -> Router:
    telemetry = Telemetry(pending=lambda: 0, remembered=lambda: 0)
    dim = len(a_unit_vector(0))
    model = _NoModel()
    model.dim = dim
    return Router(
        writer=Writer(_world(), log, telemetry, sync_interval_s=60.0, max_backlog=10),
        index=HybridIndex(dim, 10),
        embedder=EmbeddingStage(model),
        telemetry=telemetry,
        rules=replace(RouterRules.of(Settings()), neighbours=0),
    )


async def _decided(router: Router, many: int) -> list[ev.Decided]:
    requests = (
        wire.DecideRequest(embedding=a_unit_vector(i % 3).tolist(), unit=f"u{i}")
        for i in range(many)
    )
    return await asyncio.gather(*(router.decide(each) for each in requests))


def _events(log: MemoryLog) -> list[ev.AnyEvent]:
    return [ev.decode(body) for _, body in log.replay()]


def _kinds(log: MemoryLog) -> list[str]:
    return [ev.kind(event) for event in _events(log)]


async def test_a_decision_is_answered_before_any_shadow_looks_at_it() -> None:
    log = MemoryLog()
    router = _router(log)
    await router.start()
    made = await _decided(router, 5)
    assert _kinds(log) == ["decided"] * 5
    async with asyncio.timeout(60):
        while len(_kinds(log)) < 10:
            await asyncio.sleep(0.01)
    events = _events(log)[5:]
    assert [getattr(event, "decision_id", "") for event in events] == [one.id for one in made]
    for event in events:
        assert isinstance(event, ev.Shadowed)
        assert [(one.experiment, one.variant) for one in event.shadows] == [("e", "s"), ("e", "t")]
        assert all(sum(one.propensities) == pytest.approx(1.0) for one in event.shadows)
    sides = router.world.experiments.trials["e"].shadows
    assert {key: side.decisions for key, side in sides.items()} == {"s": 5, "t": 5}
    await router.close()


async def test_no_shadow_knows_what_came_of_the_decision() -> None:
    """An outcome that is quick waits until they looked, and counts for them."""
    log = MemoryLog()
    router = _router(log)
    await router.start()
    first, second = await _decided(router, 2)
    request = wire.RewardRequest(decision_id=second.id, quality=1.0, reward=0.75)
    await router.writer.submit(
        lambda: router._rewarded(router.pending.find(second.id), second.id, request.reported()),
        durable=False,
    )
    assert _kinds(log) == ["decided"] * 2 + ["shadowed", "rewarded"]
    assert getattr(_events(log)[2], "decision_id", "") == second.id
    await router.close()
    assert _kinds(log)[4:] == ["shadowed"]  # the first, at the end
    assert router.world.pending.decisions[first.id].decided.shadows


async def test_many_that_wait_are_looked_at_by_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    log = MemoryLog()
    router = _router(log)
    monkeypatch.setattr(shadows, "PATIENCE_S", 3600.0)
    await router.start()
    await _decided(router, shadows.MANY + 5)
    async with asyncio.timeout(60):
        while _kinds(log).count("shadowed") < shadows.MANY + 5:
            await asyncio.sleep(0)
    await router.close()
    assert _kinds(log).count("shadowed") == shadows.MANY + 5


def test_together_they_come_out_as_one_by_one() -> None:
    world, other = _world(), _world()
    for each in (world, other):
        for i in range(9):
            event = decided(each, asked(f"u{i}", axis=i))
            apply(
                each,
                ev.Rewarded(ts=3.0, decision_id=event.id, quality=(i % 3) / 2, reward=(i % 3) / 2),
            )
    some = [world.pending.decisions[id] for id in list(world.pending.decisions)[-9:]]
    together = cast(world, some, Exploration())
    alone = [cast(other, [other.pending.decisions[one.decided.id]], Exploration()) for one in some]
    assert together == [each for (each,) in alone]


def test_a_reward_that_came_first_counts_all_the_same() -> None:
    """A log may hold them in any order; and a decision of an old log has its shadows in itself."""
    one, other = _world(), _world()
    for world, late in ((one, True), (other, False)):
        event = decide(world, asked("u1"), Recalled(), "d", 2.0, Exploration())
        apply(world, event)
        shadow = ev.Shadow(
            experiment="e", variant="s", propensities=(0.5, 0.5), expected_cost_usd=0.1
        )
        told = ev.Shadowed(ts=4.0, decision_id=event.id, shadows=(shadow,))
        reward = ev.Rewarded(ts=4.0, decision_id=event.id, quality=0.5, reward=0.25)
        for each in (reward, told) if late else (told, reward):
            apply(world, each)
    mine, its = (world.experiments.trials["e"].shadows["s"] for world in (one, other))
    assert mine == its
    assert mine.decisions == 1


def test_shadows_inside_of_a_decision_count_as_those_of_their_event() -> None:
    """Logs of before have them there."""
    one, other = _world(), _world()
    shadow = ev.Shadow(
        experiment="e", variant="s", propensities=(0.25, 0.75), expected_cost_usd=0.1
    )
    for world, inside in ((one, True), (other, False)):
        event = decide(world, asked("u1"), Recalled(), "d", 2.0, Exploration())
        assert event.shadows == ()
        apply(world, msgspec.structs.replace(event, shadows=(shadow,)) if inside else event)
        if not inside:
            apply(world, ev.Shadowed(ts=2.0, decision_id="d", shadows=(shadow,)))
        apply(world, ev.Rewarded(ts=3.0, decision_id="d", quality=0.5, reward=0.25))
    mine, its = (world.experiments.trials["e"].shadows["s"] for world in (one, other))
    assert mine == its
    assert mine.decisions == mine.rewards == 1
