"""Every recipe of docs/clients.md, run as it stands there with the unmodified client.

Clients that bring much live in environments of their own, which `make test` builds, that of
LlamaIndex `make clients`; BANDIT_TEST_CLIENTS and BANDIT_TEST_LITELLM name other ones.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.service.dialects import Provider
from tests.service.test_litellm import PYTHON as LITELLM

ROOT = Path(__file__).parents[2]
CLIENTS = Path(os.environ.get("BANDIT_TEST_CLIENTS", ROOT / ".venv" / "clients"))  # noqa: TID251 - the test's own switch
RECIPES = re.findall(
    r"^## ([^\n]+)\n(?:(?!^## ).)*?^```(python|js)\n(.*?)^```",
    (ROOT / "docs" / "clients.md").read_text(encoding="utf-8"),
    re.DOTALL | re.MULTILINE,
)
SAYS = {
    "OpenAI, Python": ("Hello from", 3),
    "Anthropic, Python": ("Hello from", 2),
    "OpenAI's Agents SDK": ("Seen: rain in Oslo; rain in Rome", 1),
    "LangChain": ("'city': 'Rome'", 3),
    "LlamaIndex": ("'city': 'Rome'", 1),
    "LiteLLM": ("Hello from", 3),
    "OpenAI, Node": ("Hello from", 4),
    "Anthropic, TypeScript": ("Hello from", 2),
    "Vercel's AI SDK": ("Seen: rain in Oslo; rain in Rome", 3),
}
"""What each prints, and how often."""
HERE = ("OpenAI, Python", "Anthropic, Python")


def _command(name: str, language: str) -> list[str]:
    """What runs a recipe; skips where it is not installed."""
    if language == "js":
        if not (CLIENTS / "node_modules").is_dir() or shutil.which("node") is None:
            pytest.skip(f"there is no {CLIENTS}/node_modules; `make clients` installs it")
        return ["node", "--input-type=module", "-e"]
    python = str(CLIENTS / "bin" / "python")
    if name == "LiteLLM":
        python = LITELLM
    elif name == "LlamaIndex":  # which accepts no openai of version 3, as the Agents SDK wants it
        python = str(CLIENTS / "llamaindex" / "bin" / "python")
    if shutil.which(python) is None:
        pytest.skip(f"there is no {python}; `make clients` installs it")
    return [python, "-c"]


@pytest.mark.parametrize(("name", "language", "recipe"), RECIPES, ids=[each[0] for each in RECIPES])
def test_a_recipe(
    dialects: tuple[str, Provider],
    name: str,
    language: str,
    recipe: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    script = recipe.replace("http://127.0.0.1:8080", dialects[0])
    assert script != recipe
    says, times = SAYS[name]
    if name in HERE:  # importing these takes long, and they are imported already
        names: dict[str, Any] = {}
        exec(compile(script, name, "exec"), names)
        names["client"].close()
        told = capsys.readouterr().out
        assert told.count(says) >= times, told
        return
    command = _command(name, language)
    environ = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}  # noqa: TID251 - passed on
    environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # nothing is fetched from the net
    done = subprocess.run(
        [*command, script],
        env=environ,
        cwd=CLIENTS if language == "js" else ROOT,
        capture_output=True,
        encoding="utf-8",
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count(says) >= times, done.stdout + done.stderr[-3000:]


def test_every_recipe_is_run() -> None:
    assert [name for name, _, _ in RECIPES] == list(SAYS)
