"""`bandit-service mcp`, asked over stdio by the client of the package `mcp`."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.service.keyring import Keyring
from tests.service.running import Client, serving
from tests.tools import needed

needed("mcp")

from mcp import Client as Assistant  # noqa: E402 - after the look whether it is there
from mcp.client.stdio import StdioServerParameters, stdio_client  # noqa: E402

ROOT = Path(__file__).parents[2]
PROMPT = "My landlord is called Zebulon; may he raise the rent?"
TRIAL = {
    "variants": [
        {"key": "today", "arm": "gemini-2.5-pro", "weight": 0.5},
        {"key": "router", "policy": "metallm", "weight": 0.5},
    ],
    "primary": "reward",
}


@asynccontextmanager
async def _assistant(url: str, log: Path, key: str = "") -> AsyncIterator[Assistant]:
    """Connected to the command, whose stderr goes to the file."""
    environ = {"BANDIT_URL": url, "BANDIT_KEY": key, "PYTHONPATH": str(ROOT)}
    command = StdioServerParameters(
        command=sys.executable, args=["-m", "bandit_service.cli", "mcp"], env=environ
    )
    with log.open("w") as errors:
        async with asyncio.timeout(120), Assistant(stdio_client(command, errors)) as assistant:
            yield assistant


async def _said(assistant: Assistant, tool: str, fails: bool = False, **given: Any) -> str:
    answer = await assistant.call_tool(tool, given)
    text = "".join(getattr(each, "text", "") for each in answer.content)
    assert answer.is_error == fails, text
    return text


async def _taught(client: Client, n: int = 4) -> list[dict[str, Any]]:
    made = []
    for i in range(n):
        made.append(await client.decide(query=f"{PROMPT} {i}", tags=["rent"], unit="anna"))
        await client.reward(made[-1]["decision_id"], quality=0.75, cost_usd=0.002)
    return made


@asynccontextmanager
async def _both(
    tmp_path: Path, models: Path
) -> AsyncIterator[tuple[Client, Assistant, Keyring, Path]]:
    """The service, and an assistant that may read; no fixture, as it has to end in its own task."""
    ring = Keyring(
        app={}, mcp={"scopes": ["read"]}, boss={"scopes": ["admin", "read", "decide", "reward"]}
    )
    async with (
        serving(tmp_path / "var", models, **ring.environ) as client,
        _assistant(client.url, tmp_path / "stderr", ring["mcp"]) as assistant,
    ):
        yield client, assistant, ring, tmp_path / "stderr"


async def test_every_tool_only_reads_and_all_are_listed_on_the_page(
    tmp_path: Path, models: Path
) -> None:
    async with _both(tmp_path, models) as (_, assistant, _, _):
        tools = (await assistant.list_tools()).tools
    page = (ROOT / "docs" / "mcp.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)) == {each.name for each in tools}
    for each in tools:
        assert each.annotations is not None
        assert each.annotations.read_only_hint is True
        assert each.description


async def test_why_it_went_there_and_what_it_saved(tmp_path: Path, models: Path) -> None:
    async with _both(tmp_path, models) as (client, assistant, ring, log):
        app, boss = client.by(ring["app"]), client.by(ring["boss"])
        made = await _taught(app)
        events = (await boss.get("/readyz"))[1]["events"]
        one = made[0]
        why = await _said(assistant, "why", decision_id=one["decision_id"])
        listed = await _said(assistant, "recent_decisions", tag="rent", limit=2)
        saved = await _said(assistant, "savings", hours=1)
        _, page = await app.get("/v1/decisions")
        assert (await boss.get("/readyz"))[1]["events"] == events, "a tool wrote"
    assert f"went to {one['arm']}: drawn among several arms." in why
    assert f"probability of {one['propensity']:.1%}" in why
    assert "What came back: quality 0.75, cost_usd 0.002." in why
    assert "The same query now, by nested:" in why
    assert "had no outcome yet" in why
    assert [line.split()[0] for line in listed.splitlines()] == [
        each["decision_id"] for each in made[:1:-1]
    ]
    would = sum(row["baseline_usd"] for row in page["decisions"])
    assert "4 decisions in the last 1 h." in saved
    assert f"4 of them have a reported cost: {4 * 0.002:.6f} USD." in saved
    assert f"gemini-2.5-pro was to be expected to cost {would:.6f} USD" in saved
    assert f"so {would - 0.008:.6f} USD were saved" in saved
    everything = why + listed + saved + log.read_text()
    for secret in (ring["app"], ring["mcp"], ring["boss"], "Zebulon", "anna"):
        assert secret not in everything


async def test_how_arms_policies_and_experiments_stand(tmp_path: Path, models: Path) -> None:
    async with _both(tmp_path, models) as (client, assistant, ring, _):
        assert await _said(assistant, "experiments") == "There is no experiment."
        boss = client.by(ring["boss"])
        assert (await boss.call("PUT", "/v1/experiments/trial", TRIAL))[0] in (200, 201)
        await boss.begin("trial")
        arms = await _said(assistant, "arms")
        policies = await _said(assistant, "policies")
        experiments = await _said(assistant, "experiments")
        results = await _said(assistant, "experiment_results", id="trial")
        health = await _said(assistant, "health")
    assert "- gemini-2.5-pro: offered; 1.25 USD per million tokens in; 10 out" in arms
    assert policies.startswith("nested decides, with explore = thompson")
    assert "trial" in experiments
    assert "Not enough data" in results
    assert re.match(r"The service is ready: \d+ events, 3 arms offered\.\n", health)
    assert "No drift alarm." in health
    assert "There is no budget." in health


WRONG: list[tuple[str, dict[str, Any], str]] = [
    ("why", {"decision_id": "no such"}, "no such"),
    ("why", {}, "decision_id"),
    ("why", {"decision_id": "a" * 200}, "at most 128 characters"),
    ("savings", {"hours": -1}, "greater than 0"),
    ("recent_decisions", {"limit": 1000}, "less than or equal to 100"),
    ("recent_decisions", {"tag": "a b"}, "1 to 64 characters of A-Z"),
    (
        "recent_decisions",
        {"tagg": "a"},
        "no argument 'tagg'; did you mean tag?; expected one of limit,",
    ),
    ("health", {"verbose": True}, "health: no argument 'verbose'; it has none"),
    ("experiment_results", {"id": "../arms"}, "../arms"),
    ("delete_everything", {}, "delete_everything"),
]


async def test_a_wrong_question_is_told_what_is_allowed(tmp_path: Path, models: Path) -> None:
    async with _both(tmp_path, models) as (client, assistant, _, log):
        for tool, given, says in WRONG:
            assert says in await _said(assistant, tool, fails=True, **given), tool
        async with _assistant(client.url, log.with_name("other"), "bs_wrong") as stranger:
            said = await _said(stranger, "arms", fails=True)
            assert "key" in said
            assert "bs_wrong" not in said + log.with_name("other").read_text()


async def test_a_service_that_is_away_is_said_to_be(tmp_path: Path) -> None:
    async with _assistant("http://127.0.0.1:9", tmp_path / "stderr") as assistant:
        said = await _said(assistant, "arms", fails=True)
        assert "http://127.0.0.1:9 cannot be reached" in said
        assert "cannot be reached" in await _said(assistant, "health")


@pytest.mark.parametrize(
    ("url", "key", "says"),
    [
        ("localhost:8080", "", "--url: must be like http://HOST:PORT"),
        ("http://me:pässwörd@host", "", "--url: must be like http://HOST:PORT"),
        ("http://127.0.0.1:8080", "bs_\nX-Other: 1", "--key: must be printable ASCII"),
        ("http://127.0.0.1:8080", "@no.key", "--key: no.key: No such file or directory"),
    ],
)
def test_a_wrong_address_or_key_ends_it_without_being_repeated(
    url: str, key: str, says: str
) -> None:
    command = [sys.executable, "-m", "bandit_service.cli", "mcp", "--url", url, "--key", key]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"bandit-service: {says}\n"


def test_without_the_package_it_says_what_to_install() -> None:
    code = (
        "import importlib.util as u, sys; found = u.find_spec\n"
        "u.find_spec = lambda name, *a: None if name == 'mcp' else found(name, *a)\n"
        "from bandit_service.cli.main import main; sys.exit(main(['mcp']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=60
    )
    assert done.returncode == 2
    assert re.search(r"^bandit-service: mcp needs a package: pip install .*mcp", done.stderr)
