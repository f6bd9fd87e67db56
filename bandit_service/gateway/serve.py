"""POST /v1/chat/completions and its kin: decide, call the arm, pass the answer on, teach.

An attempt that fails before anything was passed on is followed by another decision without the
arms that failed, so its propensities are the true ones, and each failed arm gets an outcome of its
own, from which the policy learns that it is unreliable.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp
import msgspec
from aiohttp import web

from bandit_service import wire
from bandit_service.core import events as ev
from bandit_service.core.errors import (
    NoEligibleArm,
    ServiceError,
    Unavailable,
    Unknown,
    UpstreamError,
    UpstreamTimeout,
)
from bandit_service.gateway import dialects, relay
from bandit_service.gateway.affinity import Affinity
from bandit_service.gateway.affinity import conversation as conversation_of
from bandit_service.gateway.budgets import Budgets
from bandit_service.gateway.duels import DuelRules, Duels
from bandit_service.gateway.health import Health
from bandit_service.gateway.judges import JudgeSpec, answer_text
from bandit_service.gateway.judging import Answered, Judging
from bandit_service.gateway.upstreams import Failed, Rejected, Upstreams, error_body, whole
from bandit_service.gateway.usage import (
    cached_tokens,
    completion_tokens,
    cost_usd,
    most_usd,
    saved_usd,
)
from bandit_service.gateway.wanted import Wanted
from bandit_service.router import Router
from bandit_service.telemetry import Telemetry
from policies import ArmId

_log = logging.getLogger("bandit.gateway")
_LOOK_S = 0.25


@dataclass(frozen=True, slots=True)
class GatewayRules:
    """attempts: arms tried for one request. failure_quality: what a failed answer is worth.

    latency_signal: what is reported as latency_s: "total" for the whole answer, "first_token", or
    "per_token" for the whole divided by the tokens of the answer.
    """

    attempts: int = 3
    failure_quality: float = 0.0
    latency_signal: str = "total"
    max_answer_bytes: int = 33_554_432


@dataclass(slots=True)
class _Call:
    """One decision being carried out. `duel`: a second arm will answer too."""

    decided: ev.Decided
    spec: ev.ArmSpec
    begun: float
    conversation: bytes
    duel: bool = False
    first: float | None = None

    def headers(self) -> dict[str, str]:
        headers = {
            "x-decision-id": self.decided.id,
            "x-arm": self.decided.arm,
            "x-policy": self.decided.policy,
        }
        if self.decided.experiment:
            headers |= {"x-experiment": self.decided.experiment, "x-variant": self.decided.variant}
        return headers | {"x-duel": self.decided.id} if self.duel else headers


@dataclass(frozen=True, slots=True)
class _Asked:
    """What the client asked for."""

    path: str
    body: dict[str, Any]
    wanted: Wanted
    caller: str
    conversation: bytes

    @property
    def may_duel(self) -> bool:
        return not self.wanted.direct and self.body.get("n") in (None, 1)


class Gateway:
    """Routes requests of OpenAI's wire format to arms that have an upstream."""

    def __init__(
        self,
        router: Router,
        upstreams: Upstreams,
        rules: GatewayRules,
        health: Health,
        affinity: Affinity,
        budgets: Budgets,
        judges: tuple[JudgeSpec, ...],
        duels: DuelRules,
        telemetry: Telemetry,
    ) -> None:
        self.health = health
        self._router = router
        self._upstreams = upstreams
        self._rules = rules
        self._affinity = affinity
        self.budgets = budgets
        self._judging = Judging(judges, router, self._ask, telemetry)
        self.duels = Duels(duels, router, self._judging, telemetry)
        self._telemetry = telemetry
        self._teaching: set[asyncio.Task[None]] = set()
        self._numbers = itertools.count()

    async def close(self) -> None:
        """Wait for judgements and outcomes under way, and close the connections."""
        await self._judging.close()
        await asyncio.gather(*self._teaching, return_exceptions=True)
        await self._upstreams.close()

    def models(self) -> list[ev.ArmSpec]:
        """The arms that can be called."""
        offered = (record.spec for record in self._router.world.offered())
        return [spec for spec in offered if spec.upstream in self._upstreams]

    async def answer(
        self, request: web.Request, path: str, body: dict[str, Any], wanted: Wanted, caller: str
    ) -> web.StreamResponse:
        """Decide and answer; a ServiceError where no arm could."""
        conversation = conversation_of(body, wanted.request.tenant, wanted.request.unit)
        asked = _Asked(path, body, wanted, caller, conversation)
        tried: list[str] = []
        last: tuple[str, Failed] | None = None
        while True:
            try:
                call = await self._decided(asked, tried)
            except (NoEligibleArm, Unavailable):
                if last is None:
                    raise
                raise _failure(*last) from None
            try:
                return await self._attempt(request, asked, call)
            except Rejected as rejected:
                self.health.left(call.spec.id)
                self.budgets.settle(call.decided.id)
                return web.Response(
                    body=error_body(rejected, call.spec.id), status=rejected.status,
                    headers=call.headers(), content_type="application/json",
                )  # fmt: skip
            except Failed as failed:
                self._failed(call, failed)
                last = (call.spec.id, failed)
                tried.append(call.spec.id)
                if wanted.direct or len(tried) >= self._rules.attempts:
                    raise _failure(*last) from None

    async def pass_through(
        self, request: web.Request, path: str, body: dict[str, Any], arm: str
    ) -> web.StreamResponse:
        """Send to one arm and give back what it says; nothing is decided and nothing learned."""
        record = self._router.world.arms.get(ArmId(arm))
        if record is None or record.retired or record.spec.upstream not in self._upstreams:
            raise Unknown(f"model: no arm {arm!r} with an upstream", param="model")
        spec = record.spec
        sent = body | {"model": spec.model or spec.id}
        try:
            async with self._upstreams.send(spec.upstream, path, sent, _onward(request)) as given:
                answer = await whole(given, self._rules.max_answer_bytes)
        except Rejected as rejected:
            return web.Response(
                body=error_body(rejected, arm), status=rejected.status,
                headers={"x-arm": arm}, content_type="application/json",
            )  # fmt: skip
        except Failed as failed:
            raise _failure(arm, failed) from None
        return web.Response(
            body=msgspec.json.encode(answer), headers={"x-arm": arm},
            content_type="application/json",
        )  # fmt: skip

    async def _decided(self, asked: _Asked, tried: list[str], duel_of: str = "") -> _Call:
        """Decide among the arms that answer and that the budgets have money for."""
        wanted, caller, conversation, body = (
            asked.wanted, asked.caller, b"" if duel_of else asked.conversation, asked.body
        )  # fmt: skip
        world, tenant, now = self._router.world, wanted.request.tenant, self._router.writer.now()
        most = {id: most_usd(world.arms[ArmId(id)].spec, body)
                for id in self._offered(wanted, tried, asked.path, body)}  # fmt: skip
        arms = self.budgets.fitting(world.spend, most, tenant, caller, now)
        worth = wanted.request.willingness_to_pay or self._router.rules.reward.willingness_to_pay
        question = msgspec.structs.replace(
            wanted.request,
            arms=arms,
            willingness_to_pay=self.budgets.worth(world.spend, worth, tenant, caller, now),
        )
        before = self._affinity.arm(conversation, time.monotonic())
        margin = self._affinity.rules.margin or 0.0
        waiting = f"waiting {next(self._numbers)}"
        self.budgets.reserve(waiting, max(most[id] for id in arms), tenant, caller)
        try:
            decided = await self._router.decide(
                question, before, margin, caller, duel_of, wanted.direct
            )
            self.budgets.reserve(decided.id, most[decided.arm], tenant, caller)
        finally:
            self.budgets.settle(waiting)
        self.health.begun(decided.arm)
        if before is not None:
            self._telemetry.conversation_went_on(decided.arm == before)
        spec = self._router.world.arms[decided.arm].spec
        duel = not duel_of and asked.may_duel and self.duels.drawn(decided.id)
        return _Call(decided, spec, time.perf_counter(), conversation, duel)

    def _offered(
        self, wanted: Wanted, tried: list[str], path: str, body: Mapping[str, Any]
    ) -> list[str]:
        """The arms that may be drawn: with an upstream that can be asked this, not tried yet, and
        answering.

        Where none of them answers, all are offered: a masked arm is better than none.
        """
        callable_now: dict[str, ev.ArmSpec] = {spec.id: spec for spec in self.models()}
        unsuited = self._upstreams.unsuited(path, body)
        named = wanted.request.arms
        if wanted.direct:
            assert named is not None
            if named[0] not in callable_now:
                there_are = ", ".join(["auto", *callable_now])
                raise Unknown(f"model: no {named[0]!r}; there are {there_are}", param="model")
            if refused := unsuited.get(callable_now[named[0]].upstream):
                raise refused
            return named
        ids = [id for id in callable_now if id not in tried and (named is None or id in named)]
        if ids and all(callable_now[id].upstream in unsuited for id in ids):
            raise unsuited[callable_now[ids[0]].upstream]
        ids = [id for id in ids if callable_now[id].upstream not in unsuited]
        if not ids:
            raise Unavailable("no arm that may be called has an upstream: configure [[upstreams]]")
        now = time.monotonic()
        healthy = [id for id in ids if self.health.available(id, now, callable_now[id].max_running)]
        return healthy or ids

    async def _attempt(
        self, request: web.Request, asked: _Asked, call: _Call
    ) -> web.StreamResponse:
        if asked.body.get("stream"):
            options = asked.body.get("stream_options")
            known = dict(options) if isinstance(options, Mapping) else {}
            sent = asked.body | {
                "model": call.spec.model or call.spec.id,
                "stream_options": known | {"include_usage": True},
            }
            upstream, onward = call.spec.upstream, _onward(request)
            async with self._upstreams.send(upstream, asked.path, sent, onward) as response:
                return await self._stream(
                    request, response, asked, call, not known.get("include_usage")
                )
        answer = await self._whole(call.spec, asked.path, asked.body, _onward(request))
        self.health.succeeded(call.spec.id)
        cost = self._ended(call, answer.get("usage"))
        self._judge(asked, call, answer_text(answer))
        headers = call.headers()
        if cost is not None:
            headers["x-cost-usd"] = f"{cost:.8f}"
        return web.Response(
            body=msgspec.json.encode(answer | {"id": call.decided.id}), headers=headers,
            content_type="application/json",
        )  # fmt: skip

    async def _whole(
        self, spec: ev.ArmSpec, path: str, body: Mapping[str, Any], onward: Mapping[str, str]
    ) -> dict[str, Any]:
        sent = {**body, "model": spec.model or spec.id}
        async with self._upstreams.send(spec.upstream, path, sent, onward) as response:
            answer = await whole(response, self._rules.max_answer_bytes)
        answer = dialects.answered(self._upstreams.spec(spec.upstream).kind, answer)
        if not isinstance(answer.get("choices"), list):
            raise Failed("the answer has no choices")
        return answer

    async def _ask(self, spec: ev.ArmSpec, body: Mapping[str, Any]) -> dict[str, Any]:
        """A judge's question: no decision, but the arm's health and its bound of calls count."""
        if not self.health.available(spec.id, time.monotonic(), spec.max_running):
            raise Failed("the arm does not answer at present")
        self.health.begun(spec.id)
        try:
            answer = await self._whole(spec, "/chat/completions", body, {})
        except Failed as failed:
            self.health.failed(spec.id, time.monotonic(), failed.retry_after_s)
            raise
        except BaseException:
            self.health.left(spec.id)
            raise
        self.health.succeeded(spec.id)
        return answer

    def _judge(self, asked: _Asked, call: _Call, text: str | None) -> None:
        """What happens behind the user's back once the answer is whole."""
        if text is None:
            return
        served = Answered(call.decided, asked.body, text, asked.wanted.expected)
        self._judging.answered(served)
        if call.duel:
            self.duels.begin(served, lambda: self._second(asked, call))

    async def _second(self, asked: _Asked, first: _Call) -> Answered | None:
        """The answer of another arm to the same question, which the user does not wait for."""
        call = await self._decided(asked, [first.spec.id], duel_of=first.decided.id)
        body = {name: value for name, value in asked.body.items()
                if name not in ("stream", "stream_options")}  # fmt: skip
        try:
            answer = await self._whole(call.spec, asked.path, body, {})
        except Rejected:
            self.health.left(call.spec.id)
            self.budgets.settle(call.decided.id)
            return None
        except Failed as failed:
            self._failed(call, failed)
            return None
        self.health.succeeded(call.spec.id)
        self._ended(call, answer.get("usage"))
        text = answer_text(answer)
        if text is None:
            return None
        return Answered(call.decided, asked.body, text, asked.wanted.expected)

    async def _stream(
        self,
        request: web.Request,
        upstream: aiohttp.ClientResponse,
        asked: _Asked,
        call: _Call,
        hide_usage: bool,
    ) -> web.StreamResponse:
        """Pass on each event as it comes. Until the first one is there the arm may still fail."""
        passed = relay.Passed(text=[] if self._judging or call.duel else None)
        kind = self._upstreams.spec(call.spec.upstream).kind
        events = dialects.streamed(kind, relay.events(upstream))
        first = await anext(events, None)
        if first is None:
            raise Failed("the stream ended before it began")
        piece = relay.rewritten(first, call.decided.id, passed, hide_usage)
        call.first = time.perf_counter()
        response = web.StreamResponse(
            headers=call.headers()
            | {"Content-Type": "text/event-stream", "Cache-Control": "no-cache"}
        )
        await response.prepare(request)
        why: Failed | None = None
        try:
            if piece is not None:
                await response.write(piece)
            async for data in _while_there(events, request):
                piece = relay.rewritten(data, call.decided.id, passed, hide_usage)
                if piece is not None:
                    await response.write(piece)
        except Failed as failed:
            why = failed
        except (ConnectionError, _Gone):
            self.health.left(call.spec.id)  # the client left: the upstream is closed with it
            self._telemetry.client_left()
            self._ended(call, passed.usage)
            return response
        if why is None and not passed.finished:
            why = Failed("the stream ended without an end")
        if why is not None:
            self._failed(call, why, passed.usage)
            error = _failure(call.spec.id, why).body()
            await _last_words(response, b"data: " + msgspec.json.encode({"error": error}) + b"\n\n")
            return response
        self.health.succeeded(call.spec.id)
        self._ended(call, passed.usage)
        await _last_words(response, b"")
        self._judge(asked, call, passed.whole_text())
        return response

    def _ended(self, call: _Call, usage: object) -> float | None:
        """Teach cost and latency; the cost where it is known."""
        now = time.perf_counter()
        cost = cost_usd(usage, call.spec)
        tokens = completion_tokens(usage)
        self._affinity.used(call.conversation, call.spec.id, time.monotonic())
        self._telemetry.cached_prompt(cached_tokens(usage), saved_usd(usage, call.spec))
        self._telemetry.answered(
            call.spec.id, now - call.begun, (call.first or now) - call.begun, tokens
        )
        self._teach(call, cost, now, tokens=tokens)
        return cost

    def _failed(self, call: _Call, failed: Failed, usage: object = None) -> None:
        self.health.failed(call.spec.id, time.monotonic(), failed.retry_after_s)
        self._telemetry.upstream_failed(call.spec.id, "timeout" if failed.timeout else "failed")
        _log.warning("upstream failed", extra={"decision_id": call.decided.id, "why": str(failed)})
        now = time.perf_counter()
        self._teach(call, cost_usd(usage, call.spec), now, self._rules.failure_quality)

    def _teach(
        self,
        call: _Call,
        cost: float | None,
        now: float,
        quality: float | None = None,
        tokens: int | None = None,
    ) -> None:
        signal = self._rules.latency_signal
        latency_s = (call.first or now if signal == "first_token" else now) - call.begun
        if signal == "per_token":
            latency_s /= max(1, tokens or call.spec.expected_output_tokens)
        outcome = wire.RewardRequest(
            decision_id=call.decided.id,
            cost_usd=cost,
            latency_s=latency_s,
            quality=quality,
        )
        task = asyncio.get_running_loop().create_task(self._reward(outcome))
        self._teaching.add(task)
        task.add_done_callback(self._teaching.discard)

    async def _reward(self, outcome: wire.RewardRequest) -> None:
        assert outcome.decision_id is not None
        try:
            status = await self._router.reward(outcome)
        except ServiceError as error:
            _log.error(
                "outcome not learned",
                extra={"decision_id": outcome.decision_id, "why": error.message},
            )
            return
        finally:
            self.budgets.settle(outcome.decision_id)
        self._router.count_reward(outcome.decision_id, status)


