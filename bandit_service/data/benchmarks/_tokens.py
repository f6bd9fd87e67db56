"""How long a text is: as cl100k_base counts it where tiktoken is installed, else an estimate."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from functools import cache
from typing import Any, TypeAlias

from bandit_service.data.rows import BadRecording
from bandit_service.embedding import estimate_tokens

Count: TypeAlias = Callable[[str], int]
_ENCODING = "cl100k_base"


@cache
def counting() -> tuple[Count, str]:
    """The counter of tokens, and its name.

    Raises BadRecording if tiktoken cannot load its vocabulary.
    """
    if importlib.util.find_spec("tiktoken") is None:
        return _estimated, "estimated from the length of the text (no tiktoken)"
    try:
        encoding: Any = importlib.import_module("tiktoken").get_encoding(_ENCODING)
    except (OSError, ValueError) as error:  # what it downloads at its first use
        raise BadRecording(
            f"tiktoken: cannot load {_ENCODING}: {error}; without the package tokens are estimated"
        ) from None

    def exact(text: str) -> int:
        return len(encoding.encode(text, disallowed_special=()))

    return exact, _ENCODING


def _estimated(text: str) -> int:
    return estimate_tokens(len(text))
