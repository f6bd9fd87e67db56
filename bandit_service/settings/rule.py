"""What a setting is for and which values it takes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Rule:
    """What a setting is for and which values it takes; bounds are inclusive.

    A setting whose default is None is a number that need not be there.
    """

    help: str
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()


def setting(default: Any, help: str, **bounds: Any) -> Any:  # noqa: A002 - the word is right
    """A field of a section, with its default and its rule."""
    return field(default=default, metadata={"rule": Rule(help, **bounds)})
