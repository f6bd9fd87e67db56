"""ZeroEval: `result_dirs/TASK/MODEL.json` for the tasks gsm, math-l5 and crux.

A list of objects with `id`, `question`, the key `answer`, and `output`, of which the first text
counts. An answer is the field `answer` of the JSON in the text, or else its last boxed expression.
It is right where it equals the key: numbers within 1e-4, Python literals in crux.
"""

from __future__ import annotations

import ast
import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bandit_service.data.benchmarks import Answered, Rows
from bandit_service.data.benchmarks._tokens import Count
from bandit_service.data.lines import Unread, lines
from bandit_service.data.rows import Malformed

FILES = ("*.json",)
_CRUX = "crux"
_WITHIN = 1e-4
_FIELD = re.compile(r'"?answer"?\s*:\s*("(?:[^"\\]|\\.)*"|[^,}\n]+)')
_NUMBER = re.compile(
    r"[\s$\\£€]*([+-]?[\d,]*\.?\d+(?:[eE][+-]?\d{1,3})?)\.?"  # the number, with thousands
    r"(?:\s*/\s*([+-]?\d*\.?\d+))?"  # of a fraction
    r"[\s\\%°$]*(?:[a-zA-Z][a-zA-Z\s.]*)?"  # and its unit
)
_FRACTION = re.compile(r"\\[dt]?frac\{([^{}]+)\}\{([^{}]+)\}")
_NUMBERED = re.compile(r"(\d+)$")
_READ_AS = str.maketrans({"\f": r"\f", "\b": r"\b", "\t": r"\t"})
"""What JSON makes of the beginnings of \\frac, \\boxed and \\text."""
_LONGEST = 10_000


def rows(path: Path, count: Count) -> Rows:
    """One model's answer to each question; file and directory name the model and the task."""
    task, model = path.parent.name, path.stem
    for line, row in lines(path, ("question", "output", "answer")):
        if isinstance(row, Unread):
            yield line, Malformed(row.why)
            continue
        output = row["output"]
        said = output[0] if isinstance(output, list) and output else output
        if not isinstance(row["question"], str) or not isinstance(said, str):
            yield line, Malformed("must have question, a string, and output, a list of strings")
            continue
        yield line, _answered(row, said, task, model, line - 1, count)


def _answered(
    row: Mapping[str, Any], said: str, task: str, model: str, i: int, count: Count
) -> Answered:
    text, numbered = row["question"], _NUMBERED.search(str(row.get("id", "")))
    id = f"{task}-{numbered[1] if numbered else i}"  # gsm8k-main-test-#1318
    key = str(row["answer"]).strip().removeprefix("#").strip()
    right = equal(answer_in(said), key, literals=task == _CRUX)
    return Answered(f"zeroeval-{id}", text, task, model, float(right), count(text), count(said))


def answer_in(said: str) -> str | None:
    r"""The answer that a text ends in; None for none.

    >>> answer_in('{"reasoning": "2 + 2", "answer": "4"}'), answer_in(r"so \boxed{\frac{1}{2}}")
    ('4', '\\frac{1}{2}')
    """
    at = said.find("{")
    if at >= 0:
        try:
            found = json.JSONDecoder(strict=False).raw_decode(said[at:])[0]
        except (ValueError, RecursionError):
            found = None
        if isinstance(found, dict) and "answer" in found:
            return str(found["answer"]).translate(_READ_AS)
    fields = _FIELD.findall(said)
    if fields:
        return str(fields[-1]).strip().strip('"').replace("\\\\", "\\")
    return _boxed(said)


def _boxed(said: str) -> str | None:
    r"""What is in the braces of the last \boxed."""
    begin = said.rfind("\\boxed{")
    if begin < 0:
        return None
    begin += len("\\boxed{")
    depth = 1
    for end in range(begin, len(said)):
        depth += (said[end] == "{") - (said[end] == "}")
        if not depth:
            return said[begin:end]
    return None


def equal(found: str | None, key: str, *, literals: bool = False) -> bool:
    r"""Whether an answer is the key.

    >>> equal("$1,200.00", "1200"), equal("1/3", "0.33333"), equal("18 eggs", "18.0")
    (True, True, True)
    >>> equal(r"\frac{1}{2}", "0.5"), equal(r"\sqrt{12}", "12"), equal("", "0"), equal(None, "0")
    (True, False, False, False)
    >>> equal("[1, 2]", "[1,2]", literals=True), equal("hello", "'hello'", literals=True)
    (True, True)
    """
    if found is None or len(found) > _LONGEST:
        return False
    if literals:
        first, second = _literal(found), _literal(key)
        return type(first) is type(second) and bool(first == second)
    a, b = _number(found), _number(key)
    if a is not None and b is not None:
        return abs(a - b) <= _WITHIN
    return _words(found) == _words(key) != ""


def _literal(text: str) -> Any:
    """The value as Python reads it; any other text stays a text."""
    try:
        return ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
        return text.strip()


def _number(text: str) -> float | None:
    """A number or a fraction, without currency, unit and thousands; None for anything else."""
    found = _NUMBER.fullmatch(_FRACTION.sub(r"\1/\2", text.strip()))
    if found is None:
        return None
    try:
        top = float(found[1].replace(",", ""))
        value = top / float(found[2]) if found[2] else top
    except (ValueError, ZeroDivisionError, OverflowError):
        return None
    return value if math.isfinite(value) else None


def _words(text: str) -> str:
    return re.sub(r"[\s$\\]+", "", text).lower()
