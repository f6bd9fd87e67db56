"""RouteLLM: `evals/gsm8k/gsm8k_responses.csv` and `evals/mmlu/responses/mmlu_*.csv`.

A row has the prompt and for each model a column, True or False; gsm8k has the answers too, in
MODEL_response. The text of mmlu's answers is not published: they are letters, one token each.
"""

from __future__ import annotations

from pathlib import Path

from bandit_service.data.benchmarks import Answered, Rows
from bandit_service.data.benchmarks._tokens import Count
from bandit_service.data.lines import Unread, lines
from bandit_service.data.rows import Malformed

FILES = ("mmlu_*.csv", "*_responses.csv")
_TEXT, _ANSWER = "prompt", "_response"
_LETTER = 1


def rows(path: Path, count: Count) -> Rows:
    """Every model's answer of each row; the id has the number of the row, from 0."""
    task = path.stem.removeprefix("mmlu_").removesuffix("_responses")
    for i, (line, row) in enumerate(lines(path, (_TEXT,))):
        if isinstance(row, Unread):
            yield line, Malformed(row.why)
            continue
        text = str(row[_TEXT])
        asked = count(text)
        for model in row:
            if model == _TEXT or model.endswith(_ANSWER):
                continue
            said = row.get(f"{model}{_ANSWER}")
            out = _LETTER if said is None else count(str(said))
            id = f"routellm-{task}-{i}"
            yield line, Answered(id, text, task, model, row[model], asked, out)
