"""What serves is light: it loads nothing that only studies need."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import aiohttp

from tests.service.running import Client, Process, a_vector

STUDY = {
    "bandit_service.lab", "loadtest", "matplotlib", "mcp", "onnx", "pandas", "pyarrow",
    "scipy.linalg", "scipy.optimize", "scipy.sparse", "scipy.special", "scipy.stats", "sklearn",
    "torch", "transformers", "sentence_transformers",
}  # fmt: skip
"""river.utils names scipy itself, whose parts are loaded only when they are asked for."""


async def test_serving_loads_nothing_of_the_study(tmp_path: Path, models: Path) -> None:
    """Through a start, a text, a reward, metrics, the page, a snapshot and a stop."""
    process = Process(tmp_path / "var", models, PYTHONPROFILEIMPORTTIME="1")
    async with aiohttp.ClientSession() as session:
        client = Client(session, await process.url())
        _, made = await client.post("/v1/decide", {"query": "How are you?", "explain": True})
        await client.reward(made["decision_id"], quality=1.0, cost_usd=0.001)
        await client.decide(embedding=a_vector(1))
        assert (await client.post("/v1/snapshots", {}))[0] == 200
        for path in ("/", "/metrics", "/v1/arms", "/v1/drift", "/openapi.json"):
            async with session.get(client.url + path) as answer:
                assert answer.status == 200
    assert await asyncio.to_thread(process.stop) == 0
    told = process.log_path.read_text(encoding="utf-8")
    loaded = set(re.findall(r"^import time:.*\|\s+(\S+)$", told, re.MULTILINE))
    assert {"numpy", "onnxruntime", "bandit_service.core.world"} <= loaded
    assert {name for name in loaded if any(f"{name}.".startswith(f"{s}.") for s in STUDY)} == set()
