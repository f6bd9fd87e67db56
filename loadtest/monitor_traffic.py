"""A service with everything that can be watched, and applications that use all of it."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np

from bandit_service.data.recordings import Recorded
from bandit_service.offline.simulate import order_of
from loadtest.client import StreamClient, StreamError

DOWN = "unreachable-model"
"""An arm whose provider is not there, so that failures and the circuit breaker can be seen."""

_USERS, _TALKS, _IN_FLIGHT = 300, 40, 32
_MAX_CHARS = 300  # longer ones take the model too long beside everything else that runs here
_BEGIN_S, _SNAPSHOT_S = 60.0, 60.0
_MAX_TOKENS = 1_000
"""Without it a request may cost what the longest answer does, and the budget refuses most."""


def config(recorded: Recorded, upstream: str, own: Path) -> str:
    """Recorded arms behind their upstream, the last also at one that is down, where an arm of its
    own is; a budget, a judge, duels, an
    experiment with a shadow, and a hold-out. own: the data directory.
    """
    cheapest = min(recorded.arms, key=lambda arm: arm.usd_per_mtok_out).id
    lines = [
        f"data_dir = {json.dumps(str(own.absolute()))}",
        'log_level = "error"',
        "[server]",
        "port = 0",
        "[gateway]",
        "sticky = true",
        "[duels]",
        "share = 0.5",
        'judge = "score"',
        "[experiment_rules]",
        "holdout_share = 0.05",
        f"holdout_arm = {json.dumps(cheapest)}",
        "[[judges]]",
        'id = "score"',
        'kind = "regex"',
        r"pattern = 'quality of (1|0\.[6-9])'",
        "[[budgets]]",
        'scope = "service"',
        'per = "hour"',
        "usd = 10.0",
        "[[experiments]]",
        'id = "router-trial"',
        "min_units = 20",
        "[[experiments.guardrails]]",
        'metric = "quality"',
        "least = 0.3",
        "[[experiments.variants]]",
        'key = "today"',
        "weight = 0.4",
        f"arm = {json.dumps(cheapest)}",
        "[[experiments.variants]]",
        'key = "linear"',
        "weight = 0.3",
        'policy = "metallm"',
        "[[experiments.variants]]",
        'key = "network"',
        "weight = 0.3",
        'policy = "forc"',
        "[[experiments.variants]]",
        'key = "shadow"',
        "shadow = true",
        'policy = "epsilon_greedy"',
        "[[routes]]",
        'id = "support"',
        "willingness_to_pay = 0.2",
        'policy = "metallm"',
        f"arms = {json.dumps([str(arm.id) for arm in recorded.arms])}",
        "[[metrics]]",
        'name = "graded"',
        "[[metrics]]",
        'name = "vote"',
        'kind = "boolean"',
        "[[upstreams]]",
        'id = "recorded"',
        f"base_url = {json.dumps(upstream)}",
        "[[upstreams]]",
        'id = "down"',
        f'base_url = "http://127.0.0.1:{_nobody_listens()}/v1"',
        "[[arms]]",
        f"id = {json.dumps(DOWN)}",
        'upstream = "down"',
        "usd_per_mtok_in = 0.1",
        "usd_per_mtok_out = 0.1",
    ]
    for arm in recorded.arms:
        lines += [
            "[[arms]]",
            f"id = {json.dumps(arm.id)}",
            f"usd_per_mtok_in = {arm.usd_per_mtok_in!r}",
            f"usd_per_mtok_out = {arm.usd_per_mtok_out!r}",
            f"context_window = {arm.context_window}",
            f"expected_output_tokens = {arm.expected_output_tokens}",
        ]
        places = ["down", "recorded"] if arm is recorded.arms[-1] else []
        for i, place in enumerate(places):
            lines += ["[[arms.deployments]]", f'upstream = "{place}"', f"priority = {i}"]
        lines += [] if places else ['upstream = "recorded"']
    return "\n".join(lines) + "\n"


async def traffic(url: str, recorded: Recorded, rate: float, seconds: float, least: int = 0) -> int:
    """Recorded queries at this rate, each with its recorded outcome; how many.

    least: queries that are sent also where that takes longer.
    """
    async with StreamClient(url) as stream, aiohttp.ClientSession() as session:
        users = _Users(url, recorded, stream, session)
        await users.experiment_runs()
        under_way: set[asyncio.Task[None]] = set()
        begun, sent = time.monotonic(), 0
        snapshot = begun + min(_SNAPSHOT_S, seconds / 2.0)
        while time.monotonic() < begun + seconds or sent < least:
            await asyncio.sleep(max(0.0, begun + sent / rate - time.monotonic()))
            if len(under_way) >= _IN_FLIGHT:
                done, under_way = await asyncio.wait(under_way, return_when=asyncio.FIRST_COMPLETED)
                await asyncio.gather(*done)
            under_way.add(asyncio.create_task(users.ask(sent)))
            sent += 1
            if time.monotonic() > snapshot:
                snapshot += _SNAPSHOT_S
                under_way.add(asyncio.create_task(users.keep()))
        await asyncio.gather(*under_way)
    return sent


class _Users:
    def __init__(
        self, url: str, recorded: Recorded, stream: StreamClient, session: aiohttp.ClientSession
    ) -> None:
        self._url, self._recorded, self._stream, self._session = url, recorded, stream, session
        self._rows = [
            row for row in order_of(recorded, 0).tolist() if len(recorded.texts[row]) <= _MAX_CHARS
        ]
        self._arms = [str(arm.id) for arm in recorded.arms]
        self._chance = np.random.default_rng(0)

    async def experiment_runs(self) -> None:
        """Wait until the variants' policies are folded, so that every unit meets them."""
        deadline = time.monotonic() + _BEGIN_S
        while time.monotonic() < deadline:
            async with self._session.get(f"{self._url}/v1/experiments") as answer:
                body = await answer.json()
            if all(one["status"] == "running" for one in body["experiments"]):
                return
            await asyncio.sleep(0.1)

    async def keep(self) -> None:
        """Have a snapshot made."""
        async with self._session.post(f"{self._url}/v1/snapshots") as answer:
            answer.raise_for_status()

    async def ask(self, i: int) -> None:
        """One query: most are decided and rewarded, every fifth goes through the gateway."""
        row = self._rows[i % len(self._rows)]
        if i % 5 == 0:
            await self._chat(row, i // 5)
        else:
            await self._decide(row, i)

    async def _decide(self, row: int, i: int) -> None:
        asked = {
            "query": self._recorded.texts[row],
            "arms": self._arms,
            "unit": f"user-{self._chance.integers(_USERS)}",
        }
        if i % 6 == 1:
            asked["route"] = "support"
        if i % 10 == 1:
            async with self._session.post(f"{self._url}/v1/decide", json=asked) as answer:
                answer.raise_for_status()
                decided = await answer.json()
        else:
            decided = await self._stream.request("decide", **asked)
        arm = self._arms.index(decided["arm"])
        quality, cost = self._recorded.quality[row], self._recorded.cost[row]
        report: dict[str, Any] = {
            "decision_id": decided["decision_id"],
            "cost_usd": float(cost[arm]),
        }
        if i % 3 == 1:
            report["metrics"] = {"graded": float(quality[arm])}
        else:
            report["quality"] = float(quality[arm])
        if i % 7 == 1:
            async with self._session.post(f"{self._url}/v1/rewards", json=report) as answer:
                answer.raise_for_status()
        else:
            await self._stream.request("reward", **report)
        if i % 4 == 1:
            other = (arm + 1 + int(self._chance.integers(len(self._arms) - 1))) % len(self._arms)
            gap = float(quality[arm] - quality[other])
            winner, loser = (arm, other) if gap >= 0.0 else (other, arm)
            await self._stream.request(
                "compare",
                winner=self._arms[winner],
                loser=self._arms[loser],
                tie=gap == 0.0,
                decision_id=decided["decision_id"],
            )
        if i % 20 == 1:  # networks repeat, and clients make mistakes
            await self._stream.request("reward", **report)
        if i % 50 == 1:
            await self._mistaken()

    async def _mistaken(self) -> None:
        try:
            await self._stream.request("reward", decision_id="never-was", quality=1.0)
        except StreamError as error:
            if error.error["code"] != "unknown":
                raise

    async def _chat(self, row: int, i: int) -> None:
        body: dict[str, Any] = {
            "model": "auto",
            "messages": [{"role": "user", "content": self._recorded.texts[row]}],
            "max_tokens": _MAX_TOKENS,
        }
        if i % 2:
            body |= {"stream": True, "stream_options": {"include_usage": True}}
        headers = {
            "x-unit": f"user-{self._chance.integers(_USERS)}",
            "x-conversation": f"talk-{i % _TALKS}",
        }
        async with self._session.post(
            f"{self._url}/v1/chat/completions", json=body, headers=headers
        ) as answer:
            await answer.read()  # an answer of 5xx is a thing to be watched too
            token = answer.headers.get("x-feedback-token", "")
        if token and i % 3 == 0:  # so that judges and people can be compared
            vote = {"vote": "up" if self._chance.random() < 0.7 else "down"}
            async with self._session.post(f"{self._url}/v1/feedback/{token}", json=vote) as told:
                await told.read()


def _nobody_listens() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])
