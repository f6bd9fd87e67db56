"""A client's request, and its preferences for the routing. Pure.

Preferences come in the model's name, `auto?max_cost_usd=0.01&willingness_to_pay=0.2`, or in headers
`x-max-cost-usd`, `x-max-latency-s`, `x-willingness-to-pay`, `x-arms`, `x-unit`, `x-tenant`,
`x-session`, `x-conversation` and `x-tags`, the last also in the body's `metadata`. With `auto:NAME`
the policy NAME decides. A name that is not `auto` is an arm, called directly. If no conversation is
named, a hash of how it began identifies it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any
from urllib.parse import parse_qsl, unquote

import msgspec

from bandit_service import wire
from bandit_service.core.errors import Refused, Unknown
from bandit_service.core.routes import AUTO
from bandit_service.core.tags import listed, tags_of
from bandit_service.embedding import text_of_messages
from bandit_service.gateway.affinity import without_reasoning
from bandit_service.gateway.allowance import Allowance
from bandit_service.gateway.implicit_signals import Turn
from bandit_service.gateway.providers import Front, front_of, provider_of
from bandit_service.gateway.request_size import Size
from bandit_service.gateway.sessions import conversation
from bandit_service.gateway.translation import refusal
from bandit_service.settings.upstreams import UpstreamSpec

_NUMBERS = ("max_cost_usd", "max_latency_s", "willingness_to_pay")
_TEXTS = ("arms", "unit", "tenant", "session", "conversation", "tags")
_PREFERENCES = {name: f"x-{name.replace('_', '-')}" for name in (*_NUMBERS, *_TEXTS)}
"""The header of each."""

_OF_STREAMS = ("stream", "stream_options")

CHAT, COMPLETIONS, EMBEDDINGS = "/chat/completions", "/completions", "/embeddings"
"""The paths of OpenAI's API that are called upstream."""


class RoutingRequest(msgspec.Struct, frozen=True):
    """The query to decide, and whether the client named the arm.

    expected: the right answer if the client knows it, from the header x-expected-answer. named: the
    client's own name for the conversation. user: who asks, as the body says.
    """

    decide: wire.DecideRequest
    direct: bool
    expected: str = ""
    named: str = ""
    user: str = ""

    def of_tenant(self, tenant: str) -> RoutingRequest:
        """The same for this tenant."""
        if tenant == self.decide.tenant:
            return self
        decide = msgspec.structs.replace(self.decide, tenant=tenant)
        return msgspec.structs.replace(self, decide=decide)


class Asked(msgspec.Struct, frozen=True):
    """A client's request in its dialect, and as a chat or text completion.

    kind: of the dialect. own: the body as it came. path, body: what is asked of a provider of
    another dialect, by way of OpenAI's. lost: a part of it that no other dialect can express.
    parts: as `wire.parts_of` counts them in the body.
    """

    path: str
    body: dict[str, Any]
    kind: str = "openai"
    own: dict[str, Any] = {}
    lost: Refused | None = None
    parts: int = 0

    @property
    def front(self) -> Front:
        """The client's dialect."""
        return front_of(self.kind)

    def passes(self, kind: str) -> bool:
        """Whether a provider of this dialect gets the request as it came, and its answer is passed
        on.
        """
        return self.kind == kind and self.kind != "openai"

    def unsaid(self, kind: str) -> Refused | None:
        """Why a provider of this dialect cannot be called; None if it can."""
        if self.passes(kind):
            return refusal(provider_of(kind), self.front.OWN_PATH, self.own)
        return self.lost or refusal(provider_of(kind), self.path, self.body)


class Said(msgspec.Struct, frozen=True):
    """The body for a provider."""

    path: str
    body: Mapping[str, Any]
    headers: Mapping[str, str]


