"""A file without an underscore is a policy, named as its file."""

from __future__ import annotations

from pathlib import Path

import pytest

import policies
from policies.fixed import Fixed


def test_names_are_the_files_without_an_underscore() -> None:
    found = Path(policies.__file__).parent.glob("*.py")
    assert list(policies.names()) == sorted(p.stem for p in found if not p.stem.startswith("_"))


def test_load_makes_a_policy_of_its_parameters() -> None:
    assert policies.load("fixed", arm="large") == Fixed(arm="large")


@pytest.mark.parametrize("name", ["unheard_of", "_linear", "fixed.py", ""])
def test_an_unknown_policy_is_refused_with_those_that_there_are(name: str) -> None:
    with pytest.raises(ValueError, match=r"^policy: no policy named .*; expected one of eagle, "):
        policies.load(name)


def test_an_unknown_parameter_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(
        ValueError, match=r"^alpha: fixed has no such parameter; expected one of arm$"
    ):
        policies.load("fixed", alpha=1.0)
    with pytest.raises(ValueError, match=r"^alpha: uniform has no such parameter; it has none"):
        policies.load("uniform", alpha=1.0)


def test_a_whole_number_is_a_number() -> None:
    assert policies.load("metallm", alpha=1) == policies.load("metallm", alpha=1.0)
