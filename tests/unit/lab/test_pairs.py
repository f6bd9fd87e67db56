"""Votes: reading them, and predicting each before it is learned."""

from __future__ import annotations

import gzip
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bandit_service.data.rows import BadRecording
from bandit_service.lab.pairs import (
    PairRow,
    Pairs,
    evaluate_pairs,
    load_pairs,
)
from policies import Vector
from tests.shared_data import shared

VOTE = {"text": "why?", "model_a": "x", "model_b": "y", "winner": "a"}


def _written(path: Path, rows: list[Any]) -> Path:
    body = "\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows)
    path.write_bytes(gzip.compress(body.encode()))
    return path


def test_votes_are_read_with_models_sorted(tmp_path: Path) -> None:
    rows = [
        {**VOTE, "model_a": "z", "pair_id": "p"},
        {**VOTE, "winner": "b"},
        {**VOTE, "winner": "tie"},
    ]
    pairs = load_pairs(_written(tmp_path / "v.jsonl.gz", rows))
    assert (pairs.name, pairs.models, len(pairs)) == ("v", ("x", "y", "z"), 3)
    assert pairs.first.tolist() == [2, 0, 0]
    assert pairs.second.tolist() == [1, 1, 1]
    assert pairs.score.tolist() == [1.0, 0.0, 0.5]


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        ("{", "not JSON"),
        ({**VOTE, "winner": None}, "winner: missing"),
        ({**VOTE, "model_b": "x"}, "model_b: must be another model than model_a, got 'x'"),
        ({**VOTE, "text": ""}, "text: must be a string that is not empty, got ''"),
        ({**VOTE, "model_a": [3]}, "model_a: must be a string that is not empty, got [3]"),
    ],
)
def test_a_malformed_vote_is_left_out_with_its_line(tmp_path: Path, bad: Any, why: str) -> None:
    pairs = load_pairs(_written(tmp_path / "v.jsonl.gz", [VOTE, bad, VOTE]))
    assert len(pairs) == 2
    (left_out,) = pairs.left_out
    assert left_out.line == 2
    assert why in left_out.reason


def test_a_file_without_a_vote_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadRecording, match=r"no usable row; v\.jsonl\.gz:1: winner"):
        load_pairs(_written(tmp_path / "v.jsonl.gz", [{**VOTE, "winner": None}]))


def test_a_vote_of_another_kind_refuses_the_file(tmp_path: Path) -> None:
    votes = [{**VOTE, "winner": "tie (bothbad)"}, *[VOTE] * 99]
    with pytest.raises(BadRecording, match=r"1 of 100 rows .* biased selection"):
        load_pairs(_written(tmp_path / "v.jsonl.gz", votes))


def _votes(first: list[int], second: list[int], score: list[float]) -> Pairs:
    models = tuple("abcdef"[: 1 + max(first + second)])
    return Pairs(
        "made", models, ("t",) * len(score), np.array(first), np.array(second), np.array(score)
    )


def _by_name(rows: list[PairRow]) -> dict[str, PairRow]:
    return {row.method: row for row in rows}


def test_two_votes_by_hand() -> None:
    # The first vote is predicted at 1/2, the second with a at 1016 and b at 984 in the global
    # ratings; the local ones, begun there, replay the one vote on the same prompt.
    rows = _by_name(
        evaluate_pairs(
            _votes([0, 0], [1, 1], [1.0, 1.0]), np.ones((2, 1), np.float32), 0, refit_every=1
        )
    )
    p = 1.0 / (1.0 + 10.0 ** (-32.0 / 400.0))
    assert rows["coin"] == PairRow("coin", 2, 2, 0.5, math.log(2.0), 0.25)
    whole = rows["Elo global"]
    assert whole.accuracy == 0.75
    assert whole.log_loss == pytest.approx((math.log(2.0) - math.log(p)) / 2.0)
    assert whole.brier == pytest.approx((0.25 + (1.0 - p) ** 2) / 2.0)
    gain = 32.0 * (1.0 - p)
    local = 1.0 / (1.0 + 10.0 ** (-(32.0 + 2.0 * gain) / 400.0))
    assert rows["Elo local"].log_loss == pytest.approx((math.log(2.0) - math.log(local)) / 2.0)
    blend = 1.0 / (1.0 + 10.0 ** (-(32.0 + gain) / 400.0))
    assert rows["Elo blend"].log_loss == pytest.approx((math.log(2.0) - math.log(blend)) / 2.0)
    # ξ and −ξ with σ(−2ξ) = ξ, the likelihood's slope against a ridge of 1
    xi = 0.337415807
    assert 1.0 / (1.0 + math.exp(2.0 * xi)) == pytest.approx(xi, abs=1e-6)
    q = 1.0 / (1.0 + math.exp(-2.0 * xi))
    fitted = rows["Bradley-Terry, refit"]
    assert fitted.log_loss == pytest.approx((math.log(2.0) - math.log(q)) / 2.0, abs=1e-6)


