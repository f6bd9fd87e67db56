"""RouterBench's layout (arXiv 2403.12031, github.com/withmartian/routerbench): a wide table.

Columns sample_id, prompt, eval_name, and for each model MODEL with its score,
`MODEL|model_response` and `MODEL|total_cost`; others, `oracle_model_to_route_to` among them, are
not read. A pickle of a pandas DataFrame (routerbench_0shot.pkl, routerbench_5shot.pkl) or CSV with
the same header. Costs are taken as recorded. The repository's price table divides list prices per
million tokens by ten million; if you need dollars, compare with a bill.
"""

from __future__ import annotations

import ast
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from bandit_service.core.fields import MAX_COST_USD
from bandit_service.data.compressed import unpacked_name
from bandit_service.data.convert import Answer, Prices, Query, recorded_of
from bandit_service.data.frames import BadFrame, read_frame
from bandit_service.data.lines import Lines, Unread, header_of, lines
from bandit_service.data.recorded import Recorded
from bandit_service.data.rows import (
    MAX_LEFT_OUT,
    BadRecording,
    LeftOut,
    Malformed,
    Scale,
    number_within,
)
from bandit_service.embedding import estimate_tokens
from bandit_service.parsing.inputs import worded

SUFFIXES = (".pkl", ".pickle", ".csv")
_BASE = ("sample_id", "prompt")
_COST, _RESPONSE = "|total_cost", "|model_response"


def load_routerbench(
    path: Path,
    prices: Prices | None = None,
    scale: Scale | None = None,
    most_left_out: float = MAX_LEFT_OUT,
) -> Recorded:
    """The recording in a RouterBench file; `BadRow.line` is the row of a pickle, counted from 1,
    or the line of a CSV file on which the row begins.

    The text is the prompt; where it is a list of turns, or the repr of one, its turns in order,
    joined by a newline. A missing score is an answer that is missing. Prices are USD per million
    tokens by model; the file has none, so that without them one is estimated for each model
    from its costs and the lengths of prompts and answers.
    BadRecording for a file that cannot be used, and for a pickle with more in it than a table.
    """
    if not path.is_file():
        raise BadRecording(f"{path}: no such file")
    if _is_csv(path):
        models = _models_of(path, header_of(path, _BASE))
        numbers = {*models, *(model + _COST for model in models)}
        rows: Lines = lines(path, _BASE, ("eval_name",), numbers.__contains__)
    elif path.name.endswith(SUFFIXES):
        try:
            frame = read_frame(path)
        except BadFrame as error:
            raise BadRecording(f"{path}: {error}") from None
        except OSError as error:
            raise BadRecording(f"{path}: cannot be read: {error.strerror}") from None
        models = _models_of(path, list(frame))
        rows = _frame_rows(frame)
    else:
        raise BadRecording(f"{path}: must end in {', '.join(SUFFIXES)}")
    queries: dict[str, Query] = {}
    left_out = LeftOut(
        path, most_left_out, "name the scale, as with `bandit-service convert --scale {scale}`"
    )
    for line, fields in rows:
        try:
            query = _query(fields, models, scale or Scale())
            if query.id in queries:
                raise Malformed(f"sample_id: duplicate id {query.id!r}")
            queries[query.id] = query
        except Malformed as error:
            left_out.add(path.name, line, error)
    bad = left_out.checked(len(queries))
    name = unpacked_name(path.name).rpartition(".")[0]
    return recorded_of(name, models, list(queries.values()), bad, prices, path)


def looks_like(path: Path) -> bool:
    """Whether the file is of this layout: a pickle, or a CSV header with a column of costs."""
    if _is_csv(path):
        return any(name.endswith(_COST) for name in header_of(path, _BASE))
    return path.name.endswith(SUFFIXES)


def _is_csv(path: Path) -> bool:
    return unpacked_name(path.name).lower().endswith(".csv")


def text_of(prompt: Any) -> Any:
    """The text of a prompt: of a list of turns, or of its repr, the turns joined by a newline.

    >>> text_of("['Name a river.', 'Another?']")
    'Name a river.\\nAnother?'
    >>> text_of("[sic] is Latin")
    '[sic] is Latin'
    """
    turns: Any = prompt
    if isinstance(prompt, str):
        stripped = prompt.strip()
        if not (stripped.startswith("[") and stripped.endswith("]")):
            return prompt
        try:
            with warnings.catch_warnings():  # of text that only looks like a list
                warnings.simplefilter("ignore")
                turns = ast.literal_eval(stripped)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            return prompt
    if isinstance(turns, list | tuple) and turns and all(isinstance(turn, str) for turn in turns):
        return "\n".join(turns)
    return prompt


def _models_of(path: Path, columns: Sequence[str]) -> list[str]:
    for name in _BASE:
        if name not in columns:
            raise BadRecording(f"{path}: no column {name!r}, which RouterBench has")
    models = list(
        dict.fromkeys(
            name.removesuffix(end)
            for name in columns
            for end in (_COST, _RESPONSE)
            if name.endswith(end)
        )
    )
    if not models:
        raise BadRecording(f"{path}: no column ends in {_COST!r}, as RouterBench's costs do")
    for model in models:
        for name in (model, model + _COST):
            if columns.count(name) != 1:
                what = "is a duplicate" if name in columns else "is missing"
                raise BadRecording(f"{path}: column {name!r} of model {model!r} {what}")
    return models


def _frame_rows(frame: Mapping[str, Sequence[Any]]) -> Iterator[tuple[int, Mapping[str, Any]]]:
    columns = list(frame.values())
    n = len(columns[0])
    for i in tqdm(range(n), desc="reading", unit=" rows", disable=None, leave=False):
        yield i + 1, dict(zip(frame, (column[i] for column in columns), strict=True))


def _query(fields: Mapping[str, Any] | Unread, models: Sequence[str], scale: Scale) -> Query:
    if isinstance(fields, Unread):
        raise Malformed(fields.why)
    id, task = worded(fields["sample_id"]), fields.get("eval_name")
    if not isinstance(id, str) or not id:
        raise Malformed(f"sample_id: must be a string, got {id!r}")
    text = text_of(fields["prompt"])
    if not isinstance(text, str) or not text.strip():
        raise Malformed(f"prompt: must be a text or a list of texts, got {text!r:.60}")
    answers = {}
    for model in models:
        score = scale.quality(model, fields[model])
        if math.isnan(score):
            continue
        cost = number_within(model + _COST, fields[model + _COST], MAX_COST_USD)
        if math.isnan(cost):
            raise Malformed(f"{model}{_COST}: missing, but the score is there")
        response = fields.get(model + _RESPONSE)
        tokens = estimate_tokens(len(response)) if isinstance(response, str) else None
        answers[model] = Answer(score, cost, tokens)
    if not answers:
        raise Malformed("no model has a score")
    return Query(id, text, task if isinstance(task, str) else "", None, answers)
