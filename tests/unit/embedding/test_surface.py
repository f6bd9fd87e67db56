"""Surface features of a text: what each says, how far it goes, and that no text has none."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bandit_service.core.events import surface_of
from bandit_service.embedding import surface
from policies import SURFACE

_NAMES = (
    *("characters", "words", "digits", "asks", "ends_asking", "lines", "commas", "lower"),
    *("maths", "marks", "code", "question", "long_words", "capitals", "options"),
    *("underscore", "foreign", "ends_saying", "unique"),
)


def _steps(text: str) -> dict[str, int]:
    return dict(zip(_NAMES, np.frombuffer(surface(text), np.int8).tolist(), strict=True))


def test_values_computed_by_hand() -> None:
    told = _steps("What is 2 + 2?")
    # 14 characters, 5 words, 2 digits: 40 * (value - mean) / spread, whole and within +-120
    assert told["digits"] == round(40 * (2 / 14 - 0.031) / 0.053)
    assert told["asks"] == round(40 * (1 - 0.675) / 0.468)
    assert told["ends_asking"] == round(40 * (1 - 0.286) / 0.452)
    assert told["words"] == round(40 * (np.log(6) - 3.92) / 0.88)
    assert told["unique"] == round(40 * (5 / 5 - 0.767) / 0.165)
    assert told["code"] == round(40 * (0 - 0.134) / 0.34)


@pytest.mark.parametrize(
    ("name", "without", "with_it"),
    [
        ("code", "Add two numbers.", "def add(a, b): add two numbers."),
        ("options", "Which is right?", "Which is right? (A) this (B) that"),
        ("maths", "The sum of x", "$\\sum_{x}$ of x"),
        ("foreign", "Was ist das", "Wäs ißt däs"),
        ("lower", "Tell me", "tell me"),
        ("lines", "a b", "a\nb\nc"),
        ("capitals", "nasa", "NASA"),
        ("underscore", "snake case", "snake_case"),
        ("ends_saying", "Stop", "Stop."),
    ],
)
def test_each_tells_what_it_is_named_for(name: str, without: str, with_it: str) -> None:
    assert _steps(with_it)[name] > _steps(without)[name]


@given(st.text())
def test_any_text_has_features_within_three_spreads(text: str) -> None:
    features = surface_of(surface(text))
    assert features.shape == (SURFACE,)
    assert np.abs(features).max() <= 3 / SURFACE**0.5 + 1e-6
    assert float(np.linalg.norm(features)) <= 3.0 + 1e-6


def test_no_text_has_none() -> None:
    assert not surface_of(b"").any()


def test_a_long_text_is_told_by_its_beginning_and_its_length() -> None:
    short, long = "word " * 400, "word " * 40_000
    one, other = _steps(short), _steps(long)
    assert other["characters"] > one["characters"]
    assert {k: v for k, v in one.items() if k not in ("characters", "words")} == {
        k: v for k, v in other.items() if k not in ("characters", "words")
    }


def test_no_version_of_unicode_changes_a_number() -> None:
    """What a Python calls a letter, a digit or a space depends on its tables, but for ASCII."""
    plain = _steps("x 5 aa")
    for other in ("\u00e9", "\u00c9", "\u0665", "\u00a0", "\U0001e030"):
        told = _steps(f"x 5 {other}{other}")
        assert {k for k in told if told[k] != plain[k]} <= {"foreign"}


def test_no_rounding_hangs_on_the_last_digit_of_a_logarithm() -> None:
    """So that a machine whose `log1p` is another in its last digit has the same numbers."""
    logs = np.log1p(np.arange(200_001))
    for mean, spread in ((5.63, 0.93), (3.92, 0.88), (1.27, 1.08)):
        steps = 40 * (logs - mean) / spread
        assert np.abs(steps - np.floor(steps) - 0.5).min() > 1e-9
