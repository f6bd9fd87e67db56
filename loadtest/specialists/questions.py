"""Twelve kinds of questions, worded in many ways. Equal seeds give equal ones."""

from __future__ import annotations

from random import Random  # noqa: TID251 - of a recording that is made once, from a seed

from loadtest.specialists import computed, language
from loadtest.specialists.question import Maker, Question

_PER_KIND = 50
_TRIES = 100  # per question, until its text is a new one


def questions(seed: int) -> list[Question]:
    """All of them, shuffled."""
    random = Random(seed)  # noqa: S311 - nothing here is a secret
    found: dict[str, Question] = {}
    for make in _KINDS:
        made = make(random)
        count = 0
        for _ in range(_PER_KIND * _TRIES):
            question = next(made, None)
            if question is None or count == _PER_KIND:
                break
            if question.text not in found:
                found[question.text] = question
                count += 1
    order = list(found.values())
    random.shuffle(order)
    return order


_KINDS: tuple[Maker, ...] = (
    computed.arithmetic,
    computed.units,
    computed.dates,
    language.translation,
    language.antonyms,
    language.is_a,
    language.spelling,
    computed.code,
    language.sentiment,
    language.capitals,
    language.proverbs,
    language.reading,
)
