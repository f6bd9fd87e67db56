"""The notebooks run from the first cell to the last, draw their figures, and keep no output."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.examples.conftest import EXAMPLES, ROOT
from tests.tools import needed

needed("nbclient")

import nbformat  # noqa: E402 - after the look whether it is there
from nbclient import NotebookClient  # noqa: E402

NOTEBOOKS = sorted(EXAMPLES.glob("*.ipynb"))
SAYS = {
    "embedded_client": ["mean quality", "of the last quarter", "it went to"],
    "my_policy_wins": ["laws apply, and hold", "few.jsonl, less nested:"],
    "reproduce_eagle": ["log-WTP AUC", "time of the last update"],
}
_PNG = "image/png"


def test_there_are_three() -> None:
    assert [path.stem for path in NOTEBOOKS] == sorted(SAYS)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_no_output_is_kept(path: Path) -> None:
    book = json.loads(path.read_text(encoding="utf-8"))
    nbformat.validate(book)
    for cell in book["cells"]:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None
    assert book["metadata"]["kernelspec"]["name"] == "python3"


@pytest.mark.long
@pytest.mark.parametrize("name", sorted(SAYS))
def test_it_runs_from_top_to_bottom(
    copied: Path, few: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = few if name != "embedded_client" else "specialists"
    seeds = "1" if name == "reproduce_eagle" else "2"  # an interval wants two
    for variable, value in {"SEEDS": seeds, "DATA": data, "QUERIES": "120"}.items():
        monkeypatch.setenv(variable, value)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    book: Any = nbformat.read(copied / f"{name}.ipynb", as_version=4)
    resources = {"metadata": {"path": str(copied)}}
    NotebookClient(book, timeout=600, kernel_name="python3", resources=resources).execute()
    outputs = [each for cell in book.cells for each in cell.get("outputs", [])]
    said = "".join(each.get("text", "") for each in outputs)
    for words in SAYS[name]:
        assert words in said
    assert [each for each in outputs if _PNG in each.get("data", {})]
    told = "".join(each["text"] for each in outputs if each.get("name") == "stderr")
    assert re.fullmatch(r"(\S+, (order|split) \d+ of \d+.*\n)*", told)  # how far it is
