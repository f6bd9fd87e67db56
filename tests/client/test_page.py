"""docs/client.md and the README of the client, run as they stand."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import bandit_client
from bandit_client import BanditError, Client, ServiceError
from tests.client.conftest import Served

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "client.md").read_text(encoding="utf-8")
README = (ROOT / "bandit_client" / "README.md").read_text(encoding="utf-8")
FENCE = re.compile(r"^```python\n(.*?)^```(?:\n+```text\n(.*?)^```)?", re.DOTALL | re.MULTILINE)
EXAMPLES = FENCE.findall(PAGE) + FENCE.findall(README)


@pytest.mark.parametrize(("code", "said"), EXAMPLES)
def test_an_example_works_as_it_stands(
    code: str,
    said: str,
    served: Served,
    models: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("BANDIT_URL", served.url)
    monkeypatch.setenv("BANDIT_KEY", served.key)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "var").mkdir()
    (tmp_path / "var" / "models").symlink_to(models, target_is_directory=True)
    exec(compile(code, "docs/client.md", "exec"), {"__name__": "__main__"})
    assert said in capsys.readouterr().out


def test_the_page_has_examples_of_everything() -> None:
    assert len(EXAMPLES) == 7
    assert sum(bool(said) for _, said in EXAMPLES) == 3


def test_the_page_names_every_method_and_every_error() -> None:
    methods = {name for name in vars(Client) if not name.startswith("_")} - {"url"}
    assert {name for name in methods if f"`{name}`" not in PAGE} == {"embedded"}
    assert "Client.embedded" in PAGE
    errors = {
        name
        for name, kind in vars(bandit_client).items()
        if isinstance(kind, type) and issubclass(kind, BanditError)
    }
    assert ServiceError.__name__ in errors
    assert {name for name in errors if f"`{name}`" not in PAGE} == {"NotInstalled"}
