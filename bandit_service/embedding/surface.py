"""The surface features of a text: nineteen cheap numbers in addition to its embedding.

An embedding says what a text is about, and little of its form: whether it is a question, code, a
list of options, mathematics, long. Each number is centred, scaled by its spread over ordinary
queries, cut to ±3, and kept as a whole number of 1/40, so that what is logged is what was used.
Letters, digits and spaces are those of ASCII, so that no version of Unicode changes a number.
"""

from __future__ import annotations

import math
import re
from array import array

from policies import SURFACE

_HEAD = 2000
"""Of a longer text only the beginning is looked at, but for its length and its end."""
_STEPS, _CUT = 40, 120
_QUESTION = re.compile(rb"\s*(?:who|what|when|where|which|why|how|is|are|do|does|did|can)\b")
# "A) " or "(1. " after a space: it begins with what is rare, which a search is fast at
_OPTION = re.compile(rb"[.)]\s(?:(?<=\s[A-Da-d1-4][.)]\s)|(?<=\s\([A-Da-d1-4][.)]\s))")
_DIGITS, _CAPITALS = b"0123456789", b"ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_MATHS, _MARKS, _SPACES = rb"\${}^_", rb"()[]=;:<>+*/", b" \t\n\r\v\f"
_BEGINS = bytes(range(192, 256))
"""The first bytes of characters that are no ASCII."""
_FEATURES = (  # mean and spread over the queries of several recordings
    (5.63, 0.93),  # log(1 + characters)
    (3.92, 0.88),  # log(1 + words)
    (0.031, 0.053),  # share of digits
    (0.675, 0.468),  # has a question mark
    (0.286, 0.452),  # ends with one
    (1.27, 1.08),  # log(1 + lines)
    (0.048, 0.11),  # commas a word
    (0.037, 0.188),  # begins in lower case
    (0.012, 0.035),  # share of marks of mathematics
    (0.013, 0.027),  # share of marks of code
    (0.134, 0.34),  # has a word of code
    (0.181, 0.385),  # begins as a question
    (0.475, 0.149),  # characters a word, in tens
    (0.035, 0.028),  # share of capitals
    (0.505, 0.5),  # has options to choose from
    (0.074, 0.262),  # has an underscore
    (0.001, 0.006),  # share of characters that are no ASCII
    (0.138, 0.344),  # ends as a sentence
    (0.767, 0.165),  # share of words that come once
)
assert len(_FEATURES) == SURFACE


def surface(text: str) -> bytes:
    """SURFACE signed bytes, 40 for one spread above the mean; `events.surface_of` reads them.

    >>> list(surface("What is 2 + 2?")[2:5])
    [84, 28, 63]
    """
    head = text[:_HEAD].encode("utf-8", "replace")
    end = text[-64:].encode("utf-8", "replace").rstrip()[-1:]
    long, size, low = min(len(text), _HEAD), len(head), head.lower()
    n = max(long, 1)
    words = low.split()
    k = max(len(words), 1)

    def share(marks: bytes) -> float:
        return (size - len(head.translate(None, marks))) / n

    values = (
        math.log1p(len(text)),
        math.log1p(len(words) * len(text) / n),
        share(_DIGITS),
        b"?" in head,
        end == b"?",
        math.log1p(head.count(b"\n")),
        head.count(b",") / k,
        b"a" <= head[:1] <= b"z",
        share(_MATHS),
        share(_MARKS),
        b"return" in low
        or b"function" in low
        or b"import " in low
        or b"def " in low
        or b"```" in low,
        _QUESTION.match(low) is not None,
        (long - size + len(head.translate(None, _SPACES))) / k / 10,
        share(_CAPITALS),
        _OPTION.search(b" " + head) is not None,
        b"_" in head,
        0.0 if size == long else share(_BEGINS),
        end in (b".", b"!"),
        len(set(words)) / k,
    )
    steps = [
        round((value - mean) * _STEPS / spread)
        for value, (mean, spread) in zip(values, _FEATURES, strict=True)
    ]
    return array("b", [max(-_CUT, min(_CUT, step)) for step in steps]).tobytes()