class ChatRequest(msgspec.Struct, frozen=True):
    """A chat or text completion to be answered.

    caller: id of the key. conversation: the hash of its name, "" if it is not to keep its model.
    headers: those of the client that go on to any provider; own_headers: to one of the client's
    dialect. in_loop: a tool's result is on its way to the arm that called it; calls: the hashes of
    these calls. signed: it holds thinking that only the provider that signed it can read.
    thought: it holds thinking as plain text. begins: no model has answered yet.
    pins: the client's parameters are to be what is sent, whatever an arm sets. turn: as implicit
    signals see it; None where none is looked for. allowance: what it may cause.
    """

    asked: Asked
    size: Size
    routing: RoutingRequest
    allowance: Allowance
    caller: str
    conversation: str
    headers: dict[str, str]
    own_headers: dict[str, str]
    in_loop: bool = False
    calls: tuple[str, ...] = ()
    signed: bool = False
    thought: bool = False
    begins: bool = False
    pins: bool = False
    turn: Turn | None = None

    @property
    def body(self) -> dict[str, Any]:
        """As a chat or text completion."""
        return self.asked.body

    def to(self, upstream: UpstreamSpec, *, whole: bool = False, thought: bool = True) -> Said:
        """What is sent to this upstream; whole: not as a stream, whatever the client wants.

        thought: the thinking of earlier turns may be this provider's.
        """
        if self.asked.passes(upstream.kind):
            path, body = self.asked.front.OWN_PATH, dict(self.asked.own)
            headers = self.headers | self.own_headers
        else:
            path, body, headers = self.asked.path, dict(self.body), self.headers
            if self.asked.kind != "openai" and upstream.kind == "openai":
                if not thought:
                    body = without_reasoning(body)
                limit = body.pop("max_completion_tokens", None)
                body |= {} if limit is None else {upstream.limit_field: limit}
            if body.get("stream") and upstream.stream_usage:
                options = self.stream_options | {"include_usage": True}
                body["stream_options"] = options
        if whole:
            body = {name: value for name, value in body.items() if name not in _OF_STREAMS}
        return Said(path, body, headers)

    @property
    def stream_options(self) -> dict[str, Any]:
        """The client's options for a stream."""
        options = self.body.get("stream_options")
        return dict(options) if isinstance(options, dict) else {}

    @property
    def may_duel(self) -> bool:
        """Whether a second arm may answer too: the client wants one answer, of any arm."""
        return not self.routing.direct and self.body.get("n") in (None, 1)


def forwarded(
    headers: Mapping[str, str], names: Sequence[str] = ("traceparent", "tracestate")
) -> dict[str, str]:
    """The client's headers that go on to the provider, but for what is not UTF-8."""
    return {name: headers[name] for name in names if name in headers and _is_utf8(headers[name])}


def _is_utf8(value: str) -> bool:
    """Whether a header's bytes were UTF-8; others come as lone surrogates."""
    if value.isascii():
        return True
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def of_chat(
    body: Mapping[str, Any],
    headers: Mapping[str, str],
    deciding: Sequence[str],
    unit: str = "",
    own: Mapping[str, Any] | None = None,
    routes: Collection[str] = (),
) -> RoutingRequest:
    """From a chat completion: its user turns are embedded, its parts say what it requires.

    unit: who asks, if the client says so in another place than `user`. own: the body as it came,
    where that is in another dialect. routes: names that the model may be besides.
    """
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise Refused("messages: must be a list with at least one message", param="messages")
    if not {*map(type, messages)} <= {dict}:
        raise Refused("messages: every message must be an object", param="messages")
    try:
        text = text_of_messages(messages)
    except ValueError:
        text = "an image or a tool's answer"  # nothing to embed; it is routed by its needs
    return _routing(body, headers, deciding, text, _requires(body, messages), unit, own, routes)


def of_completion(
    body: Mapping[str, Any],
    headers: Mapping[str, str],
    deciding: Sequence[str],
    routes: Collection[str] = (),
) -> RoutingRequest:
    """From a completion: its prompt is embedded."""
    prompt = body.get("prompt")
    if isinstance(prompt, list) and prompt and all(isinstance(each, str) for each in prompt):
        prompt = "\n".join(prompt)
    if _is_tokens(prompt):  # of one model's own vocabulary
        if is_auto(model_of(body), routes):
            raise Refused(
                "prompt: token ids belong to one model's tokenizer; name an arm", param="prompt"
            )
        prompt = "a prompt of tokens"
    if not isinstance(prompt, str) or not prompt.strip():
        raise Refused("prompt: must be text, or a list of texts", param="prompt")
    return _routing(body, headers, deciding, prompt, [], routes=routes)


def is_auto(model: str, routes: Collection[str] = ()) -> bool:
    """Whether the policy chooses, in any form of `auto`; otherwise the name is an arm's."""
    name = model.partition("?")[0]
    return name in routes or name.partition(":")[0] == AUTO


def _is_tokens(prompt: object) -> bool:
    """Whether a prompt is token numbers, or several lists of them."""
    if not isinstance(prompt, list) or not prompt:
        return False
    return all(isinstance(each, int) for each in prompt) or all(map(_is_tokens, prompt))