class _Gone(Exception):
    """The client is not there any more."""


async def _while_there(events: AsyncIterator[bytes], request: web.Request) -> AsyncIterator[bytes]:
    """The events; _Gone as soon as the client has left, also while nothing comes."""
    while True:
        waiting = asyncio.ensure_future(anext(events, None))
        try:
            while not waiting.done():
                await asyncio.wait((waiting,), timeout=_LOOK_S)
                if request.transport is None or request.transport.is_closing():
                    raise _Gone
        finally:
            if not waiting.done():
                waiting.cancel()
                await asyncio.gather(waiting, return_exceptions=True)
        data = waiting.result()
        if data is None:
            return
        yield data


async def _last_words(response: web.StreamResponse, words: bytes) -> None:
    try:
        if words:
            await response.write(words)
        await response.write_eof()
    except ConnectionError:
        return


def _onward(request: web.Request) -> dict[str, str]:
    """What of the client's headers goes on to the upstream."""
    return {
        name: request.headers[name]
        for name in ("traceparent", "tracestate")
        if name in request.headers
    }


def _failure(arm: str, failed: Failed) -> UpstreamError:
    message = f"arm {arm!r} gave no answer: {failed}"
    if failed.timeout:
        return UpstreamTimeout(message)
    return UpstreamError(message, failed.status or 502, failed.retry_after_s)
