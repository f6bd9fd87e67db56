"""A client process of an experiment: users who ask twice, answers rewarded as they were recorded.

    python -m tests.service.experiment_client PLAN TALLY

It survives the service: what was not answered is asked again, wherever the service is by then.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import aiohttp

WORKERS = 4


class Asker:
    """One client. `tally` is every decision that was answered; `doubts` the asks that were not."""

    def __init__(self, plan: dict[str, Any], session: aiohttp.ClientSession) -> None:
        self._url = Path(plan["url"])
        self._rows = plan["rows"]
        self._worth = plan["worth"]
        self._session = session
        self.tally: list[dict[str, Any]] = []
        self.doubts: Counter[str] = Counter()

    async def visit(self, user: str, row: int) -> None:
        """Ask, and reward what was answered."""
        recorded = self._rows[row]
        asked = {"embedding": recorded["embedding"], "unit": user}
        decided = await self._post("/v1/decide", asked, user)
        arm = decided["arm"]
        quality, cost = recorded["quality"][arm], recorded["cost"][arm]
        await self._post(
            "/v1/rewards",
            {
                "decision_id": decided["decision_id"],
                "quality": quality,
                "cost_usd": cost,
            },
        )
        self.tally.append(
            {
                "id": decided["decision_id"],
                "unit": user,
                "arm": arm,
                "experiment": decided.get("experiment", ""),
                "variant": decided.get("variant", ""),
                "reward": min(1.0, max(-1.0, quality - cost / self._worth)),
            }
        )

    async def _post(self, path: str, body: dict[str, Any], doubt: str = "") -> dict[str, Any]:
        while True:
            try:
                url = self._url.read_text() + path
                async with self._session.post(url, json=body) as response:
                    answer: dict[str, Any] = await response.json()
                    if response.status == 200:
                        return answer
                    assert response.status in (429, 503), answer
            except (aiohttp.ClientError, OSError):
                if doubt:
                    self.doubts[doubt] += 1
            await asyncio.sleep(0.05)


async def main(plan: dict[str, Any]) -> dict[str, Any]:
    """Every user asks once, and then once more; what was answered, and what was not."""
    async with aiohttp.ClientSession() as session:
        asker = Asker(plan, session)
        visits, allowed = iter(enumerate(plan["visits"])), Path(plan["allowed"]).read_text

        async def work() -> None:
            for before, (user, row) in visits:
                while before >= int(allowed()):
                    await asyncio.sleep(0.02)
                await asker.visit(user, row)

        await asyncio.gather(*(work() for _ in range(WORKERS)))
    return {"tally": asker.tally, "doubts": asker.doubts}


if __name__ == "__main__":
    made = asyncio.run(main(json.loads(Path(sys.argv[1]).read_text())))
    Path(sys.argv[2]).write_text(json.dumps(made))
