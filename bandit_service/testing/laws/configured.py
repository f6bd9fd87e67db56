"""What a policy is configured by: parameters with defaults, documented and refused by name."""

from __future__ import annotations

import dataclasses
import math
import re
from typing import Any

import numpy as np

from bandit_service.testing import events as made
from bandit_service.testing.laws.parts import (
    REFUSALS,
    Factory,
    distribution,
    folded,
    parameters_of,
    wrong_values,
)


def bad_parameters_are_refused_by_name(make: Factory) -> None:
    """Every number has bounds: outside them is a ValueError that names it; inside, it works.

    A word is one of those allowed, or works whatever it is.
    """
    policy = make()
    past, arms = made.history(12), made.arms_of(made.IDS)
    for name, kinds in parameters_of(policy):
        if not kinds & {int, float, str}:
            continue
        refused = []
        for value in wrong_values(kinds):
            changed, refusal = policy, ""
            try:
                changed = dataclasses.replace(policy, **{name: value})  # type: ignore[type-var]
            except ValueError as error:
                refusal = f"refused: {error}"
            if refusal:
                assert name in refusal, f"{name}={value} was refused without its name: {refusal}"
                refused.append(value)
                continue
            unbounded = isinstance(value, float) and not math.isfinite(value)
            assert not unbounded, f"{name}={value} was accepted"
            with np.errstate(over="raise", invalid="raise", divide="raise"):
                try:
                    state = folded(changed, past)
                    distribution(changed, state, made.context_of(1), arms)
                except REFUSALS as error:
                    raise AssertionError(f"{name}={value} was accepted, then {error!r}") from error
        assert refused or str in kinds, f"{name} has no bounds"


def every_parameter_has_a_default_and_is_documented(make: Factory) -> None:
    """The class is a frozen dataclass; it can be made of nothing; its docstring names them all."""
    cls: Any = type(make())
    frozen = getattr(getattr(cls, "__dataclass_params__", None), "frozen", False)
    assert frozen, f"{cls.__name__} is not a frozen dataclass"
    docstring = cls.__dict__.get("__doc__") or ""
    for field in dataclasses.fields(cls):
        missing = (dataclasses.MISSING, dataclasses.MISSING)
        assert (field.default, field.default_factory) != missing, f"{field.name} has no default"
        documented = re.search(rf"^ *(\w+, )*{field.name}(, \w+)*:", docstring, re.MULTILINE)
        assert documented, f"{cls.__name__} does not document {field.name}"
