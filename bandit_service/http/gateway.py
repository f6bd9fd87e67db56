"""The gateway's paths: parse, call the gateway, render."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import msgspec
from aiohttp import web
from msgspec import UNSET

from bandit_service import wire
from bandit_service.core.arm_kinds import not_for_chat
from bandit_service.core.errors import Refused, Unknown, type_in_words
from bandit_service.core.events import ArmSpec
from bandit_service.core.routes import AUTO
from bandit_service.core.world import World
from bandit_service.gateway import fields
from bandit_service.gateway.client import Client, Reply
from bandit_service.gateway.gateway import Gateway
from bandit_service.gateway.large_requests import LARGE, apart
from bandit_service.gateway.providers import front_of
from bandit_service.gateway.request import (
    CHAT,
    COMPLETIONS,
    Asked,
    RoutingRequest,
    header,
    model_of,
    of_chat,
    of_completion,
)
from bandit_service.gateway.translation import heard_of
from bandit_service.http.auth import Caller
from bandit_service.http.connections import Connection, WhileThere, connection_of
from bandit_service.http.middleware import (
    CALLER,
    ROUTER,
    SETTINGS,
    body_of,
    reply,
    speaks_anthropic,
)
from bandit_service.http.pools import HOMES
from bandit_service.http.responses.catalogue import MessageModel, MessageModels, Model, Models
from bandit_service.http.responses.decisions import Duel, Duelist
from bandit_service.http.responses.operations import BudgetRow, Budgets
from bandit_service.http.shutdown import ENDING

GATEWAY = web.AppKey("gateway", Gateway)
_DIGITS = 12
"""Decimal places of a sum of USD. Further ones are what adding floats leaves."""


class Came(msgspec.Struct, frozen=True, gc=False):
    """A request of the gateway, whichever way it came. raw: its body."""

    app: web.Application
    caller: Caller
    client: Client
    raw: bytes

    @property
    def gateway(self) -> Gateway:
        """What answers it."""
        return self.app[GATEWAY]


async def _chat(came: Came) -> Reply | None:
    body, parts = await _body(came)
    world, headers = came.app[ROUTER].world, came.client.headers
    read = partial(of_chat, body, headers, _deciding(world, body), routes=world.routes.specs)
    routing = read() if parts <= LARGE else await apart(parts, read)
    return await _answer(came, Asked(CHAT, body, parts=parts), routing, _chat)


async def _completions(came: Came) -> Reply | None:
    body, parts = await _body(came)
    world, headers = came.app[ROUTER].world, came.client.headers
    deciding, routes = _deciding(world, body), world.routes.specs
    routing = await apart(parts, lambda: of_completion(body, headers, deciding, routes))
    return await _answer(came, Asked(COMPLETIONS, body, parts=parts), routing, _completions)


async def _messages(came: Came) -> Reply | None:
    return await _other(came, "anthropic")


async def _responses(came: Came) -> Reply | None:
    return await _other(came, "responses")


async def _count_tokens(came: Came) -> Reply:
    return await _counted(came, "anthropic", {"max_tokens": 1})


async def _input_tokens(came: Came) -> Reply:
    return await _counted(came, "responses", {})


async def _counted(came: Came, kind: str, unless_said: Mapping[str, Any]) -> Reply:
    """unless_said: fields that only a request to be answered must have."""
    own, parts = await _object(came)
    heard = await apart(parts, lambda: heard_of(front_of(kind), {**unless_said, **own}))
    asked = Asked(CHAT, heard.body, kind, own, heard.lost, parts)
    return await came.gateway.count_tokens(came.client, asked)


async def _embeddings(came: Came) -> Reply:
    body, parts = await _body(came)
    caller, client = came.caller, came.client
    tenant = caller.tenant_for(header(client.headers, "x-tenant") or "")
    wire.check_names("", tenant)
    home = await came.app[HOMES].home_of(tenant, came.app, long=True)
    embedding, model = home[GATEWAY].embedding, model_of(body)
    return await embedding.answer(client, body, model, tenant, caller.key, parts)


ANSWERS: Mapping[str, Callable[[Came], Awaitable[Reply | None]]] = {
    "/v1/chat/completions": _chat,
    "/v1/completions": _completions,
    "/v1/messages": _messages,
    "/v1/responses": _responses,
    "/v1/embeddings": _embeddings,
}
"""What answers at these paths, a request that came either way."""


def _over_http(
    answer: Callable[[Came], Awaitable[Reply | None]],
) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def handler(request: web.Request) -> web.StreamResponse:
        client = _Client(request)
        raw = await body_of(request, "gateway.max_body_bytes")
        told = await answer(Came(request.app, request[CALLER], client, raw))
        return client.streamed() if told is None else _whole(told)

    return handler


chat, completions = _over_http(_chat), _over_http(_completions)
messages, responses = _over_http(_messages), _over_http(_responses)
embeddings = _over_http(_embeddings)
count_tokens, input_tokens = _over_http(_count_tokens), _over_http(_input_tokens)
"""The handlers of these paths where aiohttp's server has the request."""


