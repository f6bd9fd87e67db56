"""What the surface of a text tells: nineteen cheap numbers beside its embedding.

An embedding says what a text is about, and little of its form: whether it is a question, code, a
list of options, mathematics, long. Each number is centred, scaled by its spread over ordinary
queries, cut to ±3, and kept as a whole number of 1/40, so that what is logged is what was used.
"""

from __future__ import annotations

import math
import re

import numpy as np

from policies import SURFACE

_HEAD = 2000
"""Of a longer text only the beginning is looked at, but for its length and its end."""
_STEPS, _CUT = 40, 120
_QUESTION = re.compile(
    r"\s*(who|what|when|where|which|why|how|is|are|do|does|did|can)\b", re.IGNORECASE
)
_OPTION = re.compile(r"(^|\s)\(?[A-Da-d1-4][.)]\s")
_CODE = re.compile(r"def |function|import |```|return", re.IGNORECASE)
_MATHS, _MARKS = rb"\${}^_", rb"()[]=;:<>+*/"
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


def surface(text: str) -> bytes:
    """SURFACE signed bytes, 40 for one spread above the mean; `events.surface_of` reads them.

    >>> np.frombuffer(surface("What is 2 + 2?"), np.int8)[2:5].tolist()
    [84, 28, 63]
    """
    head = text[:_HEAD]
    n, end = max(len(head), 1), text[-64:].rstrip()[-1:]
    words = head.split()
    k = max(len(words), 1)
    octets = np.frombuffer(head.encode("utf-8", "replace"), np.uint8)
    counts = np.bincount(octets, minlength=256).tolist()
    values = (
        math.log1p(len(text)),
        math.log1p(len(words) * len(text) / n),
        sum(counts[48:58]) / n,
        counts[63] > 0,
        end == "?",
        math.log1p(counts[10]),
        counts[44] / k,
        head[:1].islower(),
        sum(map(counts.__getitem__, _MATHS)) / n,
        sum(map(counts.__getitem__, _MARKS)) / n,
        _CODE.search(head) is not None,
        _QUESTION.match(head) is not None,
        sum(map(len, words)) / k / 10,
        sum(counts[65:91]) / n,
        _OPTION.search(head) is not None,
        counts[95] > 0,
        sum(counts[192:]) / n,
        end in (".", "!"),
        len({word.lower() for word in words}) / k,
    )
    scaled = (
        round(_STEPS * (value - mean) / spread)
        for value, (mean, spread) in zip(values, _FEATURES, strict=True)
    )
    return bytes(max(-_CUT, min(_CUT, each)) & 0xFF for each in scaled)


assert len(_FEATURES) == SURFACE
