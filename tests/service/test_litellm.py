"""LiteLLM's SDK, unmodified, as the client of the gateway.

It brings boto3 and pins of its own, so it lives in an environment of its own, which `make test`
builds; BANDIT_TEST_LITELLM names the interpreter of another one.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from pathlib import Path

import pytest

from tests.service.provider import a_gateway, signals_of

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
