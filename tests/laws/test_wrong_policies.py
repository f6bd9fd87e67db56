"""The laws bite: each catches the mistake that it is there for, and no honest policy."""

from __future__ import annotations

import contextlib

import pytest

from bandit_service.testing import laws
from bandit_service.testing.wrong_policies import CAUGHT_BY, Honest

LAWS = laws.all_laws()


@pytest.mark.parametrize("wrong", CAUGHT_BY, ids=lambda wrong: wrong.__name__)
def test_a_wrong_policy_is_caught(wrong: type[Honest]) -> None:
    with pytest.raises(AssertionError):
        LAWS[CAUGHT_BY[wrong]](wrong)


@pytest.mark.parametrize("law", LAWS)
def test_an_honest_policy_is_not(law: str) -> None:
    with contextlib.suppress(laws.NotApplicable):  # it claims nothing that is optional
        LAWS[law](Honest)


def test_every_law_has_caught_somebody() -> None:
    assert set(CAUGHT_BY.values()) == set(LAWS)
