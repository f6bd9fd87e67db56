"""LiteLLM's SDK, unmodified, as the client of the gateway.

It brings boto3 and pins of its own, so it lives in an environment of its own:
`python -m venv lite && lite/bin/pip install litellm`, then BANDIT_TEST_LITELLM=lite/bin/python.
"""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path

import pytest

from tests.service.provider import a_gateway, signals_of

SCRIPT = """
import asyncio, json, sys
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


async def test_litellm_asks_streams_calls_tools_and_raises_its_own_exception(
    tmp_path: Path, models: Path
) -> None:
    python = os.environ.get("BANDIT_TEST_LITELLM")  # noqa: TID251 - the test's own switch
    if not python:
        pytest.skip("BANDIT_TEST_LITELLM names no interpreter that has litellm")
    async with a_gateway(tmp_path, models) as (client, _):
        process = await asyncio.create_subprocess_exec(
            python, "-c", SCRIPT, f"{client.url}/v1",
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        out, err = await process.communicate()
        assert process.returncode == 0, err.decode()[-2000:]
        said = json.loads(out.decode().splitlines()[-1])
        assert said["plain"].startswith("I am ")
        assert said["stream"].startswith("I am ")
        assert (said["tool"], said["error"]) == ("weather", "NotFoundError")
        assert (await signals_of(client, said["id"]))["cost_usd"] > 0.0
