"""A session with real response times: nine prompts, answers of many models, people's votes.

Quality of a model's answer is the share of its votes that it won, ties counting a half; costs are
not recorded. The prompts come again and again, as in a session on one topic.
"""

from __future__ import annotations

import gzip
from collections import defaultdict
from pathlib import Path
from typing import TypeVar

import msgspec
import numpy as np

from bandit_service.core.events import ArmSpec
from bandit_service.data.recordings import BadRecording, Recorded
from bandit_service.embedding import estimate_tokens
from policies import ArmId

T = TypeVar("T")
_SCORE = {"a": (1.0, 0.0), "b": (0.0, 1.0), "tie": (0.5, 0.5)}


class _Timed(msgspec.Struct):
    prompt_id: str
    text: str
    model: str
    latency_ms: float


class _Vote(msgspec.Struct):
    prompt_id: str
    model_a: str
    model_b: str
    winner: str


def session(directory: Path, queries: int = 2000, arms: int = 10) -> Recorded:
    """A recording of `queries` rows over the `arms` models with the most votes.

    BadRecording when the files are not there or hold no model with all prompts.
    """
    times: dict[tuple[str, str], float] = {}
    texts: dict[str, str] = {}
    for timed in _rows(directory / "latency_llmfao.jsonl.gz", _Timed):
        times[timed.prompt_id, timed.model] = timed.latency_ms / 1000.0
        texts[timed.prompt_id] = timed.text
    scores: dict[tuple[str, str], list[float]] = defaultdict(list)
    for vote in _rows(directory / "pairs_llmfao.jsonl.gz", _Vote):
        for model, score in zip((vote.model_a, vote.model_b), _SCORE[vote.winner], strict=True):
            scores[vote.prompt_id, model].append(score)
    prompts = sorted({prompt for prompt, _ in scores} & set(texts))
    votes = {
        model: sum(len(scores[prompt, model]) for prompt in prompts)
        for model in {model for _, model in times}
        if all((prompt, model) in times and scores.get((prompt, model)) for prompt in prompts)
    }
    chosen = sorted(sorted(votes, key=lambda model: (-votes[model], model))[:arms])
    if not prompts or len(chosen) < 2:
        raise BadRecording(f"{directory}: no two models with times and votes on every prompt")
    rows = [prompts[i % len(prompts)] for i in range(queries)]
    quality = [[float(np.mean(scores[prompt, model])) for model in chosen] for prompt in rows]
    return Recorded(
        name="llmfao",
        arms=tuple(
            ArmSpec(id=ArmId(model), usd_per_mtok_in=0.0, usd_per_mtok_out=0.0) for model in chosen
        ),
        ids=tuple(f"{prompt}-{i}" for i, prompt in enumerate(rows)),
        texts=tuple(texts[prompt] for prompt in rows),
        quality=np.array(quality),
        cost=np.zeros((queries, len(chosen))),
        tokens=np.array([estimate_tokens(len(texts[prompt])) for prompt in rows], np.int64),
        tasks=tuple(rows),
        latency=np.array([[times[prompt, model] for model in chosen] for prompt in rows]),
    )


def _rows(path: Path, kind: type[T]) -> list[T]:
    if not path.is_file():
        raise BadRecording(f"{path}: no such file")
    with gzip.open(path) as file:
        return [msgspec.json.decode(line, type=kind) for line in file if line.strip()]
