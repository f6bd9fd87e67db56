"""One row of the table of paths, from which everything about paths is read."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import msgspec
from aiohttp import web

from bandit_service.core.errors import ServiceError

Handler: TypeAlias = Callable[[web.Request], Awaitable[web.StreamResponse]]
Method: TypeAlias = Literal["GET", "PUT", "POST", "PATCH", "DELETE"]
Scope: TypeAlias = Literal[
    "", "decide", "reward", "read", "texts", "admin", "stream", "metrics", "totals"
]
"""The scope that a key must have: "" none;

"stream" is checked for each message; "metrics" is `read` unless metrics are open; "totals" is
`read` of a key for all tenants, since the answer is computed from all their outcomes.
"""


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter of a request, outside its body."""

    name: str
    place: Literal["path", "query", "header"]
    schema: Mapping[str, Any]
    description: str
    example: Any


@dataclass(frozen=True, slots=True)
class Route:
    """One method of one path: who may call it, what answers, and what its document says.

    answer: the struct of its JSON, or None where it answers with something else, of which
    `content` has the media types and `says` a description. answered: an example of the answer, put
    together from those of its fields where none is given. body: the struct that is sent, of which
    `sent` is an example. many: a list of such bodies may be sent, too. errors: what it may raise
    beside those of authorization; refusal: the struct that they are, `Error` where none is given.
    unlisted: answered, and no part of the document.
    """

    method: Method
    path: str
    scope: Scope
    handler: Handler
    summary: str = ""
    description: str = ""
    answer: type[msgspec.Struct] | None = None
    answered: Any = None
    statuses: tuple[int, ...] = (200,)
    content: tuple[str, ...] = ()
    says: str = "done"
    headers: Mapping[str, str] = field(default_factory=dict)
    body: type[msgspec.Struct] | None = None
    sent: Any = None
    refusal: type[msgspec.Struct] | None = None
    many: bool = False
    parameters: tuple[Parameter, ...] = ()
    errors: tuple[type[ServiceError], ...] = ()
    head: bool = True
    unlisted: bool = False