def model_of(body: Mapping[str, Any]) -> str:
    """The field `model`. Raises Refused if it is not a text."""
    model = body.get("model")
    if not isinstance(model, str) or not model:
        raise Refused("model: must be auto, or the id of an arm", param="model")
    return model


def _routing(
    body: Mapping[str, Any],
    headers: Mapping[str, str],
    deciding: Sequence[str],
    text: str,
    requires: list[str],
    unit: str = "",
    own: Mapping[str, Any] | None = None,
    routes: Collection[str] = (),
) -> RoutingRequest:
    model, _, query = model_of(body).partition("?")
    auto, _, policy = model.partition(":")
    route = model if model in routes else ""
    if route:
        policy = ""
    direct = auto != AUTO and not route
    if not direct and policy not in ("", *deciding):
        there_are = ", ".join(deciding)
        raise Unknown(
            f"model: no policy {policy!r} decides here; expected one of {there_are}", param="model"
        )
    given = dict(parse_qsl(query, keep_blank_values=True)) if query and not direct else {}
    for name, named in _PREFERENCES.items():
        if named in headers and (value := header(headers, named)) is not None:
            given.setdefault(name, value)
    if unknown := given.keys() - _PREFERENCES.keys():
        allowed = ", ".join(_PREFERENCES)
        raise Refused(
            f"model: no preference {min(unknown)!r}; expected one of {allowed}", param="model"
        )
    user = unit or body.get("user")
    arms = _arms(given["arms"]) if given.get("arms") else None
    return RoutingRequest(
        wire.DecideRequest(
            query=text,
            unit=given.get("unit") or (user if isinstance(user, str) else ""),
            tenant=given.get("tenant", ""),
            session=given.get("session", ""),
            conversation=given.get("conversation") or conversation(body),
            arms=[model_of(body)] if direct else arms,
            requires=requires,
            max_cost_usd=_number("max_cost_usd", given),
            max_latency_s=_number("max_latency_s", given),
            willingness_to_pay=_number("willingness_to_pay", given),
            policy="" if direct else policy,
            route=route,
            tags=_tags(given.get("tags", ""), body if own is None else own),
        ),
        direct,
        unquote(header(headers, "x-expected-answer") or ""),
        given.get("conversation", ""),
        user if isinstance(user, str) else "",
    )


def _arms(text: str) -> list[str]:
    """Ids between commas, or as a JSON list, in which an id may have a comma."""
    if not text.lstrip().startswith("["):
        return [each.strip() for each in text.split(",")]
    try:
        return msgspec.json.decode(text, type=list[str])
    except (msgspec.DecodeError, UnicodeEncodeError):
        raise Refused(
            f"arms: must be ids with commas between them, or a JSON list of ids, got {text!r}",
            param="arms",
        ) from None


def _tags(text: str, body: Mapping[str, Any]) -> list[str]:
    """The tags of the header or the model's name, and those of `metadata.tags`."""
    metadata = body.get("metadata")
    if not text and metadata is None:  # as nearly always
        return []
    found = tags_of(listed(text), "x-tags")
    more = metadata.get("tags") if isinstance(metadata, dict) else None
    if isinstance(more, str):
        more = listed(more)
    if more is None:
        return list(found)
    if not (isinstance(more, list) and all(isinstance(each, str) for each in more)):
        raise Refused(
            "metadata.tags: must be a list of texts, or one text with commas between the tags",
            param="metadata.tags",
        )
    return list(tags_of((*found, *more), "metadata.tags"))


def header(headers: Mapping[str, str], name: str) -> str | None:
    """A header's text. Raises Refused if its bytes are not UTF-8, which no event could hold."""
    value = headers.get(name)
    if not _is_utf8(value or ""):
        raise Refused(f"{name}: must be UTF-8", param=name)
    return value


def _number(name: str, given: Mapping[str, str]) -> float | None:
    text = given.get(name)
    if text is None:
        return None
    try:
        return float(text)
    except ValueError:
        raise Refused(f"{name}: must be a number, got {text!r}", param="model") from None


def _requires(body: Mapping[str, Any], messages: list[dict[str, Any]]) -> list[str]:
    needs = []
    if body.get("tools") or body.get("functions"):
        needs.append("tools")
    form = body.get("response_format")
    if isinstance(form, dict) and form.get("type") in ("json_object", "json_schema"):
        needs.append("json")
    if any(map(_has_image, messages)):
        needs.append("vision")
    return needs


def _has_image(message: Mapping[str, Any]) -> bool:
    content = message.get("content")
    return isinstance(content, list) and any(
        isinstance(part, dict) and part.get("type") == "image_url" for part in content
    )
