"""OpenAI's own wire format, which most providers speak: everything goes through unchanged."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bandit_service.gateway.providers._base import HttpRequest, Json, headers_of
from bandit_service.settings.upstreams import Upstream


class Decoder:
    """Gives each event back as it came."""

    def feed(self, data: bytes) -> list[bytes]:
        """The same data."""
        return [data]

    def end(self) -> list[bytes]:
        """Nothing: the provider ends its stream itself."""
        return []


def output_limit() -> int | None:
    """None: the provider answers as long as its model does."""
    return None


def check(path: str, body: Mapping[str, Any]) -> None:
    """Nothing is refused here; the provider may refuse it."""


def request(upstream: Upstream, path: str, body: Mapping[str, Any]) -> HttpRequest:
    """The client's body at the same path under the configured address."""
    return HttpRequest(upstream.spec.base_url.rstrip("/") + path, headers_of(upstream), body)


def answer(answer: Json, _created: int) -> Json:
    """The same answer."""
    return answer


def decoder(_created: int) -> Decoder:
    """A decoder that changes nothing."""
    return Decoder()
