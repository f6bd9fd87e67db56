"""What of a request is embedded, and what a client's own embedding must be."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from policies import Vector

NORM_TOLERANCE = 1e-2
CHARS_PER_TOKEN = 4


def text_of_messages(messages: Sequence[Mapping[str, Any]]) -> str:
    """The text to embed of a chat: the user's turns, newest first, joined by a newline.

    Models cut a long text at its end, so the newest turn survives. Of a turn whose content is a
    list, the parts `{"type": "text", "text": …}` count. System, assistant and tool turns are
    left out: they tell little of what is asked, and a long system prompt would make all queries
    look alike. ValueError for messages of another form, or without any text of the user's.

    >>> text_of_messages([{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "?"},
    ...                   {"role": "user", "content": "Now in French"}])
    'Now in French\\nHi'
    """
    turns = []
    for i, message in enumerate(messages):
        role = message.get("role")
        if not isinstance(role, str):
            raise ValueError(f"[{i}].role: must be a string")
        text = _text_of(message.get("content"), i)
        if role == "user" and text.strip():
            turns.append(text)
    if not turns:
        raise ValueError("no turn of role user has a text")
    return "\n".join(reversed(turns))


def _text_of(content: Any, i: int) -> str:
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise ValueError(f"[{i}].content: must be a string or a list of parts")
    texts = []
    for part in content:
        if not isinstance(part, dict):
            raise ValueError(f"[{i}].content: a part must be an object")
        if part.get("type") == "text":
            if not isinstance(part.get("text"), str):
                raise ValueError(f"[{i}].content: the text of a part must be a string")
            texts.append(part["text"])
    return "\n".join(texts)


def estimate_tokens(chars: int) -> int:
    """About how many tokens so many characters are: ⌈chars / 4⌉.

    Good enough for a cost estimate, which is corrected by what is billed.

    >>> estimate_tokens(9)
    3
    """
    return -(-chars // CHARS_PER_TOKEN)


def check_embedding(values: Sequence[float] | NDArray[Any], dim: int) -> Vector:
    """A client's embedding as a unit float32 vector.

    ValueError unless it has `dim` finite numbers and a norm within 1 % of 1; what is left of
    that difference is divided out.
    """
    wide = np.asarray(values, np.float64)
    if wide.shape != (dim,):
        raise ValueError(f"embedding: must have {dim} numbers, got {wide.size}")
    norm = math.sqrt(wide.dot(wide))
    if not abs(norm - 1.0) <= NORM_TOLERANCE:
        if not np.isfinite(wide).all():
            raise ValueError("embedding: must be finite numbers, got NaN or infinity")
        raise ValueError(
            f"embedding: must have norm 1 to within {NORM_TOLERANCE:g}, got {norm:.6g}"
        )
    return (wide / norm).astype(np.float32)


def check_embeddings(values: Sequence[bytes], dim: int) -> Vector | None:
    """(n, d) embeddings of float32 bytes, each to the same bits as by `check_embedding`; None if it
    refuses one of them.
    """
    if any(len(each) != 4 * dim for each in values):
        return None
    wide = np.frombuffer(b"".join(values), "<f4").reshape(len(values), dim).astype(np.float64)
    norms = np.sqrt([row.dot(row) for row in wide])
    if not (np.abs(norms - 1.0) <= NORM_TOLERANCE).all():
        return None
    return (wide / norms[:, None]).astype(np.float32)
