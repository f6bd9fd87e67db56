"""A policy that might decide, as people write it: NAME[:PARAMETER=VALUE...]."""

from __future__ import annotations

from typing import Any

import msgspec

import policies


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """A policy that might decide: its name in `policies`, and its parameters."""

    name: str
    parameters: dict[str, Any] = {}

    @property
    def label(self) -> str:
        """Name and parameters, for people.

        >>> Candidate(name="metallm", parameters={"alpha": 0.5}).label
        'metallm:alpha=0.5'
        """
        return ":".join([self.name, *(f"{k}={v}" for k, v in self.parameters.items())])


def split(text: str) -> tuple[str, list[str]]:
    """The name, and each PARAMETER=VALUE after it as text.

    >>> split("river:UCB:delta=0.5")
    ('river:UCB', ['delta=0.5'])
    """
    name, *given = text.split(":")
    if name == "river" and given:
        name = f"{name}:{given.pop(0)}"
    return name, given


def parsed(text: str) -> Candidate:
    """NAME[:PARAMETER=VALUE...], values as JSON or as they are. Raises ValueError.

    >>> parsed("epsilon_greedy:epsilon=0.25").parameters
    {'epsilon': 0.25}
    >>> parsed("river:UCB:delta=0.5").label
    'river:UCB:delta=0.5'
    """
    name, given = split(text)
    parameters: dict[str, Any] = {}
    for one in given:
        key, equals, value = one.partition("=")
        if not equals:
            raise ValueError(f"after the name comes PARAMETER=VALUE, got {one!r}")
        try:
            parameters[key] = msgspec.json.decode(value)
        except msgspec.DecodeError:
            parameters[key] = value
    return checked(Candidate(name=name, parameters=parameters))


def checked(candidate: Candidate) -> Candidate:
    """The candidate, if there is such a policy with such parameters; ValueError or TypeError."""
    if not policies.exists(candidate.name):
        raise ValueError(policies.no_such(candidate.name))
    policies.load(candidate.name, **candidate.parameters)
    return candidate
