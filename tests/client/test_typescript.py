"""The TypeScript client as `make client-ts` builds it, in Node, against the service."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.client.conftest import Served

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "bandit_client_ts"
PAGE = (ROOT / "docs" / "client-ts.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"^```ts\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)


@pytest.fixture
def environ(served: Served) -> dict[str, str]:
    if shutil.which("node") is None or not (PACKAGE / "dist" / "index.js").is_file():
        pytest.skip(f"there is no node, or no {PACKAGE.name}/dist; `make client-ts` builds it")
    return {"PATH": os.environ["PATH"], "BANDIT_URL": served.url, "BANDIT_KEY": served.key}  # noqa: TID251 - passed on


def _node(environ: dict[str, str], *arguments: str) -> str:
    done = subprocess.run(
        ["node", *arguments],
        cwd=PACKAGE,
        env=environ,
        capture_output=True,
        encoding="utf-8",
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def test_what_it_does_and_what_it_sends_again(environ: dict[str, str]) -> None:
    told = _node(environ, "--test", "--test-reporter=tap", "test/client.test.mjs")
    assert re.search(r"^# pass [1-9]", told, re.MULTILINE), told


def test_the_examples_of_its_page_run_and_have_right_types(environ: dict[str, str]) -> None:
    told = ""
    for i, example in enumerate(EXAMPLES):
        script = PACKAGE / "build" / f"example{i}.ts"
        script.parent.mkdir(exist_ok=True)
        script.write_text(example.replace('"bandit-client"', '"../dist/index.js"'), "utf-8")
        flags = ["--target", "ES2022", "--module", "NodeNext", "--strict", "--types", "node"]
        _node(environ, "node_modules/typescript/bin/tsc", *flags, "--outDir", "build", str(script))
        told += _node(environ, f"build/example{i}.js")
    assert re.search(r"^ask \S+ true\ninvalid_value quality\n\d+ arms\n", told), told
