"""A parameter takes what its policy's page says, and nothing beyond."""

from __future__ import annotations

import dataclasses
import math
import re
from pathlib import Path
from typing import Any

import pytest

import policies

_PAGES = Path(__file__).parents[3] / "docs" / "policies"
_ROW = re.compile(r"^\| `(\w+)` \| [^|]+ \| ([\[(])([^,|]+), ([^,|]+)([\])])(?= )", re.MULTILINE)
_DIGITS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻−", "0123456789--")


def _number(text: str) -> float:
    """Of `10⁻¹²`, `2⁵³`, `4096` or `0.5`; a whole one is exact."""
    power = re.fullmatch(r"(−?)(\d+)([⁻⁰¹²³⁴⁵⁶⁷⁸⁹]+)", text)
    if power:
        exponent = int(power[3].translate(_DIGITS))
        size = float(f"1e{exponent}") if exponent < 0 else int(power[2]) ** exponent
        return -size if power[1] else size
    plain = text.translate(_DIGITS)
    return int(plain) if plain.lstrip("-").isdigit() else float(plain)


RANGES = [
    (name, parameter, first + last, _number(low), _number(high))
    for name in policies.names()
    for parameter, first, low, high, last in _ROW.findall(
        (_PAGES / f"{name}.md").read_text(encoding="utf-8")
    )
]


@pytest.mark.parametrize(("name", "parameter", "ends", "low", "high"), RANGES)
def test_a_parameter_takes_what_its_page_says(
    name: str, parameter: str, ends: str, low: float, high: float
) -> None:
    cls: Any = policies.policy_class(name)
    default = {each.name: each.default for each in dataclasses.fields(cls)}[parameter]
    kind = int if type(default) is int else float
    below = low - 1 if kind is int else math.nextafter(low, -math.inf)
    beyond = high + 1 if kind is int else math.nextafter(high, math.inf)
    good, bad = [low, high], [below, beyond]
    for end, value in zip(ends, (low, high), strict=True):
        if end in "()":
            good.remove(value)
            bad.append(value)
    for value in good:
        policies.load(name, **{parameter: kind(value)})
    for value in bad:
        with pytest.raises(ValueError, match=f"^{parameter}: must be a number "):
            policies.load(name, **{parameter: kind(value)})


@pytest.mark.parametrize("name", policies.names())
def test_every_number_has_a_range_on_the_page(name: str) -> None:
    cls: Any = policies.policy_class(name)
    told = {parameter for policy, parameter, *_ in RANGES if policy == name}
    defaults = {each.name: each.default for each in dataclasses.fields(cls)}
    assert told == {each for each, of in defaults.items() if type(of) in (int, float) or of is None}
