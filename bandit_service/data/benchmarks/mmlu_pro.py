"""MMLU-Pro: `eval_results/model_outputs_MODEL_5shots.zip`, or the JSON in it.

A list of objects with `question_id`, `question`, `options`, the key's letter `answer`, the letter
`pred` that was found, and what the model said, `model_outputs` or `response`. Where no letter was
found, or `pred` is absent and none is in the text, the answer is wrong. The five examples of the
prompt are not in the file, and not charged.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bandit_service.data.benchmarks import Answered, Rows
from bandit_service.data.benchmarks._tokens import Count
from bandit_service.data.rows import BadRecording, Malformed
from bandit_service.parsing.inputs import json_of

FILES = ("model_outputs_*.zip", "model_outputs_*.json")
_NAME = re.compile(r"^(?:model_outputs_)?(.+?)(?:_\d+shots?)?$")
_OURS = re.compile(r"(?!__MACOSX/).+\.json")  # some were packed on a Mac
_FOUND = (
    re.compile(r"answer is \(?([A-J])\)?"),
    re.compile(r"[aA]nswer:\s*\(?([A-J])\)?"),
)


def rows(path: Path, count: Count) -> Rows:
    """One model's answer to each question; the model is named by the file."""
    named = _NAME.match(path.stem)
    model = named[1] if named else path.stem
    for line, row in enumerate(_objects(path), 1):
        try:
            yield line, _answered(row, model, count)
        except (LookupError, TypeError) as error:
            yield line, Malformed(f"not a question of MMLU-Pro: {error!r:.60}")


def _answered(row: Mapping[str, Any], model: str, count: Count) -> Answered:
    said = str(row["model_outputs"] if "model_outputs" in row else row["response"])
    options = "\n".join(f"{chr(65 + i)}. {option}" for i, option in enumerate(row["options"]))
    text = f"{row['question']}\n{options}"
    letter = row["pred"] if "pred" in row else _letter(said)
    return Answered(
        f"mmlupro-{row['question_id']}",
        text,
        str(row.get("category", "")),
        model,
        float(letter == row["answer"]),
        count(text),
        count(said),
    )


def _letter(said: str) -> str | None:
    """The letter that an answer names; None for none.

    >>> _letter("So the answer is (C)."), _letter("Answer: B"), _letter("I do not know")
    ('C', 'B', None)
    """
    found = (pattern.search(said) for pattern in _FOUND)
    return next((each[1] for each in found if each), None)


def _objects(path: Path) -> Iterator[Any]:
    """The objects of a JSON list, or of each in a zip."""
    try:
        if path.suffix != ".zip":
            yield from _list(json_of(path.read_bytes()), path)
            return
        with zipfile.ZipFile(path) as archive:
            inside = [name for name in archive.namelist() if _OURS.fullmatch(name)]
            if not inside:
                raise BadRecording(f"{path}: contains no .json file")
            for name in sorted(inside):
                yield from _list(json_of(archive.read(name)), path)
    except FileNotFoundError:
        raise BadRecording(f"{path}: no such file") from None
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise BadRecording(f"{path}: cannot be read: {error}") from None


def _list(value: Any, path: Path) -> list[Any]:
    if not isinstance(value, list):
        raise BadRecording(f"{path}: must be a list of objects, got {value!r:.40}")
    return value
