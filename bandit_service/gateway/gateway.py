"""Chat and text completions: decide, call the arm, pass the answer on, learn.

An attempt that fails before anything was said is followed by another decision without the arms that
failed, so its propensities are the true ones, and each failed arm gets an outcome of its own, from
which the policy learns that it is unreliable. A request that is refused is tried with another arm
too: only if that one answers, the refusal was about the arm, which then learns it as a failure.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import msgspec

from bandit_service.core import events as ev
from bandit_service.core.errors import (
    BudgetExhausted,
    Busy,
    Refused,
    ServiceError,
    Unavailable,
    stopped,
)
from bandit_service.gateway import streaming
from bandit_service.gateway.affinity import conversation
from bandit_service.gateway.client import Client, Reply
from bandit_service.gateway.duels import Duels
from bandit_service.gateway.event_stream import EventStream, error_body
from bandit_service.gateway.failures import Failed, Rejected, rejection_body
from bandit_service.gateway.judge_pool import JudgePool, ServedAnswer
from bandit_service.gateway.judges import answer_text
from bandit_service.gateway.passthrough import Passthrough
from bandit_service.gateway.request import ChatRequest, RoutingRequest, forwarded
from bandit_service.gateway.request_size import size_of
from bandit_service.gateway.resources import Resources
from bandit_service.gateway.routed_exchange import RoutedExchange
from bandit_service.gateway.selection import ArmSelector
from bandit_service.gateway.streamed_answer import StreamedAnswer
from bandit_service.settings.judges import JudgeSpec
from bandit_service.settings.sections import DuelSettings

_MAX_TRIED = 20

Refusals = list[tuple[RoutedExchange, Rejected]]


class Gateway:
    """Answers requests of OpenAI's wire format with the arms that have an upstream."""

    def __init__(
        self, resources: Resources, judges: tuple[JudgeSpec, ...], duels: DuelSettings
    ) -> None:
        self.health = resources.health
        self.budgets = resources.budgets
        self.passthrough = Passthrough(resources)
        self._resources = resources
        self._judges = JudgePool(judges, resources)
        self.duels = Duels(duels, resources, self._judges)
        self._selector = ArmSelector(resources)

    async def close(self) -> None:
        """End judgements, write down what is under way, and close the connections."""
        await self._judges.close()
        await self._resources.close()

    def models(self) -> list[ev.ArmSpec]:
        """The arms that can be called."""
        return self._selector.models()

    async def answer(
        self, client: Client, path: str, body: dict[str, Any], routing: RoutingRequest, caller: str
    ) -> Reply | None:
        """Decide and answer; None if the answer was streamed. Raises ServiceError if no arm could.

        If the client leaves before its answer begins, the call ends there, upstream too.
        """
        request = ChatRequest(
            path,
            body,
            size_of(body),
            routing,
            caller,
            conversation(body, routing.decide.tenant, routing.decide.unit),
            forwarded(client.headers),
        )
        with client.waiting():
            if not body.get("stream"):
                return await self._answer(request, None)
            stream = EventStream(client, self._resources.settings.keep_alive_s)
            async with stream.kept_alive():
                try:
                    return await self._answer(request, stream)
                except ServiceError as error:
                    if not stream.started:
                        raise
                    self._resources.telemetry.rejected(error)
                    await stream.fail(error_body(error.body()))
                except asyncio.CancelledError:
                    if not stream.started or not client.cut():
                        raise
                    await stream.fail(error_body(stopped().body()))
        return None

    async def _answer(self, request: ChatRequest, stream: EventStream | None) -> Reply | None:
        tried: list[str] = []
        refused: Refusals = []
        last: tuple[RoutedExchange, Failed] | None = None
        while True:
            try:
                exchange = await self._selected(request, tried, refused)
            except (Refused, Unavailable, Busy) as error:
                if not tried or (isinstance(error, BudgetExhausted) and not refused):
                    raise
                return await self._unanswered(refused, last, stream)
            try:
                return await self._attempt(request, exchange, stream)
            except Rejected as rejected:
                refused.append((exchange, rejected))
            except Failed as failed:
                last = (exchange, failed)
            tried.append(exchange.spec.id)
            if request.routing.direct or self._exhausted(len(tried), refused):
                return await self._unanswered(refused, last, stream)

    def _exhausted(self, tried: int, refused: Refusals) -> bool:
        """Whether no further arm is tried for a request.

        An arm that says it cannot do the request tells nothing about the others, so it does not
        count as an attempt.
        """
        attempts = self._resources.settings.attempts
        unsuited = sum(rejected.unsuited for _, rejected in refused)
        return attempts == 1 or tried - unsuited >= attempts or tried >= _MAX_TRIED

    async def _selected(
        self,
        request: ChatRequest,
        tried: list[str],
        refused: Refusals,
    ) -> RoutedExchange:
        selection = await self._selector.select(request, tried, refused=bool(refused))
        return RoutedExchange(
            self._resources,
            selection.decided,
            request.size,
            selection.max_usd,
            conversation=request.conversation,
            duel=request.may_duel and self.duels.drawn(selection.decided.id),
            before=[each for each, _ in refused],
        )

    async def _unanswered(
        self,
        refused: Refusals,
        last: tuple[RoutedExchange, Failed] | None,
        stream: EventStream | None,
    ) -> Reply | None:
        """The first refusal, since all arms may have refused the request itself; a failure if the
        arm that refused was merely unsuited.
        """
        if last is not None and (not refused or refused[0][1].unsuited):
            exchange, failed = last
            raise exchange.error(failed)
        exchange, rejected = refused[0]
        body = rejection_body(rejected, exchange.spec.id)
        if stream is not None and stream.started:
            await stream.fail(body)
            return None
        return Reply(body, exchange.headers(), rejected.status)

    async def _attempt(
        self, request: ChatRequest, exchange: RoutedExchange, stream: EventStream | None
    ) -> Reply | None:
        if stream is not None:
            await self._streamed(stream, request, exchange)
            return None
        async with exchange:
            answer = await exchange.whole(request.path, request.body, request.headers)
        self._judge(request, exchange, answer_text(answer))
        headers = exchange.headers()
        if exchange.cost_usd is not None:
            headers["x-cost-usd"] = f"{exchange.cost_usd:.8f}"
        return Reply(msgspec.json.encode(answer | {"id": exchange.decided.id}), headers)

    async def _streamed(
        self, stream: EventStream, request: ChatRequest, exchange: RoutedExchange
    ) -> None:
        options = request.body.get("stream_options")
        options = dict(options) if isinstance(options, Mapping) else {}
        body = dict(request.body)
        if self._resources.upstreams.spec(exchange.spec.upstream).stream_usage:
            body["stream_options"] = options | {"include_usage": True}
        answer = StreamedAnswer(
            hide_usage=not options.get("include_usage"),
            text=[] if self._judges or exchange.duel else None,
        )
        stream.headers = exchange.headers()
        max_bytes = self._resources.settings.max_answer_bytes
        async with (
            exchange,
            exchange.sent(request.path, body, request.headers) as (response, span),
        ):
            try:
                await streaming.pass_on(stream, response, exchange, answer, max_bytes)
            except Failed as failed:  # before it began, but its cost may have been reported
                failed.usage = failed.usage or answer.usage
                raise
            span.streamed(answer, exchange.first_token_s)
        if answer.complete:
            self._judge(request, exchange, answer.whole_text())

    def _judge(self, request: ChatRequest, exchange: RoutedExchange, text: str | None) -> None:
        """Start background work after the answer is sent."""
        if text is None:
            return
        served = ServedAnswer(exchange.decided, request.body, text, request.routing.expected)
        self._judges.judge(served)
        if exchange.duel:
            self.duels.begin(served, lambda: self._second(request, exchange.decided))

    async def _second(self, request: ChatRequest, first: ev.Decided) -> ServedAnswer | None:
        """The answer of another arm to the same question, which the user does not wait for."""
        selection = await self._selector.select(request, [first.arm], duel_of=first.id)
        exchange = RoutedExchange(
            self._resources,
            selection.decided,
            request.size,
            selection.max_usd,
            purpose="duel",
        )
        hidden = ("stream", "stream_options")
        body = {name: value for name, value in request.body.items() if name not in hidden}
        try:
            async with exchange:
                answer = await exchange.whole(request.path, body, {})
        except Rejected:
            await exchange.outdone()  # the first arm answered it
            return None
        except Failed:
            return None
        text = answer_text(answer)
        if text is None:
            return None
        served = ServedAnswer(exchange.decided, request.body, text, request.routing.expected)
        self._judges.judge(served)
        return served
