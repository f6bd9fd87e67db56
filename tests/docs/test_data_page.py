"""The hashes and sizes of docs/data.md are those of the files that are here."""

from __future__ import annotations

import gzip
import hashlib
import importlib.util
import re
import shlex
from pathlib import Path

import pytest

from bandit_service.cli.main import main
from bandit_service.data.known_files import known_files
from bandit_service.data.recordings import open_recording
from tests.shared_data import SHARED

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "data.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| `([\w./-]+)` \|(.*)\| ([0-9a-f]{64}) \|$", PAGE, re.MULTILINE)
SPECIALISTS = ROOT / "bandit_service" / "data" / "specialists"


def _there(name: str) -> Path:
    """Where the file is, if it is here."""
    package = importlib.util.find_spec("pareto_bandit")
    places = [SPECIALISTS, SHARED / "data"]
    if package is not None and package.origin is not None:
        places.append(Path(package.origin).parent)
    return next((place / name for place in places if (place / name).is_file()), Path(name))


@pytest.mark.parametrize(("name", "cells", "sha256"), ROWS, ids=[row[0] for row in ROWS])
def test_a_file_is_the_one_of_the_page(name: str, cells: str, sha256: str) -> None:
    path = _there(name)
    if not path.is_file():
        pytest.skip(f"{name} is not here")
    assert hashlib.sha256(path.read_bytes()).hexdigest() == sha256
    numbers = [int(cell) for cell in re.findall(r"\d+", cells)]
    if numbers:
        assert numbers[-1] == path.stat().st_size
    if len(numbers) == 3:
        assert gzip.decompress(path.read_bytes()).count(b"\n") == numbers[0]


def test_the_page_and_the_table_of_the_command_are_the_same() -> None:
    told = {name: (sha256, re.findall(r"\d+", cells)) for name, cells, sha256 in ROWS}
    known = {each.name: each for each in known_files()}
    assert told.keys() == known.keys()
    for name, (sha256, numbers) in told.items():
        assert known[name].sha256 == sha256
        assert known[name].bytes == int(numbers[-1])
        assert len(numbers) < 3 or known[name].queries == int(numbers[0])


def test_every_command_that_rebuilds_reads_files_of_the_published_formats(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each on a tree as the clone has it, with one small file of each kind."""
    (fence,) = [
        each for each in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL) if "git clone" in each
    ]
    lines = fence.replace("\\\n", " ").splitlines()
    commands = [shlex.split(line) for line in lines if line.startswith("bandit-service ")]
    files = {
        "RouteLLM/routellm/evals/gsm8k/gsm8k_responses.csv":
            "prompt,gpt-4-1106-preview,gpt-4-1106-preview_response\nHow many?,True,Six.\n",
        "RouteLLM/routellm/evals/mmlu/responses/mmlu_anatomy.csv":
            "prompt,mixtral-8x7b-instruct-v0.1,gpt-4-1106-preview\nWhich?,False,True\n",
        "LLMRouter/data/dcrouter_preprocessed/train.json":
            '[{"question": "Who?", "scores": {"gemma-2-9b-it": 1.0, "codegemma-7b": 0.0}}]',
        "MMLU-Pro/eval_results/model_outputs_yi-6b-chat_5shots.json":
            '[{"question_id": 1, "question": "Q", "options": ["a"], '
            '"answer": "A", "pred": "A", "response": "A"}]',
        "ZeroEval/result_dirs/gsm/gpt-4o-2024-08-06.json":
            '[{"id": "gsm-0", "question": "Q", "answer": "1", "output": ["{\\"answer\\": 1}"]}]',
        "ZeroEval/result_dirs/math-l5/gpt-4o-2024-08-06.json":
            '[{"id": "math-l5-0", "question": "R", "answer": "2", "output": ["so it is 3"]}]',
        "ZeroEval/result_dirs/crux/gpt-4o-2024-08-06.json":
            '[{"id": "crux-0", "question": "S", "answer": "[1]", '
            '"output": ["{\\"answer\\": [1]}"]}]',
    }  # fmt: skip
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.chdir(tmp_path)
    assert len(commands) == 4
    for _, *words in commands:
        assert main(words) == 0, words
    rows = {path.name: len(open_recording(str(path))) for path in Path("recordings").glob("*.gz")}
    assert rows == {
        "routellm.jsonl.gz": 2, "nvmix.jsonl.gz": 1, "mmlupro.jsonl.gz": 1, "zeroeval.jsonl.gz": 3,
    }  # fmt: skip


def test_every_recording_of_the_results_is_on_the_page() -> None:
    pages = {path.stem for path in (ROOT / "docs" / "results").glob("*.md")}
    assert pages
    assert all(re.search(rf"\b{name}\b", PAGE) for name in pages)