def test_a_tie_teaches_but_is_not_predicted() -> None:
    votes = _votes([0, 0, 0], [1, 1, 1], [0.5, 0.5, 0.5])
    for row in evaluate_pairs(votes, np.ones((3, 1), np.float32), 0):
        assert (row.votes, row.decided) == (3, 0)
        assert math.isnan(row.accuracy)


def _planted(n: int) -> tuple[Pairs, Vector]:
    """On one topic model 0 wins, on the other model 1; model 2 loses to both."""
    rng = np.random.default_rng(2)
    topic = rng.integers(0, 2, n)
    vectors = np.eye(6)[topic] + 0.1 * rng.normal(size=(n, 6))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    first = rng.integers(0, 3, n)
    second = (first + rng.integers(1, 3, n)) % 3
    strength = np.array([[2.0, 1.0, 0.0], [1.0, 2.0, 0.0]])[topic]
    rows = np.arange(n)
    score = (strength[rows, first] > strength[rows, second]).astype(float)
    pairs = Pairs("planted", ("a", "b", "c"), ("t",) * n, first, second, score)
    return pairs, vectors.astype(np.float32)


def test_local_ratings_predict_what_depends_on_the_topic_and_global_ones_what_does_not() -> None:
    pairs, vectors = _planted(300)
    rows = _by_name(evaluate_pairs(pairs, vectors, 0))
    assert rows["Elo local"].accuracy > 0.85
    assert rows["Elo local"].log_loss < rows["Elo blend"].log_loss < rows["Elo global"].log_loss
    assert rows["Elo global"].accuracy > 0.7
    assert rows["Bradley-Terry, refit"].accuracy > 0.7
    assert rows["Bradley-Terry, refit"].log_loss < rows["coin"].log_loss


def test_equal_seeds_give_equal_rows_and_the_vote_itself_is_not_seen() -> None:
    pairs, vectors = _planted(80)
    assert evaluate_pairs(pairs, vectors, 3) == evaluate_pairs(pairs, vectors, 3)
    assert evaluate_pairs(pairs, vectors, 3) != evaluate_pairs(pairs, vectors, 4)
    # votes by a fair coin on prompts of their own cannot be predicted
    rng = np.random.default_rng(1)
    n = 400
    chance = Pairs(
        "chance",
        ("a", "b"),
        ("t",) * n,
        np.zeros(n, np.int64),
        np.ones(n, np.int64),
        rng.integers(0, 2, n).astype(float),
    )
    noise = rng.normal(size=(n, 8))
    noise /= np.linalg.norm(noise, axis=1, keepdims=True)
    for row in evaluate_pairs(chance, noise.astype(np.float32), 0):
        assert abs(row.accuracy - 0.5) < 0.09


def test_embeddings_of_other_queries_are_refused() -> None:
    with pytest.raises(ValueError, match="embeddings: must have 1 rows, got 2"):
        evaluate_pairs(_votes([0], [1], [1.0]), np.ones((2, 1), np.float32), 0)


def test_real_votes_are_predicted_better_than_by_a_coin() -> None:
    pairs = load_pairs(shared("data", "pairs_pandalm.jsonl.gz"))
    assert (len(pairs), len(pairs.models), pairs.left_out) == (541, 5, ())
    distinct = sorted(set(pairs.texts))
    vectors = np.eye(len(distinct), dtype=np.float32)[[distinct.index(t) for t in pairs.texts]]
    rows = _by_name(evaluate_pairs(pairs, vectors, 0, neighbours=5))
    for name in ("Elo global", "Bradley-Terry, refit"):
        assert rows[name].accuracy > 0.55
