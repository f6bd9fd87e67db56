"""Codex, unmodified and without a person, as a client of the gateway, by the recipe of the docs.

`make clients` installs it; BANDIT_TEST_CODEX names another one.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.service.dialects import Provider

ROOT = Path(__file__).parents[2]
BUILT = ROOT / ".venv" / "clients" / "node_modules" / ".bin" / "codex"
CODEX = os.environ.get("BANDIT_TEST_CODEX", str(BUILT))  # noqa: TID251 - the test's own switch
RECIPE = re.search(
    r"^### Codex\n.*?^```toml\n(.*?)^```",
    (ROOT / "docs" / "clients.md").read_text(encoding="utf-8"),
    re.DOTALL | re.MULTILINE,
)


@pytest.mark.skipif(
    shutil.which(CODEX) is None,
    reason=f"Codex is not installed: there is no {CODEX}; `make clients` installs it",
)
@pytest.mark.parametrize("arm", ["chat", "claude"])
def test_codex_calls_tools_and_reads_their_results(
    dialects: tuple[str, Provider], tmp_path: Path, arm: str
) -> None:
    url, provider = dialects
    assert RECIPE is not None
    recipe = RECIPE[1].replace("http://127.0.0.1:8080", url)
    assert recipe != RECIPE[1]
    home = tmp_path / "codex"
    home.mkdir()
    (home / "config.toml").write_text(recipe, encoding="utf-8")
    before = len(provider.seen)
    done = subprocess.run(
        [CODEX, "exec", "--skip-git-repo-check", "-m", f"auto?arms={arm}", "Look around."],
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), "CODEX_HOME": str(home)},  # noqa: TID251 - passed on
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.startswith("Seen: "), done.stdout + done.stderr[-3000:]
    asked = [body for _, body, _ in provider.seen[before:]]
    assert [body["model"] for body in asked] == [f"{arm}-large"] * 2
    named = {each.get("name") or each["function"]["name"] for each in asked[0]["tools"]}
    assert {"exec_command", "multi_agent_v1__spawn_agent"} <= named
