"""How a part of the world is folded: one type, whose methods say which events they take in."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias, TypeVar

from bandit_service.core import events as ev
from bandit_service.core.resolved import Resolved

S = TypeVar("S")
E = TypeVar("E")
F = TypeVar("F")
M = TypeVar("M", bound="Taker")
Taker: TypeAlias = Callable[[Any, Any, Resolved], None]
N = TypeVar("N", bound=Callable[..., None])
TakerOfMany: TypeAlias = Callable[[Any, Sequence[ev.Decided], Sequence[Resolved]], None]
_MARK, _MANY = "_takes", "_takes_many"
TEACHING = (ev.Rewarded, ev.Compared, ev.DecisionsExpired, ev.DriftDetected, ev.PriorWeighed)
"""The events that have lessons."""


def takes(
    kind: type[E], other: type[F] | None = None
) -> Callable[[Callable[[S, E | F, Resolved], None]], Callable[[S, E | F, Resolved], None]]:
    """Mark a method of a feature: it takes in every event of this kind, with what it refers to.

    other: a second kind that it takes in, too.
    """
    return _marked(kind) if other is None else _marked(kind, other)


def takes_lessons(method: M) -> M:
    """Mark a method of a feature: it takes in every event that teaches."""
    mark: Callable[[M], M] = _marked(*TEACHING)
    return mark(method)


def takes_many(method: N) -> N:
    """Mark a method of a feature: it takes in decisions that follow one another, in the place of
    the method that takes in each, and to the same bits.
    """
    setattr(method, _MANY, True)
    return method


def taker_of_many(feature: type[Any]) -> TakerOfMany | None:
    """What a class takes in many decisions by; None where it takes in one by one."""
    marked = (method for method in vars(feature).values() if hasattr(method, _MANY))
    return next(marked, None)


def takers(feature: type[Any]) -> Iterator[tuple[type[Any], Taker]]:
    """What a class takes in, and by which method, in the order of the methods; none of others."""
    for method in vars(feature).values():
        for kind in getattr(method, _MARK, ()):
            yield kind, method


def _marked(*kinds: type[Any]) -> Callable[[Any], Any]:
    def mark(method: Any) -> Any:
        setattr(method, _MARK, (*kinds, *getattr(method, _MARK, ())))
        return method

    return mark
