"""Answers a client's request in any dialect: decide, call the arm, pass the answer on, learn.

If an attempt fails before any content was sent, another decision follows without the arms that
failed. So its propensities are the true ones. Each failed arm gets its own outcome, from which the
policy learns that it is unreliable. A refused request is tried with another arm too. Only if that
one answers was the refusal about the arm, and then it is learned as a failure.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from functools import partial
from typing import Any

import msgspec

from bandit_service import clock
from bandit_service.core import events as ev
from bandit_service.core.deployments import calls_in
from bandit_service.core.errors import (
    BudgetExhausted,
    Busy,
    Refused,
    ServiceError,
    Unavailable,
    stopped,
)
from bandit_service.core.outcomes import Signals
from bandit_service.gateway import counting, streaming
from bandit_service.gateway.affinity import hashed, is_signed, ties_of, vendor_of
from bandit_service.gateway.allowance import Allowance
from bandit_service.gateway.arm_fit import pinned
from bandit_service.gateway.client import Client, Reply
from bandit_service.gateway.duels import Duels
from bandit_service.gateway.embedding import Embedding
from bandit_service.gateway.event_stream import EventStream
from bandit_service.gateway.failures import Failed, Rejected, rejection
from bandit_service.gateway.implicit_signals import ImplicitSignals, Turn, Whose
from bandit_service.gateway.judge_pool import JudgePool, ServedAnswer
from bandit_service.gateway.judges import answer_text, question_text
from bandit_service.gateway.large_requests import LARGE, apart
from bandit_service.gateway.providers import Teller
from bandit_service.gateway.request import Asked, ChatRequest, RoutingRequest, Said, forwarded
from bandit_service.gateway.request_size import size_of
from bandit_service.gateway.resources import Resources
from bandit_service.gateway.routed_exchange import RoutedExchange
from bandit_service.gateway.selection import ArmSelector, Selection
from bandit_service.gateway.sessions import session_of, wanted
from bandit_service.gateway.streamed_answer import StreamedAnswer
from bandit_service.gateway.text_chunks import Renamed
from bandit_service.gateway.translation import told_of
from bandit_service.gateway.upstreams import Upstreams
from bandit_service.gateway.watch import Watch
from bandit_service.settings import DuelSettings
from bandit_service.settings.budgets import BudgetSpec
from bandit_service.settings.judges import JudgeSpec
from bandit_service.settings.upstreams import Upstream, UpstreamSpec

_log = logging.getLogger("bandit.gateway")

Refusals = list[tuple[RoutedExchange, Rejected]]


class Gateway:
    """Answers requests with the arms that have an upstream."""

    def __init__(
        self,
        resources: Resources,
        judges: tuple[JudgeSpec, ...],
        duels: DuelSettings,
        implicit: ImplicitSignals,
    ) -> None:
        self.health = resources.health
        self.budgets = resources.budgets
        self.embedding = Embedding(resources)
        self._resources = resources
        self._judges = JudgePool(judges, resources)
        self.duels = Duels(duels, resources, self._judges)
        self._selector = ArmSelector(resources)
        self._implicit = implicit
        self._watch = Watch(asyncio.get_running_loop())

    @property
    def upstreams(self) -> Upstreams:
        """The providers that are configured now."""
        return self._resources.upstreams

    def reconfigure(
        self,
        upstreams: Sequence[Upstream],
        budgets: tuple[BudgetSpec, ...],
        judges: tuple[JudgeSpec, ...],
        duels: DuelSettings,
    ) -> None:
        """Work with these from here on; calls under way go on with what they began with."""
        resources = self._resources
        resources.upstreams = resources.upstreams.with_others(upstreams)
        resources.health.upstreams = resources.upstreams
        resources.budgets.specs = budgets
        self._judges.reconfigure(judges)
        self.duels.settings = duels

    async def close(self) -> None:
        """End judgements, finish pending writes, and close the connections."""
        await self._judges.close()
        await self._resources.close()

    def models(self) -> list[ev.ArmSpec]:
        """The arms that clients can name, of every kind."""
        return self._resources.models()

    async def count_tokens(self, client: Client, asked: Asked) -> Reply:
        """How many tokens a request of the Messages or the Responses API has."""
        return await counting.count_tokens(self._resources, client, asked)

    async def answer(
        self, client: Client, asked: Asked, routing: RoutingRequest, caller: str
    ) -> Reply | None:
        """Decide and answer; None if the answer was streamed. Raises ServiceError if no arm could.

        If the client leaves before its answer begins, the call ends there, upstream too.
        """
        read = partial(self._read, client, asked, routing, caller)
        request = read() if asked.parts <= LARGE else await apart(asked.parts, read)
        with client.waiting():
            answering = self._tried if request.turn is None else self._signalled
            if not asked.body.get("stream"):
                return await answering(request, None)
            front, keep_alive_s = asked.front, self._resources.settings.keep_alive_s
            stream = EventStream(client, self._watch, keep_alive_s, front.KEEP_ALIVE)
            with stream:
                try:
                    return await answering(request, stream)
                except ServiceError as error:
                    if not stream.started:
                        raise
                    self._resources.telemetry.rejected(error)
                    await stream.end(_teller(asked).fail(error.status, error.body()))
                except asyncio.CancelledError:
                    if not stream.started or not client.cut():
                        raise
                    cut = stopped()
                    await stream.end(_teller(asked).fail(cut.status, cut.body()))
        return None

    def _read(
        self, client: Client, asked: Asked, routing: RoutingRequest, caller: str
    ) -> ChatRequest:
        """The request with what its messages say, all of which are looked at."""
        conversation = self._conversation(client, asked, routing, caller)
        ties = ties_of(asked.body)
        calls = ties.calls if conversation else None
        return ChatRequest(
            asked,
            size_of(asked.body, asked.own, asked.lost is not None, asked.parts),
            routing,
            Allowance(self._resources.settings),
            caller,
            conversation,
            forwarded(client.headers),
            forwarded(client.headers, asked.front.OWN_HEADERS),
            calls is not None,
            hashed(conversation, calls) if calls else (),
            bool(conversation) and is_signed(asked.kind, asked.own, ties),
            bool(conversation) and ties.thought,
            not routing.named and ties.begins,
            pinned(client.headers),
            self._turn(asked, routing, caller),
        )

    def _turn(self, asked: Asked, routing: RoutingRequest, caller: str) -> Turn | None:
        """The request as implicit signals see it."""
        if not self._implicit.looks:
            return None
        query, now = routing.decide, self._resources.router.writer.now()
        whose = Whose(routing.named, query.session, query.unit)
        return self._implicit.turn(asked.body.get("messages"), (caller, query.tenant), whose, now)

    def _conversation(
        self, client: Client, asked: Asked, routing: RoutingRequest, caller: str
    ) -> str:
        if not (wanted(client.headers) and self._resources.settings.sticky):
            return ""
        return session_of(
            client.headers,
            asked.own or asked.body,
            asked.body,
            named=routing.named,
            session=routing.decide.session,
            user=routing.user,
            caller=caller,
            tenant=routing.decide.tenant,
        )

    async def _signalled(self, request: ChatRequest, stream: EventStream | None) -> Reply | None:
        """The answer of a request that may say something about an earlier answer."""
        turn = request.turn
        assert turn is not None
        if (said := self._implicit.said(turn)) is not None:
            await self._imply(*said)
        with self._implicit.under_way(turn):
            return await self._tried(request, stream)

    async def _imply(self, signal: str, decision_id: str) -> None:
        """Learn what a client did with an answer; the request continues even if this fails."""
        router = self._resources.router
        try:
            status = await router.observe(decision_id, Signals(metrics={signal: 1.0}))
        except ServiceError as error:
            _log.info("not learned", extra={"decision_id": decision_id, "why": error.message})
        else:
            router.count_reward(decision_id, status)

    async def _tried(self, request: ChatRequest, stream: EventStream | None) -> Reply | None:
        tried: list[str] = []
        refused: Refusals = []
        last: tuple[RoutedExchange, Failed] | None = None
        while True:
            try:
                selection = await self._selector.select(request, tried, refused=bool(refused))
            except (Refused, Unavailable, Busy) as error:
                if not tried or (isinstance(error, BudgetExhausted) and not refused):
                    raise
                return await self._unanswered(request.asked, refused, last, stream)
            exchange = self._exchange(request, selection, refused)
            try:
                return await self._attempt(request, exchange, stream)
            except Rejected as rejected:
                refused.append((exchange, rejected))
            except Failed as failed:
                last = (exchange, failed)
            tried.append(exchange.spec.id)
            if request.routing.direct or self._exhausted(len(tried), refused):
                return await self._unanswered(request.asked, refused, last, stream)
            if why := request.allowance.spent():
                if last is not None:
                    last[1].ended(why)
                if refused:
                    refused[0][1].why = why
                return await self._unanswered(request.asked, refused, last, stream)

    def _exhausted(self, tried: int, refused: Refusals) -> bool:
        """Whether no further arm is tried for a request.

        If an arm says that it cannot do the request, this says nothing about the others, so it does
        not count as an attempt.
        """
        attempts = self._resources.settings.attempts
        unsuited = sum(rejected.unsuited for _, rejected in refused)
        return attempts == 1 or tried - unsuited >= attempts

    def _exchange(
        self, request: ChatRequest, selection: Selection, refused: Refusals
    ) -> RoutedExchange:
        return RoutedExchange(
            self._resources,
            selection.decided,
            request.size,
            selection.max_usd,
            duel=self.duels.drawn(selection.decided.id) and request.may_duel,
            before=[each for each, _ in refused],
            vendor=selection.vendor,
            upstreams=selection.upstreams,
            allowance=request.allowance,
        )

    async def _unanswered(
        self,
        asked: Asked,
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
        error = rejection(rejected, exchange.spec.id)
        if stream is not None and stream.started:
            await stream.end(_teller(asked).fail(rejected.status, error))
            return None
        body = msgspec.json.encode(asked.front.error(rejected.status, error))
        return Reply(body, exchange.headers(), rejected.status)

    async def _attempt(
        self, request: ChatRequest, exchange: RoutedExchange, stream: EventStream | None
    ) -> Reply | None:
        if request.turn is not None:
            request.turn.decision_id = exchange.decision_id
        if stream is not None:
            await self._streamed(stream, request, exchange)
            return None
        async with exchange:
            answer, told = await exchange.over(lambda: self._whole(request, exchange))
        if request.turn is not None:
            request.turn.ended = True
        if self._keeps_text(exchange):
            self._judge(request, exchange, answer_text(answer))
        headers = exchange.answer_headers()
        if exchange.cost_usd is not None:
            headers["x-cost-usd"] = f"{exchange.cost_usd:.8f}"
        return Reply(msgspec.json.encode(told), headers)

    async def _whole(
        self, request: ChatRequest, exchange: RoutedExchange
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """The answer in OpenAI's shape, and as the client is told it."""
        asked, upstream = request.asked, self._upstream(exchange)
        said = await self._said(request, upstream)
        answer = await exchange.whole(said.path, said.body, said.headers)
        if asked.passes(upstream.kind):
            return answer, exchange.raw | {"id": exchange.decided.id}
        return answer, _told(asked, answer, exchange)

    async def _streamed(
        self, stream: EventStream, request: ChatRequest, exchange: RoutedExchange
    ) -> None:
        async with exchange:
            answer = await exchange.over(lambda: self._passed_on(stream, request, exchange))
        if answer.complete:
            if request.turn is not None:
                request.turn.ended = True
            self._judge(request, exchange, answer.whole_text())

    async def _passed_on(
        self, stream: EventStream, request: ChatRequest, exchange: RoutedExchange
    ) -> StreamedAnswer:
        """The stream, once it has ended. Raises Failed or Rejected before its first word."""
        asked, upstream = request.asked, self._upstream(exchange)
        said = await self._said(request, upstream)
        hidden = asked.kind == "openai" and not request.stream_options.get("include_usage")
        plain = asked.kind == upstream.kind == "openai"
        answer = StreamedAnswer(
            teller=_teller(asked, exchange.decided.id),
            hide_usage=hidden,
            passed=asked.passes(upstream.kind),
            renamed=Renamed(exchange.decided.id, hidden) if plain else None,
            text=[] if self._keeps_text(exchange) else None,
        )
        stream.headers = exchange.answer_headers()
        max_bytes = self._resources.settings.max_answer_bytes
        async with exchange.sent(said.path, said.body, said.headers) as (response, span):
            try:
                await streaming.pass_on(stream, response, exchange, answer, max_bytes)
            except Failed as failed:  # before it began, but its cost may have been reported
                failed.usage = failed.usage or answer.usage
                raise
            span.streamed(answer, exchange.first_token_s)
        return answer

    def _upstream(self, exchange: RoutedExchange) -> UpstreamSpec:
        return exchange.upstreams.spec(exchange.spec.upstream)

    async def _said(
        self, request: ChatRequest, upstream: UpstreamSpec, whole: bool = False
    ) -> Said:
        """What is sent to this upstream."""
        thought, parts = self._thought(request, upstream), request.asked.parts
        said = partial(request.to, upstream, whole=whole, thought=thought)
        return said() if parts <= LARGE else await apart(parts, said)

    def _thought(self, request: ChatRequest, upstream: UpstreamSpec) -> bool:
        """Whether the thinking of earlier turns may be this provider's: it answered one of them, or
        nobody knows who did.
        """
        if not request.thought:
            return True
        world, spec = self._resources.router.world, self._resources.upstreams.spec
        visits = world.conversations.answered_by(request.conversation)
        calls = (
            call.upstream
            for visit in visits
            if visit.arm in world.arms
            for call in calls_in(world.arms[visit.arm].spec, visit.deployment)
        )
        known = {vendor_of(spec(id)) for id in calls if id in self._resources.upstreams}
        return not known or vendor_of(upstream) in known

    def _keeps_text(self, exchange: RoutedExchange) -> bool:
        """Whether anything reads the answer after it is sent."""
        texts = self._resources.router.texts
        return bool(self._judges) or exchange.duel or (texts is not None and texts.answers)

    def _judge(self, request: ChatRequest, exchange: RoutedExchange, text: str | None) -> None:
        """Start background work after the answer is sent."""
        if (texts := self._resources.router.texts) is not None:
            texts.note(exchange.decided, question_text(request.body), text)
        if text is None:
            return
        served = ServedAnswer(exchange.decided, request.body, text, request.routing.expected)
        self._judges.judge(served)
        if exchange.duel and not exchange.other:
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
            vendor=selection.vendor,
            upstreams=selection.upstreams,
        )

        async def ask() -> dict[str, Any]:
            upstream = self._upstream(exchange)
            said = await self._said(request, upstream, whole=True)
            own = request.own_headers if request.asked.passes(upstream.kind) else {}
            return await exchange.whole(said.path, said.body, own)

        try:
            async with exchange:
                answer = await exchange.over(ask)
        except Rejected:
            await exchange.outdone()  # the first arm answered it
            return None
        except Failed:
            return None
        text = None if exchange.other else answer_text(answer)
        if text is None:  # another arm's model is not compared in this one's place
            return None
        served = ServedAnswer(exchange.decided, request.body, text, request.routing.expected)
        self._judges.judge(served)
        return served


def _teller(asked: Asked, id: str = "") -> Teller:
    return asked.front.teller(asked.own, id, int(clock.now()))


def _told(asked: Asked, answer: dict[str, Any], exchange: RoutedExchange) -> dict[str, Any]:
    """A whole answer in the client's dialect. Raises Failed, with what it costs all the same."""
    try:
        return told_of(asked.front, answer, asked.own, exchange.decided.id)
    except Failed as failed:
        failed.usage = exchange.usage
        raise
