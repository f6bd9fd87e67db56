"""A file without an underscore is a policy, named as its file. There is no list to edit.

`add_directory` adds files that stand elsewhere. A package that is installed may bring a policy by
the entry-point group `bandit_service.policies`, NAME = "module:Class". Besides, `river:NAME` is a
policy of `river.bandit`, a class of the file `_river_policies`.
"""

from __future__ import annotations

import dataclasses
import difflib
import importlib
import importlib.metadata
import pkgutil
import sys
import typing
from collections.abc import Sequence
from functools import cache
from types import ModuleType
from typing import Any

from policies._protocol import Policy

RIVER = "river:"
GROUP = "bandit_service.policies"


def _path() -> list[str]:
    """The directories that this package is made of."""
    return sys.modules[__package__ or "policies"].__path__  # type: ignore[return-value]


def add_directory(directory: str) -> None:
    """Make every file of `directory` without a leading underscore a policy, named as its file.

    ValueError where a name is taken. The files are code, which is run when one is loaded.
    """
    if directory in _path():
        return
    taken = {*_of_files(), *_installed()}
    for module in pkgutil.iter_modules([directory]):
        if module.name in taken:
            raise ValueError(f"{module.name}.py: there is a policy of this name already")
    _path().append(directory)


def directories() -> tuple[str, ...]:
    """The directories that were added, for other processes to add."""
    return tuple(_path()[1:])


def names() -> tuple[str, ...]:
    """Every policy's name, sorted: files without a leading underscore, and installed ones."""
    return tuple(sorted({*_of_files(), *_installed()}))


def _of_files() -> list[str]:
    found = (module.name for module in pkgutil.iter_modules(_path()))
    return [name for name in found if not name.startswith("_")]


@cache
def _installed() -> dict[str, importlib.metadata.EntryPoint]:
    """By name; what this package has itself cannot be replaced."""
    found = importlib.metadata.entry_points(group=GROUP)
    return {each.name: each for each in found if each.name not in _of_files()}


def river_names() -> tuple[str, ...]:
    """`river:NAME` for each policy of `river.bandit`, sorted. river itself is not imported."""
    return tuple(sorted(RIVER + name for name in _adapter().__all__))


def exists(name: str) -> bool:
    """Whether there is a policy of this name, river's included."""
    return name in names() or (name.startswith(RIVER) and name in river_names())


def there_are(first: Sequence[str] | None = None) -> str:
    """Every policy's name in words, as errors list them; `first` in place of the files' names."""
    of_river = ", ".join(name.removeprefix(RIVER) for name in river_names())
    return f"{', '.join(first or names())} and {RIVER}NAME, NAME one of {of_river}"


def no_such(name: str) -> str:
    """What to say of a name that no policy has: which was meant, and which there are."""
    close = difflib.get_close_matches(name, (*names(), *river_names()), n=1, cutoff=0.7)
    meant = f"; did you mean {close[0]}?" if close else ""
    return f"no policy named {name!r}{meant}; expected one of {there_are()}"


def policy_class(name: str) -> type[Policy[Any]]:
    """The one class that the file `name` exports in `__all__`, or that is installed by that name.

    Unknown names raise ValueError.
    """
    if not exists(name):
        raise ValueError(f"policy: {no_such(name)}")
    if name.startswith(RIVER):
        adapted: type[Policy[Any]] = getattr(_adapter(), name.removeprefix(RIVER))
        return adapted
    if name in _installed():
        installed: type[Policy[Any]] = _installed()[name].load()
        return installed
    module = importlib.import_module(f"policies.{name}")
    (exported,) = module.__all__
    found: type[Policy[Any]] = getattr(module, exported)
    return found


def parameters_of(name: str) -> list[str]:
    """The names of the parameters that `load` takes for this policy."""
    return [field.name for field in dataclasses.fields(policy_class(name))]  # type: ignore[arg-type]


def _adapter() -> ModuleType:
    return importlib.import_module("policies._river_policies")


def load(name: str, **parameters: Any) -> Policy[Any]:
    """The policy `name` with `parameters`; ValueError names an unknown or bad parameter."""
    cls = policy_class(name)
    allowed = parameters_of(name)
    kinds = typing.get_type_hints(cls)
    for parameter, value in parameters.items():
        if parameter not in allowed:
            there_are = f"expected one of {', '.join(allowed)}" if allowed else "it has none"
            close = difflib.get_close_matches(parameter, allowed, n=1)
            meant = f"; did you mean {close[0]}?" if close else ""
            raise ValueError(f"{parameter}: {name} has no such parameter{meant}; {there_are}")
        _check_kind(parameter, value, typing.get_args(kinds[parameter]) or (kinds[parameter],))
    return cls(**parameters)


def _check_kind(name: str, value: Any, kinds: tuple[type, ...]) -> None:
    """Parameters come from files and over the wire, where nothing has checked their types."""
    if type(value) in kinds or (float in kinds and type(value) is int):
        return
    words = {int: "a whole number", float: "a number", bool: "true or false", str: "a string"}
    wanted = " or ".join(words.get(kind, "nothing") for kind in kinds)
    raise ValueError(f"{name}: must be {wanted}, got {value!r:.40}")
