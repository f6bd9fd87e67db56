"""RouterBench's layout (arXiv 2403.12031, github.com/withmartian/routerbench): a wide table.

Columns sample_id, prompt, eval_name, and for each model MODEL with its score,
`MODEL|model_response` and `MODEL|total_cost`; others, `oracle_model_to_route_to` among them, are
not read. A pickle of a pandas DataFrame (routerbench_0shot.pkl, routerbench_5shot.pkl) or CSV with
the same header. Costs are taken as recorded. The repository's price table divides list prices per
million tokens by ten million; whoever needs dollars should compare with a bill.
"""

from __future__ import annotations

import ast
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from bandit_service.core.outcomes import MAX_COST_USD
from bandit_service.embedding import estimate_tokens
from bandit_service.evaluate._frame import BadFrame, read_frame
from bandit_service.evaluate._lines import Lines, Unread, header_of, lines, plain
from bandit_service.evaluate.convert import Answer, Prices, Query, recorded_of
from bandit_service.replay.recorded import BadRecording, BadRow, Malformed, Recorded, number_within

SUFFIXES = (".pkl", ".pickle", ".csv", ".csv.gz")
_BASE = ("sample_id", "prompt")
_COST, _RESPONSE = "|total_cost", "|model_response"


def load_routerbench(path: Path, prices: Prices | None = None) -> Recorded:
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
    if path.name.endswith((".csv", ".csv.gz")):
        models = _models_of(path, header_of(path))
        rows: Lines = lines(path, _BASE)
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
    left_out = []
    for line, fields in rows:
        try:
            query = _query(fields, models)
            if query.id in queries:
                raise Malformed(f"sample_id: {query.id!r} was there before")
            queries[query.id] = query
        except Malformed as error:
            left_out.append(BadRow(path.name, line, str(error)))
    name = path.name.removesuffix(".gz").rpartition(".")[0]
    return recorded_of(name, models, list(queries.values()), left_out, prices, path)


def looks_like(path: Path) -> bool:
    """Whether the file is of this layout: a pickle, or a CSV header with a column of costs."""
    if path.name.endswith((".csv", ".csv.gz")):
        return any(name.endswith(_COST) for name in header_of(path))
    return path.name.endswith(SUFFIXES)


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
                what = "is there twice" if name in columns else "is missing"
                raise BadRecording(f"{path}: column {name!r} of model {model!r} {what}")
    return models


def _frame_rows(frame: Mapping[str, Sequence[Any]]) -> Iterator[tuple[int, Mapping[str, Any]]]:
    columns = list(frame.values())
    n = len(columns[0])
    for i in tqdm(range(n), desc="reading", unit=" rows", disable=None, leave=False):
        yield i + 1, dict(zip(frame, (column[i] for column in columns), strict=True))


def _query(fields: Mapping[str, Any] | Unread, models: Sequence[str]) -> Query:
    if isinstance(fields, Unread):
        raise Malformed(fields.why)
    id, task = fields["sample_id"], fields.get("eval_name")
    if isinstance(id, bool) or not isinstance(id, str | int) or id == "":
        raise Malformed(f"sample_id: must be a string, got {id!r}")
    text = text_of(fields["prompt"])
    if not isinstance(text, str) or not text.strip():
        raise Malformed(f"prompt: must be a text or a list of texts, got {text!r:.60}")
    answers = {}
    for model in models:
        score = number_within(model, plain(fields[model]), 1.0)
        if math.isnan(score):
            continue
        cost = number_within(model + _COST, plain(fields[model + _COST]), MAX_COST_USD)
        if math.isnan(cost):
            raise Malformed(f"{model}{_COST}: missing, but the score is there")
        response = fields.get(model + _RESPONSE)
        tokens = estimate_tokens(len(response)) if isinstance(response, str) else None
        answers[model] = Answer(score, cost, tokens)
    if not answers:
        raise Malformed("no model has a score")
    return Query(str(id), text, task if isinstance(task, str) else "", None, answers)
