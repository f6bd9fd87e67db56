"""LiteLLM's SDK, unmodified, as the client of the gateway, and its proxy in front and behind.

It brings boto3 and pins of its own, so it lives in an environment of its own, which `make test`
builds; BANDIT_TEST_LITELLM names the interpreter of another one.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import anthropic
import openai
import pytest

from loadtest.ports import free_port
from tests.service.dialects import ARMS, KEY, configured, speaking
from tests.service.provider import a_gateway, signals_of
from tests.service.running import Client, serving

BUILT = Path(__file__).parents[2] / ".venv" / "litellm" / "bin" / "python"
PYTHON = os.environ.get("BANDIT_TEST_LITELLM", str(BUILT))  # noqa: TID251 - the test's own switch
SCRIPT = """
import asyncio, json, os, sys
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # nothing is fetched from the net
import litellm
litellm.telemetry = False
url = sys.argv[1]
asked = {"model": "openai/auto", "api_base": url, "api_key": "none",
         "messages": [{"role": "user", "content": "Hello there"}]}
plain = litellm.completion(**asked)
words = [each.choices[0].delta.content or "" for each in litellm.completion(**asked, stream=True)]
tool = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
called = asyncio.run(litellm.acompletion(**asked, tools=[tool]))
try:
    litellm.completion(**(asked | {"model": "openai/nobody"}))
    error = ""
except litellm.NotFoundError as raised:
    error = type(raised).__name__
print(json.dumps({"id": plain.id, "plain": plain.choices[0].message.content,
                  "stream": "".join(words), "error": error,
                  "tool": called.choices[0].message.tool_calls[0].function.name}))
"""


@pytest.mark.skipif(
    shutil.which(PYTHON) is None,
    reason=f"LiteLLM is not installed: there is no {PYTHON}; `make test` installs it",
)
async def test_litellm_asks_streams_calls_tools_and_raises_its_own_exception(
    tmp_path: Path, models: Path
) -> None:
    async with a_gateway(tmp_path, models) as (client, _):
        process = await asyncio.create_subprocess_exec(
            PYTHON,
            "-c",
            SCRIPT,
            f"{client.url}/v1",
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await process.communicate()
        assert process.returncode == 0, err.decode()[-2000:]
        said = json.loads(out.decode().splitlines()[-1])
        assert said["plain"].startswith("I am ")
        assert said["stream"].startswith("I am ")
        assert (said["tool"], said["error"]) == ("weather", "NotFoundError")
        assert (await signals_of(client, said["id"]))["cost_usd"] > 0.0


PROXY = Path(PYTHON).parent / "litellm"  # which LiteLLM without its proxy has too
INSTALLED = PROXY.parents[1] / ".proxy"
MODELS = """
model_list:
  - model_name: auto
    litellm_params: {{model: openai/auto, api_base: {front}/v1, api_key: unused}}
  - model_name: auto-messages
    litellm_params: {{model: anthropic/auto, api_base: {front}, api_key: unused}}
  - model_name: chat-large
    litellm_params: {{model: openai/chat-large, api_base: {behind}/v1, api_key: {key}}}
  - model_name: claude-large
    litellm_params: {{model: anthropic/claude-large, api_base: {behind}, api_key: {key}}}
  - model_name: resp-large
    litellm_params: {{model: openai/resp-large, api_base: {behind}/v1, api_key: {key}}}
"""


@asynccontextmanager
async def _proxy(tmp_path: Path, port: int, front: str, behind: str) -> AsyncIterator[str]:
    """LiteLLM's proxy in front of the service, and behind it."""
    config, told = tmp_path / "litellm.yaml", tmp_path / "litellm.log"
    config.write_text(MODELS.format(front=front, behind=behind, key=KEY), encoding="utf-8")
    environ = {
        "PATH": os.environ["PATH"],  # noqa: TID251 - passed on
        "HOME": str(tmp_path),
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # nothing is fetched from the net
        "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true",
    }
    with told.open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *(str(PROXY), "--config", str(config), "--host", "127.0.0.1", "--port", str(port)),
            *("--telemetry", "False"),
            env=environ,
            stdout=log,
            stderr=log,
        )
    url = f"http://127.0.0.1:{port}"
    try:
        async with asyncio.timeout(300), aiohttp.ClientSession() as session:
            while not await _lives(session, url):
                assert process.returncode is None, told.read_text(encoding="utf-8")[-2000:]
                await asyncio.sleep(0.2)
        yield url
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def _lives(session: aiohttp.ClientSession, url: str) -> bool:
    try:
        async with session.get(f"{url}/health/liveliness") as answer:
            return answer.status == 200
    except aiohttp.ClientError:
        return False


@pytest.mark.skipif(
    not INSTALLED.exists(),
    reason=f"LiteLLM's proxy is not installed: there is no {INSTALLED}; `make clients` installs it",
)
async def test_litellms_proxy_in_front_and_behind(tmp_path: Path, models: Path) -> None:
    """The proxy takes long to start, so it is only run where `make clients` installed it."""
    port = free_port()
    async with (
        speaking() as (provider, origin),
        serving(
            tmp_path / "var", models, **configured(tmp_path, f"http://127.0.0.1:{port}/v1", ARMS)
        ) as client,
        _proxy(tmp_path, port, client.url, origin.removesuffix("/v1")) as url,
        openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="unused", max_retries=0) as chat,
        anthropic.AsyncAnthropic(base_url=url, api_key="unused", max_retries=0) as claude,
    ):
        for model in ("auto", "auto-messages"):
            await _by_chat(client, chat, model)
            await _by_others(chat, claude, model)
        with pytest.raises(openai.APIStatusError):
            await chat.images.generate(model="auto", prompt="a cat")
        await _by_chat(client, chat, "auto")  # it has not put the service into cooldown
        assert {body["model"] for _, body, _ in provider.seen} <= {f"{id}-large" for id in ARMS}


HELLO: Any = [{"role": "user", "content": "Hello there"}]
TOOL: Any = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}


async def _by_chat(client: Client, chat: openai.AsyncOpenAI, model: str) -> None:
    raw = await chat.chat.completions.with_raw_response.create(model=model, messages=HELLO)
    decision = raw.headers["llm_provider-x-decision-id"]
    assert str(raw.parse().choices[0].message.content).startswith("Hello from ")
    assert (await signals_of(client, decision))["cost_usd"] > 0.0
    stream = await chat.chat.completions.create(model=model, messages=HELLO, stream=True)
    said = [each.choices[0].delta.content or "" async for each in stream if each.choices]
    assert "".join(said).startswith("Hello from ")
    called = await chat.chat.completions.create(model=model, messages=HELLO, tools=[TOOL])
    assert len(called.choices[0].message.tool_calls or ()) == 2


async def _by_others(
    chat: openai.AsyncOpenAI, claude: anthropic.AsyncAnthropic, model: str
) -> None:
    response = await chat.responses.create(model=model, input="Hello there")
    assert response.output_text.startswith("Hello from ")
    message = await claude.messages.create(model=model, max_tokens=99, messages=HELLO)
    assert any(block.type == "text" for block in message.content)
    async with claude.messages.stream(model=model, max_tokens=99, messages=HELLO) as told:
        assert (await told.get_final_text()).startswith("Hello from ")
    counted = await claude.messages.count_tokens(model=model, messages=HELLO)
    assert counted.input_tokens > 0
