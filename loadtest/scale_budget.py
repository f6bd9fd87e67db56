"""A budget in the traffic of `loadtest.scale`: a provider that bills each answer, and who asks it.

All replicas have one limit. What is booked may never exceed it, whoever is killed while it holds a
part of it.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

_PROMPT, _ANSWER = 1000, 100
COST_USD = (_PROMPT * 1.0 + _ANSWER * 4.0) / 1e6
_ARMS = [
    {"id": id, "usd_per_mtok_in": usd, "usd_per_mtok_out": 4 * usd}
    for id, usd in (("small", 0.1), ("middle", 0.5), ("large", 2.0))
]


@dataclass
class Provider:
    """calls: how many it answered, each for `COST_USD`. told: what clients of the budget got."""

    url: str = ""
    calls: int = 0
    told: Counter[int] = field(default_factory=Counter)

    async def answer(self, request: web.Request) -> web.Response:
        """One answer, with its bill."""
        await request.read()
        self.calls += 1
        usage = {"prompt_tokens": _PROMPT, "completion_tokens": _ANSWER}
        message = {"role": "assistant", "content": "Yes."}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        return web.json_response({"model": "paid", "choices": [choice], "usage": usage})

    def settings(self, calls: int) -> dict[str, str]:
        """The environment of a replica whose budget is for so many calls."""
        paid = {
            "id": "paid",
            "usd_per_mtok_in": 1.0,
            "usd_per_mtok_out": 4.0,
            "upstream": "p",
            "routed": False,
        }
        limit = {"scope": "service", "per": "month", "usd": calls * COST_USD, "pace": False}
        return {
            "BANDIT_ARMS": json.dumps([*_ARMS, paid]),
            "BANDIT_UPSTREAMS": json.dumps([{"id": "p", "base_url": self.url}]),
            "BANDIT_BUDGETS": json.dumps([limit]),
        }


BODY: dict[str, Any] = {
    "model": "paid",
    "messages": [{"role": "user", "content": "Is it so?"}],
    "max_tokens": 400,
}


@asynccontextmanager
async def a_provider() -> AsyncIterator[Provider]:
    """On a free port of loopback."""
    provider = Provider()
    app = web.Application()
    app.router.add_post("/v1/chat/completions", provider.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    provider.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    try:
        yield provider
    finally:
        await runner.cleanup()
