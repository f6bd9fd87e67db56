"""Docs that are not executed are rumours: README, CONTRIBUTING and the API page, run."""

from __future__ import annotations

import ast
import asyncio
import contextlib
import importlib
import json
import re
import sys
import tomllib
from pathlib import Path

import pytest

import policies
from bandit_service.cli.commands import serve
from bandit_service.core.world import new_world
from bandit_service.http.routes import ROUTES
from bandit_service.settings import Settings
from bandit_service.testing import laws
from tests.service.running import serving

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])


def _fences(path: Path, language: str) -> list[str]:
    text = path.read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


async def _run(*command: str) -> str:
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    return out.decode()


async def test_the_five_examples_of_the_readme(tmp_path: Path, models: Path) -> None:
    examples = _fences(ROOT / "README.md", "bash")
    assert len(examples) == 5
    expected = [
        '"arm":',
        '"status":"accepted"',
        '"status":"accepted"',
        '"neighbours"',
        '"retired":true',
    ]
    async with serving(tmp_path / "var", models) as client:
        for example, part in zip(examples, expected, strict=True):
            script = example.replace("http://127.0.0.1:8080", client.url)
            assert script != example
            out = await _run("bash", "-euo", "pipefail", "-c", script)
            assert part in out, (example, out)
            assert '"error"' not in out


async def test_the_stream_example_of_the_api_page(tmp_path: Path, models: Path) -> None:
    (example,) = _fences(ROOT / "docs" / "api.md", "python")
    async with serving(tmp_path / "var", models) as client:
        out = await _run(sys.executable, "-c", example.replace("http://127.0.0.1:8080", client.url))
    assert "'credits': 256" in out
    assert {line.split()[0] for line in out.splitlines()[1:]} == {"0", "1"}


async def test_the_example_of_the_page_on_rewards(tmp_path: Path, models: Path) -> None:
    path = ROOT / "docs" / "rewards.md"
    (tables, _), (example,) = _fences(path, "toml"), _fences(path, "python")
    metrics = json.dumps(tomllib.loads(tables)["metrics"])
    async with serving(tmp_path / "var", models, BANDIT_METRICS=metrics) as client:
        out = await _run(sys.executable, "-c", example.replace("http://127.0.0.1:8080", client.url))
    first, said, *both = out.splitlines()
    assert "'quality': 0.9375" in first
    assert "status='accepted', credited=2" in said
    assert ["'quality': 0.95" in both[0], "'quality': 1.0" in both[1]] == [True, True]


def test_the_policy_of_contributing_loads_and_keeps_every_law(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, suites = _fences(ROOT / "CONTRIBUTING.md", "python")
    compile(suites, "suites", "exec")  # tests/packaging/test_own.py runs its like
    (tmp_path / "thrifty.py").write_text(source, encoding="utf-8")
    monkeypatch.setattr(policies, "__path__", [*policies.__path__, str(tmp_path)])
    try:
        assert "thrifty" in policies.names()
        policy = policies.load("thrifty", enough=0.5)
        for law in laws.all_laws().values():
            with contextlib.suppress(laws.NotApplicable):
                law(lambda: policy)
    finally:
        sys.modules.pop("policies.thrifty", None)
        importlib.invalidate_caches()


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_between_documents_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", path.read_text(encoding="utf-8")):
        if not re.match(r"https?:|reference/", target):  # those `make docs` makes of the code
            assert (path.parent / target).exists(), f"{path.name} links to {target}"


def test_the_index_of_the_readme_names_every_page() -> None:
    index = (ROOT / "README.md").read_text(encoding="utf-8").partition("\n## Documentation\n")[2]
    pages = {page.name for page in (ROOT / "docs").glob("*.md")} - {"index.md"}
    assert pages == set(re.findall(r"\(docs/([a-z-]+\.md)\)", index))


def test_every_make_target_is_explained_and_the_readme_names_real_ones() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    phony = re.search(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)
    assert phony is not None
    explained = set(re.findall(r"^([a-z-]+):.*## ", makefile, re.MULTILINE))
    assert set(phony.group(1).split()) == explained
    for path in DOCUMENTS:
        for target in re.findall(r"`make ([a-z-]+)", path.read_text(encoding="utf-8")):
            assert target in explained, f"{path.name} names make {target}"


def test_a_newcomer_is_told_where_the_commands_are_and_how_long_the_first_ones_take() -> None:
    """`.venv/bin` was named nowhere, and `make run` and `make demo` were silent for minutes."""
    readme = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    quickstart = readme[readme.index("## Quickstart") : readme.index("## Evaluate, tune, teach")]
    assert "The commands are in `.venv/bin`" in quickstart
    assert re.search(r"first `make run` [^.]* takes a few minutes", quickstart)
    assert re.search(r"make demo # [^#]*about two minutes", quickstart)
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert 'echo "setting up $(VENV) (a few minutes the first time)"' in makefile
    world = new_world({"uniform": policies.load("uniform")}, "uniform", 1)
    said = re.search(r"command  (\S+)", serve.hints("http://127.0.0.1:8080", Settings(), world))
    assert said is not None
    assert said[1] == str(Path(sys.executable).parent / "bandit-service")


def test_the_api_page_lists_every_path_and_no_other() -> None:
    text = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    table = text[text.index("| path |") : text.index("## Decide")]
    cells = " ".join(re.findall(r"^\|(.*?)\|", table, re.MULTILINE)[2:])
    named = {said.split(" ")[-1] for said in re.findall(r"`([^`]+)`", cells) if "/" in said}
    paths = {row.path for row in ROUTES if not row.unlisted}
    # `/pause` after `/v1/experiments/{id}/start` is short for the whole
    short = {path: "/" + path.rpartition("/")[2] for path in paths}
    assert {path for path in paths if not {path, short[path]} & named} == set()
    assert named - paths - set(short.values()) == set()


_OURS = {"bandit_client", "bandit_service", "policies", "store"}


@pytest.mark.parametrize(
    "page", ["five-minutes.md", "first-ab-test.md", "client.md", "rewards.md", "walkthrough.md"]
)
def test_code_of_a_page_imports_only_what_the_page_installs(page: str) -> None:
    """What another package happens to bring today is not installed by its next version."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    installed = {
        word for line in re.findall(r"pip install ([^\n`]*)", text) for word in line.split()
    }
    for code in _fences(ROOT / "docs" / page, "python"):
        nodes = list(ast.walk(ast.parse(code)))
        names = {name.name for node in nodes if isinstance(node, ast.Import) for name in node.names}
        names |= {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)}
        roots = {name.partition(".")[0] for name in names}
        assert roots <= {*sys.stdlib_module_names, *_OURS, *installed}, page
