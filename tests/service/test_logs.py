"""What a real process writes to its stderr."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import aiohttp

from tests.service.running import Process, a_vector


async def _traffic(url: str) -> list[tuple[str, str]]:
    """A decision, its reward, its record, and rewards of both decisions in one call: by request id
    and decision id."""
    found: list[tuple[str, str]] = []
    async with aiohttp.ClientSession() as session:

        async def call(method: str, path: str, body: Any = None) -> dict[str, Any]:
            async with session.request(method, url + path, json=body) as response:
                assert response.status == 200
                answer: dict[str, Any] = await response.json()
                found.append((response.headers["x-request-id"], ""))
                return answer

        ids = []
        for i in range(2):
            ids.append(
                (await call("POST", "/v1/decide", {"embedding": a_vector(i)}))["decision_id"]
            )
            found[-1] = found[-1][0], ids[-1]
        await call("POST", "/v1/rewards", {"decision_id": ids[0], "quality": 1.0})
        found[-1] = found[-1][0], ids[0]
        await call("GET", f"/v1/decisions/{ids[0]}")
        found[-1] = found[-1][0], ids[0]
        await call("POST", "/v1/rewards", [{"decision_id": id, "cost_usd": 0.1} for id in ids])
        await call("GET", "/v1/arms")
    return found


async def test_every_line_is_json_and_those_of_a_request_name_it_and_its_decision(
    tmp_path: Path, models: Path
) -> None:
    process = Process(tmp_path / "var", models)
    wanted = await _traffic(await process.url())
    assert await asyncio.to_thread(process.stop) == 0
    lines = [json.loads(line) for line in process.log_path.read_text().splitlines()]
    requests = [line for line in lines if line["message"] == "request"]
    told = [(line["request_id"], line.get("decision_id", "")) for line in requests]
    assert told == wanted
    assert all(line["level"] == "info" and line["code"] == 200 for line in requests)
    assert {line["message"] for line in lines} >= {"recovered", "serving", "stopped"}
    assert not [line for line in lines if "request_id" in line and line not in requests]


async def test_on_the_console_a_line_is_for_people(tmp_path: Path, models: Path) -> None:
    process = Process(tmp_path / "var", models, BANDIT_LOG_FORMAT="console")
    wanted = await _traffic(await process.url())
    assert await asyncio.to_thread(process.stop) == 0
    lines = process.log_path.read_text().splitlines()
    for line in lines:
        assert re.match(r"\d\d:\d\d:\d\d\.\d{3} [A-Z]+ +bandit\.\w+ \w+", line), line
    (first, *_) = (line for line in lines if " request " in line)
    id, decision = wanted[0]
    assert f'request_id={id} decision_id={decision} endpoint="POST /v1/decide" code=200' in first
