"""Whatever happens to three replicas, their log is one that a single writer could have written."""

from __future__ import annotations

import asyncio
import random  # noqa: TID251 - what happens, from a fixed seed
from pathlib import Path

import pytest

import policies
from bandit_service.core import events as ev
from bandit_service.core.apply import apply
from bandit_service.core.errors import Conflict, Unavailable
from bandit_service.core.world import new_world
from tests.unit.shared.memory import Engine, Running, same

STEPS = 150


class _History:
    """What clients were told, and what they may not be told twice."""

    def __init__(self) -> None:
        self.decided: list[str] = []
        self.told: dict[str, float] = {}
        self.accepted: list[str] = []


async def _rewarded(history: _History, one: Running, id: str, quality: float) -> None:
    try:
        status = await one.reward(id, quality)
    except (Conflict, Unavailable):
        return
    history.told.setdefault(id, quality)
    assert history.told[id] == quality, "two values were acknowledged"
    if status == "accepted":
        history.accepted.append(id)


async def _lived(engine: Engine, path: Path, chance: random.Random, history: _History) -> None:
    names = ["a", "b", "c"]
    replicas = [await Running(engine, path / name).start(park_s=0.2) for name in names]
    await replicas[0].put_an_arm()
    await same(*replicas)
    under_way: list[asyncio.Task[None]] = []
    for step in range(STEPS):
        i = chance.randrange(3)
        if engine.down and chance.random() < 0.3:
            engine.down = False
        match chance.choices(
            ("decide", "reward", "unsure", "closed", "down", "die", "pause"), (8, 12, 2, 1, 1, 1, 8)
        )[0]:
            case "decide":
                history.decided.append(await replicas[i].decide(step))
            case "reward" if history.decided:
                id = chance.choice(history.decided[-5:])
                quality = chance.choice((0.25, 0.75))
                work = _rewarded(history, replicas[i], id, quality)
                under_way.append(asyncio.create_task(work))
            case "unsure":
                engine.unsure[replicas[i].name] = chance.random() < 0.5
            case "closed":
                engine.members[replicas[i].name][3] = True
            case "down":
                engine.down = True
            case "die" if not engine.down:
                await replicas[i].die()
                replicas[i] = await Running(engine, path / names[i]).start(park_s=0.2)
            case _:
                await asyncio.sleep(chance.random() * 0.01)
    engine.down = False
    engine.unsure.clear()
    for each in replicas:
        async with asyncio.timeout(60):
            await each.writer.caught_up()
    for task in under_way:  # what a client asked of one that died is not answered
        task.cancel()
    await asyncio.gather(*under_way, return_exceptions=True)
    for task in under_way:
        if not task.cancelled() and task.exception() is not None:
            raise task.exception() or AssertionError
    await same(*replicas)
    for each in replicas:
        await each.close()


@pytest.mark.parametrize("seed", range(6))
async def test_any_life_of_three_gives_a_log_of_one_writer(tmp_path: Path, seed: int) -> None:
    engine, history = Engine(), _History()
    await _lived(engine, tmp_path, random.Random(seed), history)
    world = new_world({"uniform": policies.load("uniform")}, "uniform", 10)
    decided, rewarded = [], dict[str, float | None]()
    for record, _, _ in engine.records:
        event = ev.decode(record.body)
        if isinstance(event, ev.Decided):
            assert event.id not in world.pending.decisions
            assert event.seen <= world.events
            decided.append(event.id)
        elif isinstance(event, ev.Rewarded):
            assert not world.pending.decisions[event.decision_id].signals
            rewarded[event.decision_id] = event.quality
        world = apply(world, event)
    assert set(history.decided) <= set(decided)
    assert len(set(decided)) == len(decided)
    assert history.told.items() <= rewarded.items()
    assert len(set(history.accepted)) == len(history.accepted)
    assert len(rewarded) > 4
