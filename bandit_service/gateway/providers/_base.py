"""What the gateway asks of a provider's dialect. A module of this package is a `Provider`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from bandit_service.settings.upstreams import Upstream

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """One POST to a provider. The key is among the headers."""

    url: str
    headers: dict[str, str]
    body: Mapping[str, Any]


class EventDecoder(Protocol):
    """Turns the events of one streamed answer into OpenAI's chunks."""

    def feed(self, data: bytes) -> list[bytes]:
        """The data of the chunks that this event's data makes. Raises Failed."""
        ...

    def end(self) -> list[bytes]:
        """The chunks still due when the stream ends, if the answer is complete by then."""
        ...


class Provider(Protocol):
    """Translates between OpenAI's wire format and a provider's. Pure functions.

    A value of an unexpected type may raise whatever reading it raises; the caller turns that into a
    Refused of the request or a Failed of the answer.
    """

    def output_limit(self) -> int | None:
        """The tokens that bound an answer if the client sets no limit; None if nothing does."""
        ...

    def check(self, path: str, body: Mapping[str, Any], /) -> None:
        """Raise Refused, naming the field, if this dialect cannot carry the request."""
        ...

    def request(self, upstream: Upstream, path: str, body: Mapping[str, Any], /) -> HttpRequest:
        """The request as this provider takes it. Raises Refused as `check` does."""
        ...

    def answer(self, answer: Json, created: int, /) -> Json:
        """A whole answer in OpenAI's shape; created: seconds since 1970. Raises Failed."""
        ...

    def decoder(self, created: int, /) -> EventDecoder:
        """A decoder for one streamed answer."""
        ...


def headers_of(
    upstream: Upstream, key_header: str = "Authorization", own: Mapping[str, str] | None = None
) -> dict[str, str]:
    """The headers of every call: the dialect's own, then the configured ones, then the key.

    key_header: what carries the key if the configuration names no `auth_header`.
    """
    headers = {"Content-Type": "application/json", **(own or {}), **upstream.spec.headers}
    carrier = upstream.spec.auth_header or key_header
    if key := upstream.key:
        headers[carrier] = f"Bearer {key}" if carrier == "Authorization" else key
    return headers
