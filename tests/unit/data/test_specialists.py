"""The recording that the package brings: what its README says, and every score again."""

from __future__ import annotations

import gzip
import hashlib
import json
import re
from collections import Counter
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np
import pytest

from bandit_service.data.recordings import open_recording
from loadtest.specialists.arms import NAMES
from loadtest.specialists.questions import questions
from loadtest.specialists.scoring import score

_HERE = files("bandit_service.data") / "specialists"


@cache
def _rows() -> list[dict[str, Any]]:
    lines = gzip.decompress((_HERE / "specialists.jsonl.gz").read_bytes()).splitlines()
    return [json.loads(line) for line in lines]


def test_it_is_found_by_name_and_every_row_is_read() -> None:
    recorded = open_recording("specialists")
    assert (recorded.name, len(recorded), recorded.left_out) == ("specialists", len(_rows()), ())
    assert tuple(arm.id for arm in recorded.arms) == NAMES
    assert not np.isnan(recorded.quality).any()


def test_the_readme_names_the_hash_and_the_counts() -> None:
    readme = (_HERE / "README.md").read_text()
    for name in ("specialists.jsonl.gz", "specialists.meta.json"):
        assert hashlib.sha256((_HERE / name).read_bytes()).hexdigest() in readme, name
    told = re.search(r"(\d+) questions of (\d+) kinds, (\d+) arms", readme)
    assert told is not None
    kinds = Counter(row["task"] for row in _rows())
    assert [int(n) for n in told.groups()] == [len(_rows()), len(kinds), len(NAMES)]
    for kind, count in kinds.items():
        right = np.mean([row["quality"] for row in _rows() if row["task"] == kind], axis=0)
        cells = " | ".join([kind, str(count), *(f"{share:.2f}" for share in right)])
        assert f"| {cells} |" in readme


def test_every_stored_answer_scores_what_is_recorded() -> None:
    for row in _rows():
        again = [
            score(row["check"], row["accepted"], row["rejected"], answer)
            for answer in row["answers"]
        ]
        assert again == row["quality"], row["query_id"]


def test_the_generator_asks_these_questions_with_these_keys() -> None:
    meta = json.loads((_HERE / "specialists.meta.json").read_text())
    assert [
        (row["text"], row["task"], row["check"], tuple(row["accepted"]), tuple(row["rejected"]))
        for row in _rows()
    ] == [(q.text, q.task, q.check, q.accepted, q.rejected) for q in questions(meta["seed"])]


def test_the_text_tells_which_and_no_single_arm_does() -> None:
    quality = open_recording("specialists").quality
    assert quality.max(axis=1).mean() > quality.mean(axis=0).max() + 0.3


@pytest.mark.parametrize(
    ("check", "accepted", "rejected", "answer", "expected"),
    [
        ("number", ["1740"], [], "That is 1,740 minutes.", 1),
        ("number", ["1740"], [], "29 hours are 1740 minutes, or 29.0 hours.", 0),
        ("number", ["-3"], [], "−3", 1),
        ("number", ["28.3464"], [], "28.35 m", 1),
        ("number", ["12"], [], "twelve", 0),
        ("phrase", ["cold"], [], "It is Cold.", 1),
        ("phrase", ["cold"], [], "It is colder.", 0),
        ("phrase", ["hay un árbol"], [], "Hay un árbol en la calle.", 1),
        ("phrase", ["hay un árbol"], [], "Hay un arbol.", 0),
        ("phrase", ["positive"], ["negative"], "positive or negative", 0),
        ("phrase", ["a"], [], "", 0),
    ],
)
def test_the_check_is_exact(
    check: str, accepted: list[str], rejected: list[str], answer: str, expected: int
) -> None:
    assert score(check, accepted, rejected, answer) == expected
