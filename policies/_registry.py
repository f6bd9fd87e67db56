"""A file without an underscore is a policy, named as its file. There is no list to edit."""

from __future__ import annotations

import dataclasses
import importlib
import pkgutil
from typing import Any

import policies
from policies._protocol import Policy


def names() -> tuple[str, ...]:
    """Every policy's name, sorted: the modules of this package without a leading underscore."""
    found = (module.name for module in pkgutil.iter_modules(policies.__path__))
    return tuple(sorted(name for name in found if not name.startswith("_")))


def policy_class(name: str) -> type[Policy[Any]]:
    """The one class that the file `name` exports in `__all__`. Unknown names raise ValueError."""
    if name not in names():
        raise ValueError(f"policy: no policy named {name!r}; there are {', '.join(names())}")
    module = importlib.import_module(f"policies.{name}")
    (exported,) = module.__all__
    found: type[Policy[Any]] = getattr(module, exported)
    return found


def load(name: str, **parameters: Any) -> Policy[Any]:
    """The policy `name` with `parameters`; ValueError names an unknown or bad parameter."""
    cls = policy_class(name)
    allowed = [field.name for field in dataclasses.fields(cls)]  # type: ignore[arg-type]
    for parameter in parameters:
        if parameter not in allowed:
            there_are = ", ".join(allowed) or "none"
            raise ValueError(f"{parameter}: {name} has no such parameter; there are {there_are}")
    return cls(**parameters)