async def models(request: web.Request) -> web.Response:
    """GET /v1/models: auto, also by each policy beside the serving one, and every callable arm."""
    arms = _models(request)
    if not speaks_anthropic(request):
        return reply(Models(object="list", data=[_model(id, arms[id]) for id in arms]))
    listed = [_message_model(id, arms[id]) for id in arms]
    first, last = listed[0].id, listed[-1].id
    return reply(MessageModels(data=listed, has_more=False, first_id=first, last_id=last))


async def model(request: web.Request) -> web.Response:
    """GET /v1/models/{id}: one of them."""
    id, arms = request.match_info["id"], _models(request)
    if id not in arms:
        raise Unknown(f"model: no {id!r}; GET /v1/models lists what there is", param="model")
    return reply((_message_model if speaks_anthropic(request) else _model)(id, arms[id]))


async def budgets(request: web.Request) -> web.Response:
    """GET /v1/budgets: every limit with its spend and reservations in the present window."""
    world, now = request.app[ROUTER].world, request.app[ROUTER].writer.now()
    budgets = request.app[GATEWAY].budgets
    rows = budgets.rows(world.spend, now, request[CALLER].tenant)
    return reply(Budgets(budgets=[BudgetRow(**row | _rounded(row)) for row in rows]))


async def duel(request: web.Request) -> web.Response:
    """GET /v1/duels/{id}: both answers, for a user to compare."""
    pair = request.app[GATEWAY].duels.kept(request.match_info["id"], request[CALLER].tenant)
    answers = [
        Duelist(decision_id=each.decided.id, arm=each.decided.arm, answer=each.text)
        for each in pair
    ]
    return reply(Duel(decision_id=pair[0].decided.id, answers=answers))


def _rounded(row: Mapping[str, Any]) -> dict[str, float]:
    """The sums of money of a row."""
    return {name: round(row[name], _DIGITS) for name in ("spent_usd", "held_usd", "leased_usd")}


def _models(request: web.Request) -> dict[str, ArmSpec | None]:
    """The names that can be sent as `model`, with their arms."""
    beside = (f"{AUTO}:{name}" for name in request.app[ROUTER].world.deciding()[1:])
    arms = request.app[GATEWAY].models()
    if speaks_anthropic(request):  # its clients know no other kind
        arms = [spec for spec in arms if not not_for_chat(spec)]
    routes = dict.fromkeys(request.app[ROUTER].world.routes.specs)
    return {AUTO: None, **dict.fromkeys(beside), **routes, **{spec.id: spec for spec in arms}}


def _model(id: str, arm: ArmSpec | None) -> Model:
    model = Model(id=id, object="model", created=0, owned_by="bandit")
    if arm is None:
        return msgspec.structs.replace(model, route=True)
    prices = {
        name: price
        for name in arm.__struct_fields__
        if name.startswith("usd_per_mtok") and (price := getattr(arm, name)) is not None
    }
    return msgspec.structs.replace(
        model,
        kind=arm.kind,
        dimensions=arm.dimensions or UNSET,
        context_window=arm.context_window,
        max_output_tokens=arm.max_output_tokens or UNSET,
        capabilities=arm.capabilities,
        prices=prices,
    )


def _message_model(id: str, arm: ArmSpec | None) -> MessageModel:
    return MessageModel(
        type="model",
        id=id,
        display_name=id,
        created_at="1970-01-01T00:00:00Z",
        max_input_tokens=None if arm is None else arm.context_window,
        max_tokens=None if arm is None else arm.max_output_tokens,
    )


