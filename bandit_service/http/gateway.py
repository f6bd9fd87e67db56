"""The gateway's paths: parse, call the gateway, render."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from aiohttp import web

from bandit_service import wire
from bandit_service.core.errors import Refused, Unknown
from bandit_service.gateway import fields
from bandit_service.gateway.client import Reply
from bandit_service.gateway.gateway import Gateway
from bandit_service.gateway.request import (
    AUTO,
    CHAT,
    COMPLETIONS,
    EMBEDDINGS,
    RoutingRequest,
    header,
    is_auto,
    model_of,
    of_chat,
    of_completion,
)
from bandit_service.http.connections import Connection, while_there
from bandit_service.http.ending import ENDING
from bandit_service.http.frame import CALLER, ROUTER, body_of, reply
from bandit_service.http.responses.catalogue import Model, Models
from bandit_service.http.responses.decisions import Duel, Duelist
from bandit_service.http.responses.operations import BudgetRow, Budgets

GATEWAY = web.AppKey("gateway", Gateway)


async def chat(request: web.Request) -> web.StreamResponse:
    """POST /v1/chat/completions."""
    body = await _body(request)
    routing = of_chat(body, request.headers, request.app[ROUTER].world.deciding())
    return await _answer(request, CHAT, body, routing)


async def completions(request: web.Request) -> web.StreamResponse:
    """POST /v1/completions."""
    body = await _body(request)
    routing = of_completion(body, request.headers, request.app[ROUTER].world.deciding())
    return await _answer(request, COMPLETIONS, body, routing)


async def embeddings(request: web.Request) -> web.Response:
    """POST /v1/embeddings: to the arm that is named."""
    body = await _body(request)
    arm = model_of(body)
    if is_auto(arm):
        raise Refused("model: embeddings of two models cannot be mixed; name an arm", param="model")
    caller = request[CALLER]
    tenant = caller.tenant_for(header(request.headers, "x-tenant") or "")
    wire.check_names("", tenant)
    passthrough = request.app[GATEWAY].passthrough
    client = _Client(request)
    return _whole(await passthrough.answer(client, EMBEDDINGS, body, arm, tenant, caller.key))


async def models(request: web.Request) -> web.Response:
    """GET /v1/models: auto, by each policy beside the serving one, and every arm to be called."""
    return reply(Models(object="list", data=[_model(id) for id in _models(request)]))


async def model(request: web.Request) -> web.Response:
    """GET /v1/models/{id}: one of them."""
    id = request.match_info["id"]
    if id not in _models(request):
        raise Unknown(f"model: no {id!r}; GET /v1/models lists what there is", param="model")
    return reply(_model(id))


async def budgets(request: web.Request) -> web.Response:
    """GET /v1/budgets: every limit with what was spent and is held in its present window."""
    world, now = request.app[ROUTER].world, request.app[ROUTER].writer.now()
    budgets = request.app[GATEWAY].budgets
    rows = budgets.rows(world.spend, now, request[CALLER].tenant)
    return reply(Budgets(budgets=[BudgetRow(**row) for row in rows]))


async def duel(request: web.Request) -> web.Response:
    """GET /v1/duels/{id}: both answers, for a user who is to say which is better."""
    pair = request.app[GATEWAY].duels.kept(request.match_info["id"], request[CALLER].tenant)
    answers = [
        Duelist(decision_id=each.decided.id, arm=each.decided.arm, answer=each.text)
        for each in pair
    ]
    return reply(Duel(decision_id=pair[0].decided.id, answers=answers))


def _models(request: web.Request) -> list[str]:
    beside = (f"{AUTO}:{name}" for name in request.app[ROUTER].world.deciding()[1:])
    return [AUTO, *beside, *(spec.id for spec in request.app[GATEWAY].models())]


def _model(id: str) -> Model:
    return Model(id=id, object="model", created=0, owned_by="bandit")


async def _body(request: web.Request) -> dict[str, Any]:
    body = wire.decode_passed(await body_of(request, "gateway.max_body_bytes"))
    if not isinstance(body, dict):
        raise Refused(f"the body must be an object, got {type(body).__name__}")
    fields.check(body)
    return body


async def _answer(
    request: web.Request, path: str, body: dict[str, Any], routing: RoutingRequest
) -> web.StreamResponse:
    caller, client = request[CALLER], _Client(request)
    routing = routing.of_tenant(caller.tenant_for(routing.decide.tenant))
    answer = await request.app[GATEWAY].answer(client, path, body, routing, caller.key)
    return client.streamed() if answer is None else _whole(answer)


def _whole(answer: Reply) -> web.Response:
    return web.Response(
        body=answer.body,
        status=answer.status,
        headers=answer.headers,
        content_type="application/json",
    )


class _Client:
    """A `gateway.client.Client` over aiohttp."""

    def __init__(self, request: web.Request) -> None:
        self._request = request
        self._response: web.StreamResponse | None = None
        assert isinstance(request.protocol, Connection)
        self._connection = request.protocol

    @property
    def headers(self) -> Mapping[str, str]:
        return self._request.headers

    @property
    def gone(self) -> bool:
        return self._request.transport is None or self._request.transport.is_closing()

    def waiting(self) -> AbstractContextManager[None]:
        return while_there(self._request)

    @contextmanager
    def answered(self, left: Callable[[], object]) -> Iterator[None]:
        self._connection.pointless, self._connection.lost = None, left
        try:
            yield
        finally:
            self._connection.lost = None

    def cut(self) -> bool:
        return self._request.app[ENDING].cuts()

    async def begin(self, headers: Mapping[str, str]) -> None:
        self._response = web.StreamResponse(headers=headers)
        await self._response.prepare(self._request)

    async def write(self, data: bytes) -> None:
        await self.streamed().write(data)

    async def end(self, data: bytes) -> None:
        await self.streamed().write_eof(data)

    def streamed(self) -> web.StreamResponse:
        """The answer that has begun."""
        assert self._response is not None
        return self._response
