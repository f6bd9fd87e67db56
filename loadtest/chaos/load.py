"""Mixed traffic with a ledger of what was acknowledged and what was left in doubt."""

from __future__ import annotations

import asyncio
import random  # noqa: TID251 - traffic from a fixed seed
from dataclasses import dataclass, field
from typing import Any, Protocol

import aiohttp
import numpy as np

from loadtest.client import StreamClient, StreamError

DIM = 384
GONE = (aiohttp.ClientError, ConnectionError, asyncio.TimeoutError)


@dataclass
class Ledger:
    """What the service has said, by what was sent.

    decided: decisions answered. signals: decision id → the signals acknowledged for it. keys:
    idempotency keys of self-contained outcomes and comparisons acknowledged. doubt: what was sent
    and not answered, and so may or may not be there: (decision id, signals) and keys. costs: what
    the gateway told that a decision cost, None where the answer alone told it; embedded: how many
    costs it told without a decision.
    """

    decided: list[str] = field(default_factory=list)
    signals: dict[str, dict[str, float]] = field(default_factory=dict)
    corrected: set[str] = field(default_factory=set)
    keys: dict[str, dict[str, Any]] = field(default_factory=dict)
    doubt: dict[str, dict[str, float]] = field(default_factory=dict)
    doubtful_keys: dict[str, dict[str, Any]] = field(default_factory=dict)
    duplicates: int = 0
    resolved: int = 0
    costs: dict[str, float | None] = field(default_factory=dict)
    embedded: int = 0

    @property
    def acknowledged(self) -> int:
        """How many outcomes were acknowledged."""
        return sum(map(len, self.signals.values())) + len(self.keys)


class Wrong(AssertionError):
    """The service broke a promise."""


def vector(i: int) -> list[float]:
    """One of fifty unit vectors."""
    raw = np.random.default_rng(i % 50).normal(size=DIM)
    return [round(float(x), 6) for x in raw / np.linalg.norm(raw)]


VECTORS = [vector(i) for i in range(50)]


class Sender(Protocol):
    """A way to the service."""

    async def post(self, path: str, body: Any) -> tuple[int, Any]:
        """Status and body."""
        ...

    async def outcome(self, path: str, body: dict[str, Any]) -> str:
        """The status of one outcome: accepted or duplicate. Wrong for any other answer."""
        ...


class Client:
    """JSON over HTTP."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session, self._url = session, url

    async def post(self, path: str, body: Any) -> tuple[int, Any]:
        """Status and body."""
        async with self._session.post(self._url + path, json=body) as answer:
            return answer.status, await answer.json()

    async def call(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        """Status and body."""
        url = self._url + path
        async with self._session.request(method, url, json=body) as answer:
            return answer.status, await answer.json()

    async def get(self, path: str) -> tuple[int, Any]:
        """Status and body."""
        async with self._session.get(self._url + path) as answer:
            return answer.status, await answer.json()

    async def outcome(self, path: str, body: dict[str, Any]) -> str:
        """The status of one outcome: accepted or duplicate. Wrong for any other answer."""
        status, answer = await self.post(path, body)
        if status != 200:
            raise Wrong(f"{path} {sorted(body)} was answered {status}: {answer}")
        return str(answer["results"][0]["status"])


class OverStream:
    """The same over one stream."""

    def __init__(self, stream: StreamClient) -> None:
        self._stream = stream

    async def post(self, path: str, body: Any) -> tuple[int, Any]:
        """The answer as HTTP would give it; what is refused has status 0."""
        op = {"/v1/decide": "decide", "/v1/rewards": "reward", "/v1/comparisons": "compare"}[path]
        try:
            answer = await self._stream.request(op, **body)
        except StreamError as error:
            return 0, error.error
        return 200, answer

    async def outcome(self, path: str, body: dict[str, Any]) -> str:
        """As the client over HTTP does."""
        status, answer = await self.post(path, body)
        if status != 200:
            raise Wrong(f"{path} {sorted(body)} on a stream was refused: {answer}")
        return str(answer["status"])


async def worker(client: Sender, ledger: Ledger, rng: random.Random, name: str) -> None:
    """Send until the service is gone."""
    try:
        i = 0
        while True:
            i += 1
            await _one(client, ledger, rng, f"{name}-{i}")
    except GONE:
        return


async def _one(client: Sender, ledger: Ledger, rng: random.Random, key: str) -> None:
    chance = rng.random()
    if chance < 0.1:
        await keyed(
            client,
            ledger,
            key,
            {
                "path": "/v1/rewards",
                "embedding": rng.choice(VECTORS),
                "arm": "mistral-large-2512",
                "quality": rng.randrange(11) / 10,
                "idempotency_key": key,
            },
        )
        return
    if chance < 0.2:
        await keyed(
            client,
            ledger,
            key,
            {
                "path": "/v1/comparisons",
                "embedding": rng.choice(VECTORS),
                "winner": "gemini-2.5-pro",
                "loser": "mistral-large-2512",
                "idempotency_key": key,
            },
        )
        return
    status, decided = await client.post("/v1/decide", {"embedding": rng.choice(VECTORS)})
    if status != 200:
        raise Wrong(f"a decide was answered {status}: {decided}")
    id = decided["decision_id"]
    ledger.decided.append(id)
    if chance < 0.4:
        return  # rewarded later, or never
    signals = {"quality": rng.randrange(11) / 10, "cost_usd": 0.001, "latency_s": 1.5}
    if chance < 0.6:  # one by one
        for signal, value in signals.items():
            await told(client, ledger, id, {signal: value})
    else:
        await told(client, ledger, id, signals)
    if chance > 0.9 and await client.outcome("/v1/rewards", {"decision_id": id, **signals}):
        ledger.duplicates += 1


async def told(client: Sender, ledger: Ledger, id: str, signals: dict[str, float]) -> None:
    """Send signals of one decision; in doubt until they are acknowledged."""
    ledger.doubt[id] = signals
    status = await client.outcome("/v1/rewards", {"decision_id": id, **signals})
    if status != "accepted":
        raise Wrong(f"new signals were answered {status}")
    del ledger.doubt[id]
    ledger.signals.setdefault(id, {}).update(signals)


async def keyed(client: Sender, ledger: Ledger, key: str, body: dict[str, Any]) -> None:
    """Send a self-contained outcome under an idempotency key."""
    ledger.doubtful_keys[key] = body
    rest = {name: value for name, value in body.items() if name != "path"}
    await client.outcome(body["path"], rest)
    ledger.keys[key] = ledger.doubtful_keys.pop(key)


async def settle(client: Sender, ledger: Ledger, rng: random.Random) -> None:
    """After a restart: what was in doubt is sent again and must converge, old ones are known."""
    for id, signals in list(ledger.doubt.items()):
        await client.outcome("/v1/rewards", {"decision_id": id, **signals})
        ledger.signals.setdefault(id, {}).update(ledger.doubt.pop(id))
        ledger.resolved += 1
    for key in list(ledger.doubtful_keys):
        await keyed(client, ledger, key, ledger.doubtful_keys[key])
        ledger.resolved += 1
    waiting = [id for id in ledger.decided[-200:] if id not in ledger.signals]
    for id in rng.sample(waiting, min(3, len(waiting))):
        await told(client, ledger, id, {"quality": 0.5})
    known = list(ledger.signals)
    for id in rng.sample(known, min(3, len(known))):
        status = await client.outcome("/v1/rewards", {"decision_id": id, **ledger.signals[id]})
        if status != "duplicate":
            raise Wrong(f"an acknowledged reward was unknown: {id} was {status} again")
        ledger.duplicates += 1
