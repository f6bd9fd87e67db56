"""The fields of a request that an arm may set, by their names there and in `ArmRequest`. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from bandit_service.core.arm_request import ArmRequest, effort_in_words

Json = dict[str, Any]


class Asks(msgspec.Struct, frozen=True):
    """The values of an `ArmRequest`'s fields in one request;

    None for a field that it does not set.
    """

    reasoning_effort: Any = None
    thinking_budget: Any = None
    output_limit: Any = None
    temperature: Any = None
    service_tier: Any = None

    @property
    def effort(self) -> str:
        """How much the model should reason, for the record."""
        return effort_in_words(self.reasoning_effort, self.thinking_budget)

    def differs(self, sent: Asks) -> str:
        """The first field whose value differs in another request; "" if there is none.

        The limit that is sent may be larger, since thinking is added to it.
        """
        for name in ("reasoning_effort", "thinking_budget", "temperature", "service_tier"):
            said = getattr(self, name)
            if said is not None and said != getattr(sent, name):
                return name
        mine, theirs = self.output_limit, sent.output_limit
        if isinstance(mine, int) and isinstance(theirs, int) and theirs < mine:
            return "output_limit"
        return ""


def merged(body: Mapping[str, Any], extra: Mapping[str, Any]) -> Json:
    """A request with further fields; a table in both is merged, of anything else `extra` counts.

    >>> merged({"a": {"b": 1, "c": 2}, "d": 3}, {"a": {"c": 4}, "d": 5})
    {'a': {'b': 1, 'c': 4}, 'd': 5}
    """
    found = dict(body)
    for name, value in extra.items():
        there = found.get(name)
        if isinstance(there, Mapping) and isinstance(value, Mapping):
            value = merged(there, value)
        found[name] = value
    return found


def limited(limit: Any, request: ArmRequest) -> Any:
    """The tokens of an answer: the smaller of what the client and the arm say."""
    most = request.output_limit
    if most is None:
        return limit
    usable = isinstance(limit, int) and not isinstance(limit, bool)
    return min(limit, most) if usable else most


def plain_fields(request: ArmRequest) -> Json:
    """The fields whose name and meaning are the same in every dialect."""
    given = {"temperature": request.temperature, "service_tier": request.service_tier}
    return {name: value for name, value in given.items() if value is not None}
