"""What the metrics cost: a decide with and without them, and a scrape of about 1,000 series."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np

import policies
from bandit_service import wire
from bandit_service.core import events as ev
from bandit_service.core.apply import apply
from bandit_service.core.experiments.spec import Experiment, Guardrail, Variant
from bandit_service.core.resolve import resolve
from bandit_service.core.world import World, new_world
from bandit_service.embedding import EmbeddingStage
from bandit_service.runtime.router import Router
from bandit_service.runtime.router_rules import RouterRules
from bandit_service.runtime.writer import Writer
from bandit_service.settings import Settings
from bandit_service.telemetry.telemetry import Telemetry
from policies import ArmId, Vector
from store.history import HybridIndex
from store.sqlite import SqliteLog

ROUNDS, EACH, SCRAPES = 20, 100, 20
ARMS, POLICIES, EXPERIMENTS = 50, 5, 5
_TICK_S = 0.001
Worlds = Callable[[str, int], tuple[World, HybridIndex]]


class _Nothing:
    """Stands where no metric is counted."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        return _nothing


def _nothing(*_: Any) -> None:
    pass


async def bench_metrics(directory: Path, worlds: Worlds, asked: Vector) -> list[dict[str, Any]]:
    """Two rows for each policy, then the scrape."""
    rows: list[dict[str, Any]] = []
    for policy, past in (("uniform", 1_000), ("metallm", 10_000)):
        both = {
            "no metrics (baseline)": cast(Telemetry, _Nothing()),
            "all metrics": Telemetry(lambda: 0, lambda: 0),
        }
        seconds = await _decides(directory, worlds, policy, past, both, asked)
        base = float(np.median(seconds["no metrics (baseline)"]))
        for what, found in seconds.items():
            p50, p99 = np.percentile(found, [50, 99])
            rows.append(
                {
                    "what": f"decide, {policy}, {past:,} past queries: {what}",
                    "p50 us": float(p50) * 1e6,
                    "p99 us": float(p99) * 1e6,
                    "x baseline": float(p50) / base,
                }
            )
    return rows + await _scrapes()


async def _decides(
    directory: Path,
    worlds: Worlds,
    policy: str,
    past: int,
    kinds: dict[str, Telemetry],
    asked: Vector,
) -> dict[str, list[float]]:
    """Seconds of every decide, both kinds in turn so that the machine's moods meet both."""
    routers, closing = {}, []
    for number, (what, telemetry) in enumerate(kinds.items()):
        world, index = worlds(policy, past)
        log = SqliteLog(directory / f"metrics-{policy}-{number}.sqlite3")
        writer = Writer(world, log, telemetry, sync_interval_s=0.5, max_backlog=1)
        writer.listen(telemetry.heard)
        embedder = EmbeddingStage(_NoModel(asked.shape[1]))
        rules = RouterRules.of(Settings())
        routers[what] = Router(
            writer=writer, index=index, embedder=embedder, telemetry=telemetry, rules=rules
        )
        await routers[what].start()
        closing.append((routers[what], embedder, index, log))
    taken: dict[str, list[float]] = {what: [] for what in kinds}
    requests = [wire.DecideRequest(embedding=ev.pack(row)) for row in asked[:EACH]]
    for turn in range(ROUNDS + 1):
        for what, router in routers.items():
            for request in requests:
                begun = time.perf_counter()
                await router.decide(request)
                if turn:  # the first one warms up
                    taken[what].append(time.perf_counter() - begun)
    for router, embedder, index, log in closing:
        await router.close()
        await embedder.close()
        index.close()
        log.close()
    return taken


async def _scrapes() -> list[dict[str, Any]]:
    """How long a scrape takes, and how long the loop comes late meanwhile."""
    telemetry, world = _counted()
    looks = []
    for _ in range(SCRAPES):
        begun = time.perf_counter()
        telemetry.learning.look(world)
        telemetry.experiments.look(world)
        looks.append(time.perf_counter() - begun)
    series = sum(1 for line in telemetry.render()[0].splitlines() if not line.startswith(b"#"))
    rows = []
    for what, scrape in (
        ("nothing (baseline)", lambda: asyncio.sleep(0.01)),
        ("a scrape, on a thread", lambda: asyncio.to_thread(telemetry.render)),
        ("a scrape, on the loop", lambda: _on_the_loop(telemetry)),
    ):
        late, taken = await _lateness(scrape)
        rows.append(
            {
                "what": what,
                "series": series,
                "ms": float(np.median(taken)) * 1e3,
                "loop late p50 ms": float(np.median(late)) * 1e3,
                "loop late at most ms": max(late) * 1e3,
            }
        )
    gauges = "setting the gauges by arm and experiment, on the loop before each scrape"
    return [*rows, {"what": gauges, "ms": float(np.median(looks)) * 1e3}]


