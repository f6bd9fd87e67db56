"""One question, and what makes them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random  # noqa: TID251 - of a recording that is made once, from a seed
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked, and how an answer is checked: see `loadtest.specialists.scoring`."""

    task: str
    text: str
    check: str
    accepted: tuple[str, ...]
    rejected: tuple[str, ...] = ()


Made: TypeAlias = Iterator[Question]
Maker: TypeAlias = Callable[[Random], Made]
