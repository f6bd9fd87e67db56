"""The exact check of an answer. It needs nothing but the recording."""

from __future__ import annotations

import re
from collections.abc import Sequence

_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
_WORD = re.compile(r"[^\W_]+")
_TOLERANCE = 0.005  # of a conversion, whose key is rounded


def score(check: str, accepted: Sequence[str], rejected: Sequence[str], answer: str) -> int:
    """1 if the answer is right, otherwise 0.

    number: the last number in the answer is the accepted one.
    phrase: an accepted phrase stands in the answer in whole words, and no rejected one does.
    """
    if check == "number":
        found = _NUMBER.findall(re.sub(r"(?<=\d),(?=\d{3})", "", answer.replace("−", "-")))
        wanted = float(accepted[0])
        return int(bool(found) and abs(float(found[-1]) - wanted) <= _TOLERANCE * abs(wanted))
    words = _words(answer)
    return int(
        any(_words(phrase) in words for phrase in accepted)
        and not any(_words(phrase) in words for phrase in rejected)
    )


def _words(text: str) -> str:
    """The words in lower case, each between spaces, so that `in` finds whole words only."""
    return f" {' '.join(_WORD.findall(text.lower()))} "
