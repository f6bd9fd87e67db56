"""Human votes between two models' answers, and how well ratings predict the next vote."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from bandit_service.core.history import PER_ITEM, History
from bandit_service.data.compressed import unpacked_name
from bandit_service.data.lines import Unread, lines
from bandit_service.data.recall import recall_stream
from bandit_service.data.rows import (
    MAX_LEFT_OUT,
    BadRow,
    LeftOut,
    Malformed,
    Outcome,
)
from bandit_service.parsing.inputs import worded
from policies import (
    ArmId,
    Arms,
    Compared,
    Comparison,
    Context,
    Floats,
    Vector,
    elo_expected,
    fit_bradley_terry,
)
from policies.eagle import Eagle

_SCORES = {"a": 1.0, "b": 0.0, "tie": 0.5}


@dataclass(frozen=True, slots=True)
class Pairs:
    """n votes on K models, which are sorted by name.

    texts: of the prompts. first, second: (n,) indices of the models that were compared.
    score: (n,) of the first one: 1 it was better, 0 the second was, 1/2 a tie.
    """

    name: str
    models: tuple[str, ...]
    texts: tuple[str, ...]
    first: NDArray[np.int64]
    second: NDArray[np.int64]
    score: Floats
    left_out: tuple[BadRow, ...] = ()

    def __len__(self) -> int:
        return len(self.texts)


@dataclass(frozen=True, slots=True)
class PairRow:
    """One way of predicting, over the votes that were no tie.

    accuracy: share of votes whose winner had the higher probability; equal ones count a half.
    log_loss: mean of −ln p(winner). brier: mean of (1 − p(winner))².
    """

    method: str
    votes: int
    decided: int
    accuracy: float
    log_loss: float
    brier: float


def load_pairs(path: Path, most_left_out: float = MAX_LEFT_OUT) -> Pairs:
    """Votes, one JSON object a line: text, model_a, model_b and winner ("a", "b" or "tie").

    An invalid line is skipped and reported. Raises BadRecording if the file as a whole cannot be
    used.
    """
    votes = []

    def take(fields: Mapping[str, Any]) -> None:
        text, a, b = (_text(name, fields.get(name)) for name in ("text", "model_a", "model_b"))
        if a == b:
            raise Malformed(f"model_b: must be another model than model_a, got {b!r}")
        winner = fields.get("winner")
        if winner is None:
            raise Malformed("winner: missing")
        if not isinstance(winner, str) or winner not in _SCORES:
            raise Outcome("winner", winner, f"one of {', '.join(_SCORES)}")
        votes.append((text, a, b, _SCORES[winner]))

    left_out = _taken(path, take, most_left_out)
    texts, first, second, score = zip(*votes, strict=True)
    models = tuple(sorted({*first, *second}))
    at = {model: k for k, model in enumerate(models)}
    return Pairs(
        name=unpacked_name(path.name).removesuffix(".jsonl"),
        models=models,
        texts=texts,
        first=np.array([at[model] for model in first], np.int64),
        second=np.array([at[model] for model in second], np.int64),
        score=np.array(score, np.float64),
        left_out=left_out,
    )


def evaluate_pairs(
    pairs: Pairs,
    embeddings: Vector,
    seed: int,
    *,
    neighbours: int = 20,
    per_item: int | None = None,
    k_factor: float = 32.0,
    ridge: float = 1.0,
    refit_every: int = 10,
) -> list[PairRow]:
    """Every vote predicted before it is learned, in an order shuffled by the seed.

    embeddings: (n, d) float32 of unit norm, of `pairs.texts`. Ties are learned, not predicted.

    - coin: 1/2.
    - Bradley-Terry, refit: σ(ξ_a − ξ_b), fitted with `ridge` to all votes so far, again every
      `refit_every` votes; a tie is half a win for each.
    - Elo global, local and blend: Eagle with P = 1, 0 and 1/2, learning from comparisons only:
      E = 1 / (1 + 10^((R_b − R_a)/400)) of the scores that it proposes. `neighbours` past prompts
      are recalled, each with its newest `per_item` votes, as the service keeps them: 8, or as
      many as there are models.
    """
    if embeddings.shape[0] != len(pairs):
        raise ValueError(f"embeddings: must have {len(pairs)} rows, got {embeddings.shape[0]}")
    order = np.random.default_rng(seed).permutation(len(pairs))
    eagles = {
        f"Elo {name}": Eagle(
            blend=blend, neighbours=neighbours, k_factor=k_factor, compare_on="off", trial=0
        )
        for name, blend in (("global", 1.0), ("local", 0.0), ("blend", 0.5))
    }
    states = {name: eagle.init() for name, eagle in eagles.items()}
    told: dict[str, list[float]] = {"coin": [], "Bradley-Terry, refit": []}
    told |= {name: [] for name in eagles}
    kept = max(PER_ITEM, len(pairs.models)) if per_item is None else per_item
    history = History(max(1, len(pairs)), kept)
    recall = recall_stream(embeddings[order], neighbours, history.capacity)
    wins = np.zeros((len(pairs.models),) * 2)
    strengths = np.zeros(len(pairs.models))
    for step, row in enumerate(
        tqdm(order.tolist(), desc=pairs.name, unit=" votes", disable=None, leave=False)
    ):
        a, b, score = int(pairs.first[row]), int(pairs.second[row]), float(pairs.score[row])
        context = Context(embeddings[row], 0, 1.0, history.neighbours(*recall.at(step)))
        arms = _two(pairs.models[a], pairs.models[b])
        if score != 0.5:
            chance = {
                "coin": 0.5,
                "Bradley-Terry, refit": 1.0 / (1.0 + math.exp(strengths[b] - strengths[a])),
            }
            for name, eagle in eagles.items():
                scores = dict(
                    zip(arms.ids, eagle.propose(states[name], context, arms).scores, strict=True)
                )
                chance[name] = elo_expected(
                    scores[ArmId(pairs.models[a])], scores[ArmId(pairs.models[b])]
                )
            for name, of_a in chance.items():
                told[name].append(of_a if score == 1.0 else 1.0 - of_a)
        winner, loser = (a, b) if score >= 0.5 else (b, a)
        vote = Comparison(ArmId(pairs.models[winner]), ArmId(pairs.models[loser]), tie=score == 0.5)
        for name, eagle in eagles.items():
            event = Compared(context, vote.winner, vote.loser, vote.tie)
            states[name] = eagle.learn(states[name], event)
        history.remember(embeddings[row], vote)
        history.take_changes()
        wins[a, b] += score
        wins[b, a] += 1.0 - score
        if (step + 1) % refit_every == 0:
            strengths = fit_bradley_terry(wins, ridge)
    return [_row(name, len(pairs), chances) for name, chances in told.items()]


def _row(method: str, votes: int, chances: Sequence[float]) -> PairRow:
    p = np.array(chances)
    if not p.size:
        return PairRow(method, votes, 0, math.nan, math.nan, math.nan)
    return PairRow(
        method=method,
        votes=votes,
        decided=p.size,
        accuracy=float((p > 0.5).mean() + 0.5 * (p == 0.5).mean()),
        log_loss=float(-np.log(np.maximum(p, 1e-300)).mean()),
        brier=float(np.square(1.0 - p).mean()),
    )


def _two(a: str, b: str) -> Arms:
    return Arms((ArmId(min(a, b)), ArmId(max(a, b))), np.zeros(2), np.zeros(2))


def _taken(
    path: Path, take: Callable[[Mapping[str, Any]], None], most: float
) -> tuple[BadRow, ...]:
    left_out = LeftOut(path, most)
    usable = 0
    for line, fields in lines(path, ()):
        try:
            if isinstance(fields, Unread):
                raise Malformed(fields.why)
            take(fields)
            usable += 1
        except Malformed as error:
            left_out.add(path.name, line, error)
    return left_out.checked(usable)


def _text(name: str, value: Any) -> str:
    found = worded(value)
    if not isinstance(found, str) or not found.strip():
        raise Malformed(f"{name}: must be a string that is not empty, got {value!r}")
    return found
