"""The word that was meant."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

_LONGEST = 128
"""A longer word was meant for none of them."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """ "; did you mean query?" where a known word is close; empty where none is.

    >>> did_you_mean("qery", ["query", "arms"]), did_you_mean("zzz", ["query"])
    ('; did you mean query?', '')
    """
    if len(word) > _LONGEST:
        return ""
    by_small = {each.lower(): each for each in known}
    close = get_close_matches(word.lower(), by_small, n=1, cutoff=0.6)
    return f"; did you mean {by_small[close[0]]}?" if close else ""
