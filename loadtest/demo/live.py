"""The three acts through a running service, whose page shows them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol
from urllib.parse import quote

import aiohttp
import msgspec
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from bandit_service.core import events as ev
from bandit_service.core.outcomes import RewardRule
from bandit_service.data.log_source import ServiceSource
from bandit_service.offline.baselines import baselines
from bandit_service.offline.simulate import Phase, order_of
from loadtest.client import StreamClient
from loadtest.demo.acts import ACTS, Stage, dearer, most_used, phases_of
from policies import Floats, Vector


@dataclass(frozen=True, slots=True)
class Asked:
    """One answer: which arm, and the bill where the service itself knows it."""

    id: str
    arm: str
    cost: float | None = None


class Side(Protocol):
    """How an application talks to the service."""

    async def ask(self, text: str, arms: list[str] | None) -> Asked:
        """One query; `arms` are the only ones that have a recorded answer, None for all."""
        ...

    async def reward(self, asked: Asked, signals: dict[str, float]) -> None:
        """What the answer was worth."""
        ...

    async def put_arm(self, arm: ev.ArmSpec) -> None:
        """Add an arm, or say its new price."""
        ...


@dataclass(frozen=True, slots=True)
class Live:
    """One served run, step by step, and the arms that changed in it."""

    order: NDArray[np.int64]
    drawn: NDArray[np.int64]
    ids: tuple[str, ...]
    reward: Floats
    cost: Floats
    phases: tuple[Phase, ...]
    dear: int
    worse: int


class Telling(Protocol):
    """What is said before and after each act."""

    def before(self, stage: Stage, act: int, dear: int, worse: int) -> str:
        """What changes now."""
        ...

    def after(
        self,
        stage: Stage,
        act: int,
        earned: Floats,
        phase: Phase,
        order: NDArray[np.int64],
        drawn: NDArray[np.int64],
        rule: RewardRule,
    ) -> str:
        """What it came to."""
        ...


async def perform(stage: Stage, side: Side, rule: RewardRule, telling: Telling) -> Live:
    """Every query asked and rewarded, one after the other, so that each reward is known next."""
    n, order = len(stage.recorded), order_of(stage.recorded, 0)
    column = {str(arm.id): k for k, arm in enumerate(stage.recorded.arms)}
    drawn, ids = np.zeros(n, np.int64), list[str]()
    reward, cost = np.zeros(n), np.zeros(n)
    dear = worse = -1
    phases = phases_of(stage, None, None)
    with tqdm(total=n, unit=" queries", disable=None, dynamic_ncols=True) as bar:
        for act, (start, end) in enumerate(zip(stage.starts, stage.ends(), strict=True)):
            if act == 1:
                dear = most_used(stage, 0, drawn[:start])
                await side.put_arm(dearer(stage, dear))
                phases = phases_of(stage, dear, None)
            if act == ACTS - 1:
                worse = most_used(stage, 1, drawn[stage.starts[1] : start])
                if stage.newcomer is not None:
                    await side.put_arm(stage.recorded.arms[stage.newcomer])
                phases = phases_of(stage, dear, worse)
            bar.write(telling.before(stage, act, dear, worse))
            bar.set_description(f"act {act + 1} of {ACTS}", refresh=False)
            world, beside = phases[act].recorded, _Beside(phases[act], order[start:end], rule)
            for step in range(start, end):
                row = int(order[step])
                answered = ~np.isnan(world.quality[row])
                there = [k for k in stage.there(act) if answered[k]]
                some = len(there) < len(stage.there(act))
                only = [str(world.arms[k].id) for k in there] if some else None
                asked = await side.ask(world.texts[row], only)
                k = column[asked.arm]
                bill = float(world.cost[row, k]) if asked.cost is None else asked.cost
                signals = {"quality": float(world.quality[row, k])}
                waited = None if world.latency is None else float(world.latency[row, k])
                if asked.cost is None:
                    signals["cost_usd"] = bill
                    if waited is not None and not np.isnan(waited):
                        signals["latency_s"] = waited
                await side.reward(asked, signals)
                drawn[step], cost[step] = k, bill
                reward[step] = rule.scalar(
                    signals["quality"], bill, signals.get("latency_s", 0.0), rule.willingness_to_pay
                )
                ids.append(asked.id)
                bar.set_postfix_str(beside.text(reward[start : step + 1]), refresh=False)
                bar.update()
            bar.write(
                telling.after(
                    stage,
                    act,
                    reward[start:end],
                    phases[act],
                    order[start:end],
                    drawn[start:end],
                    rule,
                )
            )
    return Live(order, drawn, tuple(ids), reward, cost, phases, dear, worse)


class _Beside:
    """What chance and the best single arm of the act would have earned on the same queries."""

    def __init__(self, phase: Phase, rows: NDArray[np.int64], rule: RewardRule) -> None:
        beside = baselines(phase.recorded, rule).take(rows)
        self._chance = np.cumsum(beside.uniform.reward)
        self._best = np.cumsum(beside.best.reward)

    def text(self, earned: Floats) -> str:
        n = len(earned)
        return (
            f"mean reward: router {earned.mean():.3f}, best single model "
            f"{self._best[n - 1] / n:.3f}, a random one {self._chance[n - 1] / n:.3f}"
        )


class StreamSide:
    """Decides and rewards over the service's WebSocket."""

    def __init__(self, url: str) -> None:
        self._url, self._client = url, StreamClient(url)

    async def __aenter__(self) -> StreamSide:
        self._session = aiohttp.ClientSession()
        await self._client.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._client.__aexit__(kind, error, traceback)
        await self._session.close()

    async def ask(self, text: str, arms: list[str] | None) -> Asked:
        """A decision."""
        fields: dict[str, Any] = {"query": text} | ({} if arms is None else {"arms": arms})
        decided = await self._client.request("decide", **fields)
        return Asked(decided["decision_id"], decided["arm"])

    async def reward(self, asked: Asked, signals: dict[str, float]) -> None:
        """A reward."""
        await self._client.request("reward", decision_id=asked.id, **signals)

    async def put_arm(self, arm: ev.ArmSpec) -> None:
        """Over HTTP, while the stream is open."""
        await put_arm(self._session, self._url, arm)


async def put_arm(session: aiohttp.ClientSession, url: str, arm: ev.ArmSpec) -> None:
    """PUT /v1/arms/{id}."""
    path = f"{url}/v1/arms/{quote(arm.id, safe='')}"
    async with session.put(path, json=msgspec.to_builtins(arm)) as put:
        put.raise_for_status()


def embeddings_of(url: str, live: Live) -> Vector:
    """(n, d) by row of the recording, as the service embedded each query: they are in its log."""
    vectors = {id: ev.unpack(found) for id, found in _decided(url)}
    served = np.array([vectors[id] for id in live.ids], np.float32)
    rows = np.empty_like(served)
    rows[live.order] = served
    return rows


def _decided(url: str) -> Iterator[tuple[str, bytes]]:
    for _, event in ServiceSource(url).events(0):
        if isinstance(event, ev.Decided):
            yield event.id, event.embedding
