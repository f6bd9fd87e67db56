"""Loading recorded traffic: what is read, what is left out, what is refused."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bandit_service.data.recordings import embed_all, load, load_paretobandit
from bandit_service.data.rows import BadRecording
from bandit_service.embedding import estimate_tokens
from policies import Vector
from tests.shared_data import shared
from tests.tools import needed
from tests.unit.data.recordings import META, a_row, write


@pytest.mark.parametrize("name", ["t.jsonl", "t.jsonl.gz"])
def test_a_recording_is_read_with_its_arms_sorted_by_id(tmp_path: Path, name: str) -> None:
    recorded = load(write(tmp_path / name, [a_row(1), a_row(2, in_tok=7)]))
    assert (recorded.name, len(recorded), recorded.left_out) == ("t", 2, ())
    assert recorded.ids == ("q1", "q2")
    assert recorded.texts == ("question 1", "question 2")
    assert [(a.id, a.usd_per_mtok_in, a.usd_per_mtok_out) for a in recorded.arms] == [
        ("a", 1.0, 2.0),
        ("b", 3.0, 4.5),
    ]
    assert recorded.quality.tolist() == [[0.25, 1.0]] * 2
    assert recorded.cost.tolist() == [[0.0, 0.002]] * 2
    assert recorded.tokens.tolist() == [estimate_tokens(len("question 1")), 7]


def test_null_is_an_answer_that_is_missing(tmp_path: Path) -> None:
    recorded = load(write(tmp_path / "t.jsonl", [a_row(1, quality=[None, 0.5], cost=[None, 1])]))
    assert np.isnan(recorded.quality[0, 1])
    assert np.isnan(recorded.cost[0, 1])
    assert (recorded.quality[0, 0], recorded.cost[0, 0]) == (0.5, 1.0)


MALFORMED = [
    ("{", "not JSON"),
    ("[1]", "must be an object, got list"),
    (a_row(9, quality=[1]), "quality: must have 2 entries, one per model, got 1"),
    (a_row(9, quality=1), "quality: must be a list, got int"),
    (a_row(9, quality=[None, None]), "quality: no model has an answer"),
    (a_row(9, cost=[None, 0]), "cost[0]: missing, but quality[0] is there"),
    (a_row(9, cost=[0, 0, 0]), "cost: must have 2 entries, one per model, got 3"),
    (a_row(9, text=[5]), "text: must be a string that is not empty, got [5]"),
    (a_row(9, text=" "), "text: must be a string that is not empty, got ' '"),
    (a_row(9, query_id=[5]), "query_id: must be a string, got [5]"),
    (a_row(1), "query_id: duplicate id 'q1'"),
    (a_row(9, in_tok=-1), "in_tok: must be a whole number from 0 up, got -1"),
    (a_row(9, in_tok=1.5), "in_tok: must be a whole number from 0 up, got 1.5"),
]


@pytest.mark.parametrize(("bad", "reason"), MALFORMED, ids=[reason for _, reason in MALFORMED])
def test_a_malformed_row_is_left_out_with_its_line(tmp_path: Path, bad: Any, reason: str) -> None:
    recorded = load(write(tmp_path / "t.jsonl", [a_row(1), "", bad, a_row(2)]))
    assert recorded.ids == ("q1", "q2")
    (left_out,) = recorded.left_out
    assert (left_out.file, left_out.line) == ("t.jsonl", 3)
    assert reason in left_out.reason


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ({"quality": [1.5, 0]}, "quality[0]: must be a number from 0 to 1, got 1.5"),
        ({"quality": [0, -0.1]}, "quality[1]: must be a number from 0 to 1, got -0.1"),
        ({"quality": ["good", 0]}, "quality[0]: must be a number from 0 to 1, got 'good'"),
        ({"cost": [-1, 0]}, "cost[0]: must be a number from 0 to 10000, got -1"),
        ({"latency_s": [1e9, 0]}, "latency_s[0]: must be a number from 0 to 86400"),
    ],
)
def test_an_outcome_that_cannot_be_taken_refuses_the_file(
    tmp_path: Path, bad: dict[str, Any], reason: str
) -> None:
    rows = [a_row(1), *(a_row(i) for i in range(2, 100)), a_row(100, **bad)]
    with pytest.raises(BadRecording, match=r"1 of 100 rows .* biased selection") as caught:
        load(write(tmp_path / "t.jsonl", rows))
    assert reason in str(caught.value)


def test_values_are_read_by_their_meaning(tmp_path: Path) -> None:
    rows = [
        '{"query_id":null,"text":"y","quality":[NaN,1],"cost":[NaN,0]}',
        a_row(2, quality=["0.5", True], cost=["0.1", False], in_tok="7", query_id=5),
    ]
    recorded = load(write(tmp_path / "t.jsonl", rows))
    assert recorded.ids == ("1", "5")
    np.testing.assert_array_equal(recorded.quality, [[1.0, np.nan], [1.0, 0.5]])
    assert recorded.tokens.tolist() == [1, 7]


def _meta(**changed: Any) -> dict[str, Any]:
    return {**META, **changed}


@pytest.mark.parametrize(
    ("meta", "why"),
    [
        (None, r"t\.meta\.json: cannot be read"),
        ({}, "must have models, a list, and usd_per_million_tokens"),
        (_meta(models=["a", "a"]), "models: must not have duplicates"),
        (_meta(models=["a", "c"]), "no price for 'c'"),
        (_meta(models=["a", 1]), "no price for 1"),
        (_meta(usd_per_million_tokens={"b": {"input": -1, "output": 1}}), "b: usd_per_mtok_in"),
        (_meta(usd_per_million_tokens={"b": {"input": 1}}), "b: usd_per_mtok_out"),
    ],
)
def test_a_meta_file_that_is_missing_or_wrong_is_one_error(
    tmp_path: Path, meta: dict[str, Any] | None, why: str
) -> None:
    with pytest.raises(BadRecording, match=why):
        load(write(tmp_path / "t.jsonl", [a_row(1)], meta))


def test_files_that_cannot_be_used_are_one_error(tmp_path: Path) -> None:
    with pytest.raises(BadRecording, match="no such file"):
        load(tmp_path / "absent.jsonl")
    with pytest.raises(BadRecording, match=r"NAME\.jsonl or NAME\.jsonl\.gz"):
        load(tmp_path / "t.csv")
    with pytest.raises(BadRecording, match=r"no usable row; t\.jsonl:1: not JSON"):
        load(write(tmp_path / "t.jsonl", ["{"]))
    cut = write(tmp_path / "cut.jsonl.gz", [a_row(i) for i in range(100)])
    cut.write_bytes(cut.read_bytes()[:-20])
    with pytest.raises(BadRecording, match=r"cut\.jsonl\.gz: cannot be read after line \d+"):
        load(cut)
    plain = write(tmp_path / "plain.jsonl.gz", [a_row(1)])
    plain.write_text(json.dumps(a_row(1)))
    with pytest.raises(BadRecording, match="cannot be read after line 0"):
        load(plain)


def test_the_prompts_of_paretobandit_are_read() -> None:
    needed("pareto_bandit")
    recorded = load_paretobandit()
    assert (len(recorded), recorded.quality.shape, recorded.left_out) == (3609, (3609, 3), ())
    assert recorded.arms[0].id == "google/gemini-2.5-pro"
    assert (recorded.arms[0].usd_per_mtok_in, recorded.arms[0].usd_per_mtok_out) == (1.25, 10.0)
    assert not np.isnan(recorded.quality).any()


def test_the_published_means_of_nvmix_come_out() -> None:
    recorded = load(shared("data", "nvmix.jsonl.gz"))
    best = [arm.id for arm in recorded.arms].index("llama-3.1-nemotron-51b-instruct")  # type: ignore[arg-type]
    assert len(recorded) == 3312
    assert recorded.quality.mean(axis=0)[best] == pytest.approx(0.6480, abs=5e-5)
    assert 1000 * recorded.cost.mean(axis=0)[best] == pytest.approx(0.2453, abs=5e-5)
    assert recorded.quality.mean() == pytest.approx(0.4550, abs=5e-5)


class _Counting:
    """A backend that embeds a text as its length, and counts."""

    name, dim = "counting", 2

    def __init__(self) -> None:
        self.seen: list[str] = []

    def encode(self, texts: Sequence[str]) -> Vector:
        self.seen += texts
        return np.array([[len(text), 1.0] for text in texts], np.float32)


def test_every_text_is_embedded_once_for_ever(tmp_path: Path) -> None:
    backend = _Counting()
    assert embed_all(["ccc", "a", "a"], backend, "m", tmp_path).tolist() == [[3, 1], [1, 1], [1, 1]]
    assert embed_all(["bb", "a"], backend, "m", tmp_path).tolist() == [[2, 1], [1, 1]]
    assert backend.seen == ["a", "ccc", "bb"]
    embed_all(["a"], backend, "another model", tmp_path)
    assert backend.seen[3:] == ["a"]


def test_a_damaged_cache_is_made_again(tmp_path: Path) -> None:
    backend = _Counting()
    embed_all(["a"], backend, "m", tmp_path)
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:100])
    assert embed_all(["a"], backend, "m", tmp_path).tolist() == [[1, 1]]
    assert backend.seen == ["a", "a"]


def test_what_was_embedded_before_an_interruption_is_kept(tmp_path: Path) -> None:
    class Interrupted(_Counting):
        def encode(self, texts: Sequence[str]) -> Vector:
            if self.seen:
                raise KeyboardInterrupt
            return super().encode(texts)

    texts = ["x" * i for i in range(1, 101)]
    with pytest.raises(KeyboardInterrupt):
        embed_all(texts, Interrupted(), "m", tmp_path)
    resumed = _Counting()
    embed_all(texts, resumed, "m", tmp_path)
    assert 0 < len(resumed.seen) < len(texts)


def test_latencies_are_read_where_there_are_any(tmp_path: Path) -> None:
    rows = [a_row(1, latency_s=[1.5, None]), a_row(2), a_row(3, latency_s=[1.0])]
    recorded = load(write(tmp_path / "some.jsonl", rows))
    assert recorded.latency is not None
    assert recorded.ids == ("q1", "q2")
    assert np.isnan(recorded.latency[0, 0])  # the arms are sorted: a, then b
    assert recorded.latency[0, 1] == 1.5
    assert np.isnan(recorded.latency[1]).all()
    assert "latency_s: must have 2 entries" in recorded.left_out[0].reason
    assert load(write(tmp_path / "none.jsonl", [a_row(1)])).latency is None
