"""Functions of a namespace, a group of tools of the Responses API, as plain functions. Pure.

A chat completion has no groups, so a function is called by both names there: `crm__find`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

from bandit_service.gateway.providers._base import Json

Spaces: TypeAlias = Mapping[str, tuple[str, str]]
"""The namespace and the function by the name of both."""
_ALLOWED = re.compile(r"[a-zA-Z0-9_-]{1,64}")


def joined(namespace: Any, name: str) -> str:
    """The name under which a function is called where there are no namespaces.

    >>> joined("crm", "find"), joined(None, "find")
    ('crm__find', 'find')
    """
    return f"{namespace}__{name}" if isinstance(namespace, str) and namespace else name


def may_be_called(name: str) -> bool:
    """Whether providers accept a function of this name."""
    return _ALLOWED.fullmatch(name) is not None


def spaces_of(asked: Json) -> Spaces:
    """The functions of all namespaces of a request."""
    return {joined(*both): both for both in _functions(asked.get("tools"))}


def _functions(tools: Any) -> Iterator[tuple[str, str]]:
    for tool in tools if isinstance(tools, list) else ():
        if isinstance(tool, Mapping) and tool.get("type") == "namespace":
            inside = tool.get("tools")
            for each in inside if isinstance(inside, list) else ():
                if isinstance(each, Mapping):
                    yield str(tool.get("name")), str(each.get("name"))