async def _object(came: Came) -> tuple[dict[str, Any], int]:
    """The body, and its parts."""
    parts, most = _parts(came)
    return await apart(parts, lambda: _decoded(came.raw, parts, most)), parts


async def _body(came: Came) -> tuple[dict[str, Any], int]:
    """The same in OpenAI's dialect."""
    parts, most = _parts(came)

    def read() -> dict[str, Any]:
        body = _decoded(came.raw, parts, most)
        fields.check(body)
        return body

    return read() if parts <= LARGE else await apart(parts, read), parts


def _parts(came: Came) -> tuple[int, int]:
    """The parts of the body, and how many it may have."""
    return wire.parts_of(came.raw), came.app[SETTINGS].gateway.max_body_parts


def _decoded(raw: bytes, parts: int, most: int) -> dict[str, Any]:
    body = wire.decode_passed(raw, parts, most)
    if not isinstance(body, dict):
        raise Refused(f"the body must be an object, got {type_in_words(body)}")
    return body


async def _other(came: Came, kind: str) -> Reply | None:
    """A request in another dialect than OpenAI's chat completions."""
    own, parts = await _object(came)
    heard = await apart(parts, lambda: heard_of(front_of(kind), own))
    world, headers = came.app[ROUTER].world, came.client.headers
    deciding, routes = _deciding(world, heard.body), world.routes.specs
    routing = await apart(
        parts, lambda: of_chat(heard.body, headers, deciding, heard.unit, own, routes)
    )
    asked = Asked(CHAT, heard.body, kind, own, heard.lost, parts)
    return await _answer(came, asked, routing, lambda again: _other(again, kind))


def _deciding(world: World, body: Mapping[str, Any]) -> Sequence[str]:
    """The policies that `auto:NAME` may name; computed only if a policy is named."""
    return world.deciding() if ":" in str(body.get("model")) else ()


async def _answer(
    came: Came,
    asked: Asked,
    routing: RoutingRequest,
    at: Callable[[Came], Awaitable[Reply | None]],
) -> Reply | None:
    """at: answers it in another pool, which has routes of its own."""
    routing = routing.of_tenant(came.caller.tenant_for(routing.decide.tenant))
    home = await came.app[HOMES].home_of(routing.decide.tenant, came.app, long=True)
    if home is not came.app:
        return await at(msgspec.structs.replace(came, app=home))
    return await came.gateway.answer(came.client, asked, routing, came.caller.key)


def _whole(answer: Reply) -> web.Response:
    return web.Response(
        body=answer.body,
        status=answer.status,
        headers=answer.headers,
        content_type="application/json",
    )


class _Streamed(web.StreamResponse):
    """An answer whose head is sent together with its first bytes, which always follow at once."""

    _send_headers_immediately = False


class WhileAnswered:
    """A `with` around an answer that has begun: `lost` is called if the client leaves meanwhile."""

    __slots__ = ("_connection", "_lost")

    def __init__(self, connection: Connection, lost: Callable[[], object]) -> None:
        self._connection, self._lost = connection, lost

    def __enter__(self) -> None:
        self._connection.pointless, self._connection.lost = None, self._lost

    def __exit__(self, *_: object) -> None:
        self._connection.lost = None


class _Client:
    """A `gateway.client.Client` over aiohttp."""

    def __init__(self, request: web.Request) -> None:
        self._request = request
        self._response: web.StreamResponse | None = None
        self._connection = connection_of(request)

    @property
    def headers(self) -> Mapping[str, str]:
        return self._request.headers

    @property
    def gone(self) -> bool:
        return self._request.transport is None or self._request.transport.is_closing()

    def waiting(self) -> AbstractContextManager[None]:
        return WhileThere(self._connection)

    def answered(self, left: Callable[[], object]) -> AbstractContextManager[None]:
        return WhileAnswered(self._connection, left)

    def cut(self) -> bool:
        return self._request.app[ENDING].cuts()

    async def begin(self, headers: Mapping[str, str]) -> None:
        self._response = _Streamed(headers=headers)
        await self._response.prepare(self._request)

    async def write(self, data: bytes) -> None:
        await self.streamed().write(data)

    async def end(self, data: bytes) -> None:
        await self.streamed().write_eof(data)

    def streamed(self) -> web.StreamResponse:
        """The answer that has begun."""
        assert self._response is not None
        return self._response
