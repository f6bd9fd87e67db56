"""Whether vectors are as long as their arm is configured to make them. Pure."""

from __future__ import annotations

import binascii
from collections.abc import Mapping
from typing import Any

_BYTES = 4
"""Of one number, in a vector that is sent as base64 of float32."""


def wrong_length(answer: Mapping[str, Any], dimensions: int | None) -> str:
    """How the first vector of another length is wrong; "" if all are right, or none is known.

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
