"""The interface of a dialect. A module of this package is a `Provider` and a `Front`."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec

from bandit_service.core.arm_request import ArmRequest
from bandit_service.core.errors import Refused, type_in_words
from bandit_service.gateway.providers._asking import Asks
from bandit_service.settings.upstreams import Upstream, UpstreamSpec

Json = dict[str, Any]

_FOREIGN = re.compile(r"[^a-zA-Z0-9_-]")


class HttpRequest(msgspec.Struct, frozen=True):
    """One POST to a provider. The key is among the headers."""

    url: str
    headers: dict[str, str]
    body: Mapping[str, Any]


class EventDecoder(Protocol):
    """Turns the events of one streamed answer into OpenAI's chunks."""

    def feed(self, data: bytes) -> list[bytes]:
        """This event's data as data of chunks. Raises Failed."""
        ...

    def end(self) -> list[bytes]:
        """The chunks still due when the stream ends, if the answer is complete by then."""
        ...


class Provider(Protocol):
    """Translates between OpenAI's wire format and a provider's. Pure functions.

    A value of an unexpected type may raise any exception; the caller turns it into a Refused of the
    request or a Failed of the answer.
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

    def configured(
        self, upstream: UpstreamSpec, path: str, body: Mapping[str, Any], request: ArmRequest, /
    ) -> Json:
        """A request of this dialect with the arm's own parameters.

        Raises Refused, naming the field.
        """
        ...

    def asks(self, body: Mapping[str, Any], /) -> Asks:
        """The values in a request of this dialect that an arm may set."""
        ...

    def answer(self, answer: Json, created: int, /) -> Json:
        """A whole answer in OpenAI's shape; created: seconds since 1970. Raises Failed."""
        ...

    def decoder(self, created: int, /) -> EventDecoder:
        """A decoder for one streamed answer."""
        ...


@dataclass(frozen=True, slots=True)
class Heard:
    """A client's request as a chat completion.

    lost: the first part that a chat completion cannot express; None if it expresses all. unit: the
    user, if the client names one in another field than `user`.
    """

    body: Json
    lost: Refused | None = None
    unit: str = ""


class Teller(Protocol):
    """Translates one streamed answer to the client's dialect."""

    def feed(self, chunk: Json) -> bytes:
        """One of OpenAI's chunks in this dialect. Raises Failed."""
        ...

    def end(self, *, done: bool) -> bytes:
        """The last events, once; done: the provider has marked the end."""
        ...

    def own(self, data: bytes) -> tuple[bytes, bool]:
        """An event that came in the client's own dialect, and whether it has content.

        No data means the end of a stream whose provider did not mark it.
        """
        ...

    def fail(self, status: int, error: Mapping[str, Any]) -> bytes:
        """The event that tells an error, `error` of OpenAI's wire format."""
        ...


class Front(Protocol):
    """Translates between a client's dialect and OpenAI's wire format. Pure functions.

    OWN_PATH: the path of a provider of this dialect. KEEP_ALIVE: what fills a long silence.
    OWN_HEADERS: a client's headers that go on to a provider of this dialect. COUNT_PATH: where it
    counts tokens, "" where its API has no such call.
    """

    OWN_PATH: str
    COUNT_PATH: str
    KEEP_ALIVE: bytes
    OWN_HEADERS: tuple[str, ...]

    def heard(self, own: Json, /) -> Heard:
        """A client's request. Raises Refused, naming the field, if it is invalid."""
        ...

    def told(self, answer: Json, asked: Json, id: str, /) -> Json:
        """A whole chat completion in the client's dialect. Raises Failed."""
        ...

    def teller(self, asked: Json, id: str, created: int, /) -> Teller:
        """The translator of one streamed answer; id: of the decision."""
        ...

    def counted(self, tokens: int, /) -> Json:
        """The answer that tells how many tokens a request has."""
        ...

    def error(self, status: int, error: Mapping[str, Any], /) -> Json:
        """The body that tells an error, `error` of OpenAI's wire format."""
        ...


def refused(field: str, what: str) -> Refused:
    """A part that a dialect does not have, or an invalid value."""
    return Refused(f"{field}: {what}", param=field)


def typed(value: Any, kind: type, field: str, allowed: str) -> Any:
    """The value, if it is of this kind; otherwise Refused with the field and what is allowed."""
    if not isinstance(value, kind):
        raise refused(field, f"must be {allowed}, got {type_in_words(value)}")
    return value


def objects(value: Any, field: str) -> list[Json]:
    """The value, if it is a list of objects. Raises Refused."""
    if not isinstance(value, list) or not all(isinstance(each, dict) for each in value):
        raise refused(field, "must be a list of objects")
    return value


def event(said: Json, name: bool = True) -> bytes:
    """A server-sent event, named by its type."""
    named = f"event: {said['type']}\n".encode() if name else b""
    return named + b"data: " + encoded(said) + b"\n\n"


def passed_event(name: object, data: bytes) -> bytes:
    """An event that is passed on as it came; if it had no name, it gets none."""
    lines = b"".join(b"data: " + line + b"\n" for line in data.splitlines())
    named = f"event: {name}\n".encode() if isinstance(name, str) else b""
    return named + lines + b"\n"


def encoded(said: Json) -> bytes:
    """JSON; each half of an emoji that was cut in two over events goes on as it came."""
    try:
        return msgspec.json.encode(said)
    except UnicodeEncodeError:
        return json.dumps(said).encode()


def plain_id(id: Any) -> Any:
    """The id of a call as Anthropic takes it, of letters, digits, - and _.

    >>> plain_id("functions.weather:0")
    'functions_weather_0'
    """
    return _FOREIGN.sub("_", id) if isinstance(id, str) else id


def headers_of(
    upstream: Upstream, key_header: str = "Authorization", own: Mapping[str, str] | None = None
) -> dict[str, str]:
    """The headers of every call: the dialect's own, then the configured ones, then the key.

    key_header: the header of the key if the configuration names no `auth_header`.
    """
    headers = {"Content-Type": "application/json", **(own or {}), **upstream.spec.headers}
    carrier = upstream.spec.auth_header or key_header
    if key := upstream.key:
        headers[carrier] = f"Bearer {key}" if carrier == "Authorization" else key
    return headers
