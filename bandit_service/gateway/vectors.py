"""Whether an answer has the requested vectors, of the right length. Pure."""

from __future__ import annotations

import binascii
from collections.abc import Mapping
from typing import Any

_BYTES = 4
"""Of one number, in a vector that is sent as base64 of float32."""


def missing(answer: Mapping[str, Any], asked: object) -> str:
    """An error text if an answer has fewer vectors than texts were sent; "" if each has one.

    >>> missing({"data": [{"embedding": [0.1]}]}, "a text"), missing({"embeddings": [[0.1]]}, "it")
    ('', 'the answer has no vectors')
    >>> missing({"data": [{"embedding": [0.1]}, {"embedding": None}]}, ["one", "two"])
    'the answer has 1 of 2 vectors'
    """
    data = answer.get("data")
    whole = (each for each in data if isinstance(each, dict)) if isinstance(data, list) else ()
    found = sum(1 for each in whole if each.get("embedding"))
    if not found:
        return "the answer has no vectors"
    texts = 1
    if isinstance(asked, list) and not all(isinstance(each, int) for each in asked):
        texts = len(asked)
    return "" if found >= texts else f"the answer has {found} of {texts} vectors"


def wrong_length(answer: Mapping[str, Any], dimensions: int | None) -> str:
    """An error text for the first vector of another length; "" if all are right, or no length is
    known.

    >>> wrong_length({"data": [{"embedding": [0.1, 0.2]}]}, 3)
    'a vector of it has 2 numbers, and its arm has dimensions = 3'
    >>> wrong_length({"data": [{"embedding": "AACAPwAAgD8="}]}, 2)
    ''
    """
    data = answer.get("data")
    if dimensions is None or not isinstance(data, list):
        return ""
    for each in data:
        length = _length(each.get("embedding")) if isinstance(each, dict) else None
        if length is not None and length != dimensions:
            return f"a vector of it has {length} numbers, and its arm has dimensions = {dimensions}"
    return ""


def _length(vector: object) -> int | None:
    if isinstance(vector, list):
        return len(vector)
    if not isinstance(vector, str):
        return None
    try:
        return len(binascii.a2b_base64(vector)) // _BYTES
    except ValueError:
        return None
