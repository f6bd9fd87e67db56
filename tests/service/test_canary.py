"""Prompts, keys, headers, units and embeddings are in no log, no metric and no error."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import aiohttp
import msgspec

from bandit_service import logs
from bandit_service.settings import keys
from tests.service.keyring import Keyring
from tests.service.running import DIM, Process, a_vector

PROMPT, UNIT, HEADER = "canary-prompt", "canary-unit", "canary-header"
NUMBER = 0.1234567890123
ARM = "gemini-2.5-pro"


def _embedding(length: int = DIM) -> list[float]:
    """Of no unit norm, so refused; but for its length if that is wrong too."""
    return [NUMBER] * length


def _bodies() -> list[tuple[str, str, Any]]:
    text = {"role": "user", "content": PROMPT}
    prompts: list[dict[str, Any]] = [
        {"query": PROMPT},
        {"query": PROMPT * 20_000},
        {"query": PROMPT, "embedding": a_vector(0)},
        {"query": [PROMPT]},
        {"query": PROMPT, "arms": ["none"]},
        {"query": PROMPT, "max_cost_usd": -1},
        {"query": PROMPT, "max_cost_usd": 1e-12},
        {"query": PROMPT + "\udc00".encode(errors="surrogatepass").decode(errors="replace")},
        {"messages": [text]},
        {"messages": [text | {"role": PROMPT}]},
        {"messages": [text | {"content": [PROMPT]}]},
        {"messages": [text | {"content": [{"type": PROMPT, "text": PROMPT}]}]},
        {"messages": [text | {"content": {"text": PROMPT}}]},
        {"messages": PROMPT},
        {"messages": [PROMPT]},
        {"embedding": PROMPT},
        {"embedding": [PROMPT]},
        {"embedding": _embedding()},
        {"embedding": _embedding(7)},
        {"embedding": {"x": PROMPT}},
        {"query": PROMPT, "unit": UNIT, "tenant": UNIT},
        {"query": PROMPT, "unit": UNIT * 300},
        {"query": PROMPT, "tenant": UNIT * 300},
        {"query": PROMPT, "unit": [UNIT]},
    ]
    found: list[tuple[str, str, Any]] = []
    for prompt in prompts:
        found.append(("POST", "/v1/decide", prompt))
        found.append(("POST", "/v1/explain", prompt))
        kept = {k: v for k, v in prompt.items() if k not in ("arms", "max_cost_usd")}
        alone = kept | {"idempotency_key": UNIT}
        found.append(("POST", "/v1/rewards", [alone | {"arm": ARM, "quality": 1}]))
        found.append(("POST", "/v1/rewards", alone | {"arm": ARM, "quality": 2}))
        found.append(("POST", "/v1/comparisons", alone | {"winner": ARM, "loser": ARM}))
        found.append(("POST", "/v1/rewards", kept | {"decision_id": "x", "quality": 1}))
        found.append(("POST", "/v1/chat/completions", {"model": "auto", **prompt}))
        found.append(("POST", "/v1/completions", {"model": "auto", "prompt": prompt}))
        found.append(("POST", "/v1/embeddings", {"model": ARM, "input": prompt}))
    found.append(("DELETE", f"/v1/units/{UNIT}?tenant={UNIT}", None))
    found.append(("DELETE", f"/v1/units/{UNIT * 300}", None))
    return found


async def test_a_name_that_is_no_arm_is_told_to_who_sent_it_and_to_nobody_else(
    tmp_path: Path, models: Path
) -> None:
    name = "canary-arm"
    process = Process(tmp_path / "var", models, BANDIT_LOG_LEVEL="debug")
    asked: list[tuple[str, str, dict[str, Any], str]] = [
        ("POST", "/v1/decide", {"query": "a", "arms": [name]}, "arms"),
        ("POST", "/v1/rewards", {"query": "a", "arm": name, "quality": 1}, "arm"),
        ("POST", "/v1/comparisons", {"query": "a", "winner": name, "loser": ARM}, "winner"),
        ("POST", "/v1/rewards", {"decision_id": name, "quality": 1}, "decision_id"),
        ("PUT", "/v1/policy", {"name": name}, "name"),
        ("DELETE", f"/v1/arms/{name}", {}, "id"),
    ]
    async with aiohttp.ClientSession() as session:
        url = await process.url()
        for method, path, body, param in asked:
            async with session.request(method, url + path, json=body) as response:
                error = (await response.json())["error"]
            assert error["param"] == param
            assert name in error["message"]
        async with session.get(f"{url}/metrics") as response:
            assert name not in await response.text()
    assert await asyncio.to_thread(process.stop) == 0
    assert name not in process.log_path.read_text()


async def test_canaries_are_nowhere_to_be_seen(tmp_path: Path, models: Path) -> None:
    ring = Keyring(app={"scopes": ["decide", "reward", "read", "admin"]}, of_a={"tenant": "a"})
    wrong, _ = keys.new_key()
    secrets = [ring["app"], ring["of_a"], wrong]
    environ = ring.environ | {"BANDIT_LOG_LEVEL": "debug"}
    process = Process(tmp_path / "var", models, **environ)
    shown: list[str] = []
    async with aiohttp.ClientSession() as session:
        url = await process.url()
        for secret in secrets:
            headers = {"Authorization": f"Bearer {secret}", "X-Other": HEADER, "Cookie": HEADER}
            for method, path, body in _bodies():
                raw = None if body is None else json.dumps(body).encode()
                async with session.request(
                    method, url + path, data=raw, headers=headers
                ) as response:
                    text = await response.text()
                    if response.status >= 400 or '"error"' in text:
                        shown.append(text)
            for name in ("X-Request-Timeout", "Content-Encoding", "Expect"):
                async with session.post(
                    f"{url}/v1/decide", data=b"{}", headers=headers | {name: HEADER}
                ) as response:
                    shown.append(await response.text())
            shown += await _stream(session, url, headers)
            async with session.get(f"{url}/metrics", headers=headers) as response:
                shown.append(await response.text())
    assert await asyncio.to_thread(process.stop) == 0
    assert len(shown) > 200
    logged = process.log_path.read_text().splitlines()
    allowed = {"ts", "level", "logger", "message", *logs.FIELDS}
    assert all(json.loads(line).keys() <= allowed for line in logged if line.startswith("{"))
    assert len([line for line in logged if line.startswith("{")]) > 200
    shown += logged
    for canary in (PROMPT, UNIT, HEADER, str(NUMBER), *secrets):
        assert not [text for text in shown if canary in text], canary


async def _stream(session: aiohttp.ClientSession, url: str, headers: dict[str, str]) -> list[str]:
    """The errors to the same bodies as frames, and to frames that are none."""
    try:
        socket = await session.ws_connect(
            f"{url}/v1/stream", headers=headers, protocols=("bandit.v1",)
        )
    except aiohttp.WSServerHandshakeError as error:
        return [str(error)]
    ops = {"/v1/decide": "decide", "/v1/rewards": "reward", "/v1/comparisons": "compare"}
    frames = [
        msgspec.msgpack.encode({"op": ops[path], "id": 1, **body})
        for _, path, body in _bodies()
        if path in ops and isinstance(body, dict)
    ]
    frames += [frames[0][:-3], PROMPT.encode(), msgspec.msgpack.encode(PROMPT)]
    answers = []
    async with socket:
        await socket.receive_bytes()
        for frame in frames:
            await socket.send_bytes(frame)
            answer = await socket.receive_bytes()
            if "error" in msgspec.msgpack.decode(answer):
                answers.append(answer.decode(errors="replace"))
        await socket.send_str(PROMPT)
        answers.append((await socket.receive_bytes()).decode(errors="replace"))
    return answers