async def _on_the_loop(telemetry: Telemetry) -> None:
    telemetry.render()


async def _lateness(scrape: Callable[[], Any]) -> tuple[list[float], list[float]]:
    """Of each scrape, by how much a timer of the loop was late at most; and its own seconds."""
    late, taken, worst = [], [], 0.0

    async def ticks() -> None:
        nonlocal worst
        while True:
            begun = time.perf_counter()
            await asyncio.sleep(_TICK_S)
            worst = max(worst, time.perf_counter() - begun - _TICK_S)

    ticking = asyncio.create_task(ticks())
    for _ in range(SCRAPES):
        await asyncio.sleep(5 * _TICK_S)
        worst, begun = 0.0, time.perf_counter()
        await scrape()
        taken.append(time.perf_counter() - begun)
        await asyncio.sleep(2 * _TICK_S)
        late.append(worst)
    ticking.cancel()
    return late, taken


def _counted() -> tuple[Telemetry, World]:
    """What a service of 50 arms, 5 policies and 5 experiments has counted."""
    telemetry = Telemetry(lambda: 0, lambda: 0)
    world = new_world({"uniform": policies.load("uniform")}, "uniform", 1)
    arms = tuple(ArmId(f"arm-{k}") for k in range(ARMS))
    for arm in arms:
        spec = ev.ArmSpec(id=arm, usd_per_mtok_in=1.0, usd_per_mtok_out=1.0)
        apply(world, ev.ArmAdded(ts=0.0, arm=spec, source="config"))
    zero = ev.pack(np.zeros(1, np.float32))
    for p in range(POLICIES):
        for k, arm in enumerate(arms):
            decided = ev.Decided(
                ts=1.0,
                id=f"{p}-{k}",
                embedding=zero,
                tokens=1,
                willingness_to_pay=0.1,
                arms=arms,
                propensities=(1.0 / ARMS,) * ARMS,
                scores=(0.0,) * ARMS,
                drawn=k,
                policy=f"policy-{p}",
                key="",
                list_cost_usd=0.1,
                expected_cost_usd=0.1,
                price=0.5,
            )
            rewarded = ev.Rewarded(
                ts=1.0, decision_id=decided.id, quality=0.5, cost_usd=0.1, reward=0.4
            )
            compared = ev.Compared(ts=1.0, winner=arm, loser=arms[k - 1], decision_id=decided.id)
            telemetry.decided([(decided, 0.001)])
            for event in (decided, rewarded, compared):
                telemetry.heard(resolve(world, event), apply(world, event))
            for outcome in ("accepted", "duplicate", "unknown", "expired", "conflict", "refused"):
                telemetry.rewarded(decided.policy, outcome, 1.0)
            telemetry.answered(arm, 1.0, 0.1, 100)
            for kind in ("timeout", "failed"):
                telemetry.upstream_failed(arm, kind)
    _experiments(telemetry, world)
    telemetry.learning.look(world)
    telemetry.experiments.look(world)
    return telemetry, world


def _experiments(telemetry: Telemetry, world: World) -> None:
    """Experiments of two variants, each with units enough to be judged."""
    zero = ev.pack(np.zeros(1, np.float32))
    for number in range(EXPERIMENTS):
        spec = Experiment(
            id=f"trial-{number}",
            min_units=10,
            variants=(Variant(key="today", weight=0.5), Variant(key="new", weight=0.5)),
            guardrails=(Guardrail(metric="quality", min=0.1),),
        )
        for status in ("draft", "running"):
            changed = ev.ExperimentChanged(ts=1.0, experiment=spec, status=status)
            telemetry.heard(resolve(world, changed), apply(world, changed))
        for unit in range(100):
            arm = ArmId("arm-0")
            decided = ev.Decided(
                ts=1.0,
                id=f"{spec.id}-{unit}",
                embedding=zero,
                tokens=1,
                willingness_to_pay=0.1,
                arms=(arm,),
                propensities=(1.0,),
                scores=(0.0,),
                drawn=0,
                policy="policy-0",
                key="",
                list_cost_usd=0.1,
                expected_cost_usd=0.1,
                price=0.5,
                experiment=spec.id,
                variant=("today", "new")[unit % 2],
                split=0.5,
                member=f"unit-{unit}",
            )
            rewarded = ev.Rewarded(
                ts=1.0, decision_id=decided.id, quality=unit % 3 / 2, reward=unit % 3 / 2
            )
            telemetry.decided([(decided, 0.001)])
            for event in (decided, rewarded):
                telemetry.heard(resolve(world, event), apply(world, event))


class _NoModel:
    """Stands where no text is embedded."""

    name = "none"

    def __init__(self, dim: int) -> None:
        self.dim = dim

    def encode(self, texts: Sequence[str]) -> Any:
        raise AssertionError(f"{len(texts)} texts were to be embedded")
