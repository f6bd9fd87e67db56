"""POST /v1/chat/completions and its kin: decide, call the arm, pass the answer on, teach.

An attempt that fails before anything was said is followed by another decision without the arms that
failed, so its propensities are the true ones, and each failed arm gets an outcome of its own, from
which the policy learns that it is unreliable. A request that is refused is tried with another arm
too: only if that one answers, the refusal was about the arm, which then learns it as a failure.
"""

from __future__ import annotations

import asyncio
import time
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
from bandit_service.gateway import (
    spans,
    streaming,
)
from bandit_service.gateway import (
    streamed_answer as relay,
)
from bandit_service.gateway import (
    translation as dialects,
)
from bandit_service.gateway.affinity import Affinity
from bandit_service.gateway.affinity import conversation as conversation_of
from bandit_service.gateway.budgets import Budgets
from bandit_service.gateway.client import Client, Reply
from bandit_service.gateway.duels import DuelRules, Duels
from bandit_service.gateway.event_stream import Line, event
from bandit_service.gateway.exchange import Teaching
from bandit_service.gateway.health import Health
from bandit_service.gateway.judge_pool import Answered, Judging
from bandit_service.gateway.judges import answer_text
from bandit_service.gateway.passthrough import Passing, onward_of
from bandit_service.gateway.request import Wanted
from bandit_service.gateway.request_size import said_in, size_of
from bandit_service.gateway.resources import Asked, Call, GatewayRules, counted, failure
from bandit_service.gateway.selection import Choosing
from bandit_service.gateway.upstreams import Failed, Rejected, Upstreams, error_body, whole
from bandit_service.gateway.usage import usage_in
from bandit_service.runtime.router import Router
from bandit_service.settings.judges import JudgeSpec
from bandit_service.telemetry.telemetry import Telemetry


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
        self.budgets = budgets
        self._router = router
        self._upstreams = upstreams
        self._rules = rules
        self._telemetry = telemetry
        self._judging = Judging(judges, router, self._ask, telemetry, rules.verdict_s)
        self.duels = Duels(duels, router, self._judging, telemetry)
        self._choosing = Choosing(
            router, upstreams, health, affinity, budgets, self.duels, telemetry
        )
        self.passing = Passing(router, upstreams, rules, health, budgets, telemetry)
        self._teaching = Teaching(router, rules, health, affinity, budgets, telemetry)

    async def close(self) -> None:
        """End judgements, write down what is under way, and close the connections."""
        await self._judging.close()
        await self._teaching.close()
        await self._upstreams.close()

    def models(self) -> list[ev.ArmSpec]:
        """The arms that can be called."""
        return self._choosing.models()

    async def answer(
        self, client: Client, path: str, body: dict[str, Any], wanted: Wanted, caller: str
    ) -> Reply | None:
        """Decide and answer; None where it was streamed, a ServiceError where no arm could.

        Where the client leaves before its answer begins, the call ends there, upstream too.
        """
        conversation = conversation_of(body, wanted.request.tenant, wanted.request.unit)
        asked = Asked(
            path, body, size_of(body), wanted, caller, conversation, onward_of(client.headers)
        )
        with client.waiting():
            if not body.get("stream"):
                return await self._answer(asked, None)
            line = Line(client, self._rules.keep_alive_s)
            async with line.kept_alive():
                try:
                    return await self._answer(asked, line)
                except ServiceError as error:
                    if not line.begun:
                        raise
                    self._telemetry.rejected(error)
                    await line.failed(event(error.body()))
                except asyncio.CancelledError:
                    if not line.begun or not client.cut():
                        raise
                    await line.failed(event(stopped().body()))
        return None

    async def _answer(self, asked: Asked, line: Line | None) -> Reply | None:
        tried: list[str] = []
        refused: list[tuple[Call, Rejected]] = []
        last: tuple[Call, Failed] | None = None
        while True:
            try:
                call = await self._choosing.decided(asked, tried, refused=bool(refused))
            except (Refused, Unavailable, Busy) as none:
                if not tried or (isinstance(none, BudgetExhausted) and not refused):
                    raise
                return await self._none_answered(refused, last, line)
            call.before = [each for each, _ in refused]
            try:
                return await self._attempt(asked, call, line)
            except Rejected as rejected:
                self._teaching.rejected(call)
                refused.append((call, rejected))
            except asyncio.CancelledError:
                await self._teaching.left(call)
                raise
            except Failed as failed:
                await self._teaching.failed(call, failed)
                last = (call, failed)
            tried.append(call.spec.id)
            if asked.wanted.direct or self._rules.over(len(tried), refused):
                return await self._none_answered(refused, last, line)

    async def _none_answered(
        self,
        refused: list[tuple[Call, Rejected]],
        last: tuple[Call, Failed] | None,
        line: Line | None,
    ) -> Reply | None:
        """The first refusal, since all that were asked may have meant the request; an arm's failure
        where it was that arm alone that could not do it.
        """
        if last is not None and (not refused or refused[0][1].unsuited):
            raise failure(*last)
        call, rejected = refused[0]
        body = error_body(rejected, call.spec.id)
        if line is not None and line.begun:
            await line.failed(body)
            return None
        return Reply(body, call.headers(), rejected.status)

    async def _attempt(self, asked: Asked, call: Call, line: Line | None) -> Reply | None:
        if line is not None:
            line.headers = call.headers()
            await self._streamed(line, asked, call)
            return None
        answer = await self._whole(call.spec, asked.path, asked.body, asked.onward, call.decided.id)
        cost = await self._teaching.answered(call, usage_in(answer), said_in(answer["choices"]))
        self._judge(asked, call, answer_text(answer))
        headers = call.headers()
        if cost is not None:
            headers["x-cost-usd"] = f"{cost:.8f}"
        return Reply(msgspec.json.encode(answer | {"id": call.decided.id}), headers)

    async def _streamed(self, line: Line, asked: Asked, call: Call) -> None:
        options = asked.body.get("stream_options")
        known = dict(options) if isinstance(options, Mapping) else {}
        upstream = self._upstreams.spec(call.spec.upstream)
        sent = asked.body | {"model": call.spec.model or call.spec.id}
        if upstream.stream_usage:
            sent["stream_options"] = known | {"include_usage": True}
        passed = relay.Passed(
            hide_usage=not known.get("include_usage"),
            text=[] if self._judging or call.duel else None,
        )
        with spans.calling(asked.path, call.spec, upstream, sent, call.decided.id) as span:
            onward = span.onward(asked.onward)
            async with self._upstreams.send(upstream.id, asked.path, sent, onward) as given:
                try:
                    await streaming.pass_on(
                        line, given, upstream.kind, call, passed, self._teaching,
                        self._rules.max_answer_bytes,
                    )  # fmt: skip
                except Failed as failed:  # before it began, but what it cost may have been told
                    failed.usage = failed.usage or passed.usage
                    raise
            span.streamed(call, passed)
        if passed.whole:
            self._judge(asked, call, passed.whole_text())

    async def _whole(
        self,
        spec: ev.ArmSpec,
        path: str,
        body: Mapping[str, Any],
        onward: Mapping[str, str],
        decision_id: str = "",
        purpose: str = "",
    ) -> dict[str, Any]:
        sent, upstream = (
            {**body, "model": spec.model or spec.id},
            self._upstreams.spec(spec.upstream),
        )
        with spans.calling(path, spec, upstream, sent, decision_id, purpose) as span:
            onward = span.onward(onward)
            async with self._upstreams.send(spec.upstream, path, sent, onward) as response:
                answer = await whole(response, self._rules.max_answer_bytes)
            answer = dialects.answered(upstream.kind, answer)
            choices = answer.get("choices")
            if not (isinstance(choices, list) and choices and isinstance(choices[0], dict)):
                failed = Failed("the answer has no choices")
                failed.usage = usage_in(answer)
                raise failed
            span.answered(answer)
        return answer

    async def _ask(self, spec: ev.ArmSpec, body: Mapping[str, Any]) -> dict[str, Any]:
        """A judge's question: no decision, but the arm's health and its bound of calls count."""
        if not self.health.available(spec.id, time.monotonic()):
            raise Failed("the arm does not answer at present")
        if self.health.full(spec.id, spec.max_running):
            raise Failed("the arm has as many calls under way as it may")
        with counted(self.health, spec.id):
            return await self._whole(spec, "/chat/completions", body, {}, purpose="judge")

    def _judge(self, asked: Asked, call: Call, text: str | None) -> None:
        """Background work after the answer is sent."""
        if text is None:
            return
        served = Answered(call.decided, asked.body, text, asked.wanted.expected)
        self._judging.answered(served)
        if call.duel:
            self.duels.begin(served, lambda: self._second(asked, call))

    async def _second(self, asked: Asked, first: Call) -> Answered | None:
        """The answer of another arm to the same question, which the user does not wait for."""
        call = await self._choosing.decided(asked, [first.spec.id], duel_of=first.decided.id)
        body = {name: value for name, value in asked.body.items()
                if name not in ("stream", "stream_options")}  # fmt: skip
        try:
            answer = await self._whole(call.spec, asked.path, body, {}, call.decided.id, "duel")
        except Rejected:
            self._teaching.rejected(call)
            await self._teaching.outdone(call)  # the first arm answered it
            return None
        except asyncio.CancelledError:
            await self._teaching.left(call, by_client=False)
            raise
        except Failed as failed:
            await self._teaching.failed(call, failed)
            return None
        await self._teaching.answered(call, usage_in(answer), said_in(answer["choices"]))
        text = answer_text(answer)
        if text is None:
            return None
        answered = Answered(call.decided, asked.body, text, asked.wanted.expected)
        self._judging.answered(answered)
        return answered
