"""LLMRouter: `data/dcrouter_preprocessed/train.json` and `test.json`.

A list of objects with `question`, and `scores` by model. The lengths of answers are
not published: 200 tokens are assumed for each, so the cost is an estimate.
"""

from __future__ import annotations

from pathlib import Path

from bandit_service.data.benchmarks import Answered, Rows
from bandit_service.data.benchmarks._tokens import Count
from bandit_service.data.lines import Unread, lines
from bandit_service.data.rows import Malformed

FILES = ("*.json",)
_ASSUMED = 200


def rows(path: Path, count: Count) -> Rows:
    """Every model's score of each question; the id has the number of the question, from 0."""
    for line, row in lines(path, ("question", "scores")):
        if isinstance(row, Unread):
            yield line, Malformed(row.why)
            continue
        text, scores = row["question"], row["scores"]
        if not isinstance(text, str) or not isinstance(scores, dict):
            yield line, Malformed("must have question, a string, and scores, an object by model")
            continue
        asked, id = count(text), f"nvmix-{path.stem}-{line - 1}"
        for model, score in scores.items():
            yield line, Answered(id, text, "", model, score, asked, _ASSUMED)
