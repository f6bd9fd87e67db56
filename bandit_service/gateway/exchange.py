"""One call of an arm: hold the money, call, book the cost, learn the outcome.

Chat, streams, duels, judges and embeddings all call an arm within `async with` an exchange:

    async with exchange:                        # holds the money, counts the call, starts the clock
        answer = await exchange.over(lambda: exchange.whole(path, body, headers))
    exchange.cost_usd                           # is in the log by now

When the block ends, the call is settled, booked and learned exactly once, however it ended: an
answer, a refusal, a failure, a client that left, a cancellation. A stream ends it within the block,
with `answered`, `failed` or `left`, since its cost has to be in the log before its last bytes
leave.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Container,
    Coroutine,
    Mapping,
    Sequence,
)
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from types import TracebackType
from typing import Any, Self, TypeVar

from bandit_service import logs
from bandit_service.core import events as ev
from bandit_service.gateway import provider_errors, spans
from bandit_service.gateway.accounts import Account
from bandit_service.gateway.affinity import calls_in
from bandit_service.gateway.allowance import Allowance
from bandit_service.gateway.answering_model import answered_by_other, arm_of
from bandit_service.gateway.calls import Response
from bandit_service.gateway.deployments import Target, next_of, served, targets_of
from bandit_service.gateway.failures import Failed, Rejected, reported_failure
from bandit_service.gateway.money import cost_usd, likely_usd
from bandit_service.gateway.request import EMBEDDINGS
from bandit_service.gateway.request_size import Size
from bandit_service.gateway.resources import Resources
from bandit_service.gateway.spans import CallSpan
from bandit_service.gateway.streamed_answer import events_of
from bandit_service.gateway.upstreams import Upstreams, end, read_answer
from bandit_service.gateway.usage import answer_bytes, usage_in
from bandit_service.parsing.inputs import whole
from bandit_service.telemetry import tracing

_log = logging.getLogger("bandit.gateway")
_LONGEST_NAME = 200
T = TypeVar("T")
_seldom = logs.Seldom(60.0)
"""A provider may answer with another model each time, so each arm logs one line a minute."""


class Exchange:
    """A call without a decision: its cost is booked, and the policy learns nothing.

    arm: what is called. spec: the same as it is called at present; at: at which of its deployments,
    None before one is. key: what chance among these hangs on, as a decision's id. purpose: "judge"
    or "duel" if the call is not the user's answer. usage: what the provider
    reported. other: the model that answered in the place of the arm's, "" if none did; by: the arm
    that has the model that answered, None if none has. received: bytes of the answer so far; None
    if nothing of it was seen. calls: the ids of the tools that it calls. raw: the whole answer as
    it came. cost_usd: the cost, once it is known and in the log. upstreams: those of the moment
    when the arm was chosen, with which the call goes on whatever is configured meanwhile.
    allowance: of the request, which may call other arms, too; its own if it has none.
    """

    decision_id = ""
    conversation = ""

    def __init__(
        self,
        resources: Resources,
        spec: ev.ArmSpec,
        size: Size,
        account: Account,
        purpose: str = "",
        key: str = "",
        upstreams: Upstreams | None = None,
        allowance: Allowance | None = None,
    ) -> None:
        self.allowance = Allowance(resources.settings) if allowance is None else allowance
        self.upstreams = resources.upstreams if upstreams is None else upstreams
        self.arm = spec
        self.spec = spec
        self.at: Target | None = None
        self.size = size
        self.purpose = purpose
        self.usage: Any = None
        self.other = ""
        self.by: ev.ArmSpec | None = spec
        self.received: int | None = None
        self.calls: tuple[str, ...] = ()
        self.raw: dict[str, Any] = {}
        self.cost_usd: float | None = None
        self._key = key
        self._resources = resources
        self._account = account
        self._started = 0.0
        self._ended = False
        self._asking = True

    async def __aenter__(self) -> Self:
        self._account.reserve()
        self._resources.health.begun(self.arm.id)
        self._started = time.perf_counter()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._ended:
            return
        match error:
            case None:
                await self.answered(self.usage, self.received)
            case Rejected():
                self._rejected()
            case Failed():
                await self.failed(error)
            case asyncio.CancelledError():
                await self.left()
            case _:
                self._dropped()

    # --- the call

    async def over(self, ask: Callable[[], Awaitable[T]]) -> T:
        """What `ask` returns at the first deployment that answers. Raises what it raised at the
        last one.

        An arm without deployments is asked once. After each failure the next one is chosen by what
        is known then. If one refuses the request, another is tried in two cases: the refusal says
        that this deployment cannot do it (others may have another version), or the refusal may be
        due to the place. A refusal says more than a later failure, so it is raised.
        """
        if not self.arm.deployments:
            self._begin_at(targets_of(self.arm)[0])
            return await ask()
        tried: list[str] = []
        target, began = self._next(tried), time.monotonic()
        if target is None:  # the arm has changed since it was chosen
            raise Failed("none of the upstreams of its deployments is configured")
        self._begin_at(target)
        refused: list[tuple[Target, Rejected]] = []
        while True:
            tried.append(target.key)
            self._started, self._asking = time.perf_counter(), True
            try:
                answer = await ask()
            except Failed as failed:
                following = self._next(tried, began)
                if following is None and (failed.cut_short or not refused):
                    if why := self.allowance.spent():
                        failed.ended(why)
                    raise
                await self._passed_over(target, failed, following)
                if following is None:
                    raise _first(refused) from None
            except Rejected as rejected:
                refused.append((target, rejected))
                others = rejected.unsuited or rejected.of_place
                following = self._next(tried, began) if others else None
                if following is None:
                    raise _first(refused) from None
                self._resources.health.refused(target.key)
                self._begin_at(following)
            else:
                self._answered_elsewhere(refused)
                return answer
            target = following

    def _next(self, tried: Sequence[str], began: float = 0.0) -> Target | None:
        """The deployment to be asked after these. None if no other answers and has room, if the
        request may cause no other call, or if the arm was first asked, at `began`, longer ago than
        all may take. A second one may be asked even then, since the first alone may take that long.
        """
        resources, targets, now = self._resources, self._places(), time.monotonic()
        if tried and self.allowance.spent():
            return None
        if len(tried) > 1 and now - began > self._total_s(targets):
            return None
        seed = resources.router.rules.explore.seed
        return next_of(targets, resources.health, now, seed, self._key, self._last(), tried)

    def _places(self) -> list[Target]:
        """Where the arm may be called."""
        return self._among(None)

    def _among(self, among: Container[str] | None) -> list[Target]:
        """The same among these upstreams; at one that was added meanwhile nothing is called."""
        places = served(self.arm, self._resources.health, among)
        if not self.arm.deployments:
            return places
        return [each for each in places if each.spec.upstream in self.upstreams]

    def _total_s(self, targets: Sequence[Target]) -> float:
        """For how long others are asked: as long as one call may take."""
        spec = self.upstreams.spec
        return max((spec(each.spec.upstream).total_s for each in targets), default=0.0)

    def _last(self) -> str:
        """The deployment that has the conversation; "" if none has."""
        return ""

    def _begin_at(self, target: Target) -> None:
        """A call begins: forget everything about an earlier one that failed, also its time."""
        self.spec = self.by = target.spec
        self.usage, self.other, self.received = None, "", None
        self.calls, self.raw = (), {}
        self._started = time.perf_counter()
        self.allowance.call()
        if target.deployment:
            self.at = target
            self._resources.health.begun(target.key)

    async def _passed_over(self, target: Target, failed: Failed, following: Target | None) -> None:
        """A deployment failed and another one is asked, or had refused: the arm did not fail.

        The other deployment is occupied at once, since other requests may want it while the cost is
        written.
        """
        self._deployment_failed(target, failed)
        usd = cost_usd(failed.usage, self.priced)
        self.at = None
        if following is not None:
            self._begin_at(following)
        self._asking = False
        if usd:
            await self._resources.finish(self._account.book_apart(usd))

    def _answered_elsewhere(self, refused: Sequence[tuple[Target, Rejected]]) -> None:
        """Another deployment answered.

        So if a refusal may have been due to the place, it was, and counts as its failure.
        """
        for target, rejected in refused:
            if rejected.of_place:
                self._resources.health.begun(target.key)
                self._deployment_failed(target, Failed(str(rejected), status=rejected.status))

    def _deployment_failed(self, target: Target, failed: Failed) -> None:
        resources = self._resources
        resources.health.failed(target.key, time.monotonic(), failed.retry_after_s)
        kind = "timeout" if failed.timeout else "failed"
        resources.telemetry.deployment_failed(self.arm.id, target.deployment, kind)
        told = {"arm": self.arm.id, "deployment": target.deployment, "why": str(failed)}
        _log.warning("deployment failed", extra=told)

    @property
    def deployment(self) -> str:
        """Where the arm is called, "" if it has no deployments."""
        return "" if self.at is None else self.at.deployment

    def sent(
        self, path: str, body: Mapping[str, Any], headers: Mapping[str, str]
    ) -> AbstractAsyncContextManager[tuple[Response, CallSpan]]:
        """Send the body to the arm's upstream, in a span. Raises Failed or Rejected."""
        if tracing.current() is not None:
            return self._spanned(path, body, headers)
        return _Sent(self._begun(path, body, headers))

    def _begun(
        self, path: str, body: Mapping[str, Any], headers: Mapping[str, str]
    ) -> Coroutine[Any, Any, Response]:
        """The head of the answer; the caller must `end` it."""
        spec, allowance, parts = self.spec, self.allowance, self.size.parts
        return self.upstreams.begin(
            spec.upstream, path, self._named(body), headers, allowance, spec.request, parts
        )

    @asynccontextmanager
    async def _spanned(
        self, path: str, body: Mapping[str, Any], headers: Mapping[str, str]
    ) -> AsyncIterator[tuple[Response, CallSpan]]:
        upstreams = self.upstreams
        upstream = upstreams.spec(self.spec.upstream)
        body = self._named(body)
        ids = self.decision_id, self.purpose, self.conversation, self.deployment
        with spans.calling(path, self.spec, upstream, body, *ids) as span:
            headers, asking = span.onward(headers), self.spec.request
            sent = upstreams.send(
                upstream.id, path, body, headers, self.allowance, asking, self.size.parts
            )
            async with sent as response:
                yield response, span

    async def whole(
        self, path: str, body: Mapping[str, Any], headers: Mapping[str, str]
    ) -> dict[str, Any]:
        """The arm's whole answer in OpenAI's shape. Raises Failed or Rejected."""
        if tracing.current() is None:
            response = await self._begun(path, body, headers)
            try:
                return await self._read(response, path)
            finally:
                end(response)
        async with self._spanned(path, body, headers) as (response, span):
            answer = await self._read(response, path)
            span.answered(answer)
        return answer

    def _named(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """The body with the name that the model has at its upstream."""
        return {**body, "model": self.spec.model or self.spec.id}

    async def _read(self, response: Response, path: str) -> dict[str, Any]:
        """The whole answer in OpenAI's shape, with what it says noted."""
        most = self._resources.settings.max_answer_bytes
        self.raw = await read_answer(response, most, self.allowance)
        answer = self.upstreams.answer_of(self.spec.upstream, self.raw)
        self.usage = usage_in(answer)
        self.heard(answer.get("model"))
        if path != EMBEDDINGS:
            choices = self._choices(answer)
            self.received = answer_bytes(choices)
            self.calls = tuple(calls_in(choices, "message"))
        return answer

    def chunks(self, response: Response, own: bool = False) -> AsyncGenerator[list[bytes], None]:
        """The data of a streamed answer's events as OpenAI's chunks. Raises Failed.

        own: or as they are, for a client of the same dialect.
        """
        upstreams, upstream = self.upstreams, self.spec.upstream
        events = events_of(response, self._resources.settings.max_answer_bytes, self.allowance)
        if upstreams.spec(upstream).kind == "openai":  # whose events are its chunks
            return events
        return upstreams.chunks_of(upstream, events, own)

    def heard(self, model: object) -> None:
        """What the provider calls the model that answers."""
        upstream = self.upstreams.spec(self.spec.upstream)
        if not answered_by_other(self.spec, upstream, model, self.arm):
            return
        other = whole(str(model).strip())[:_LONGEST_NAME]
        present = [one.spec for one in self._resources.router.world.catalogue.present()]
        alike = [spec for spec in present if spec.kind == self.spec.kind]
        by = arm_of(other, alike, self.spec.upstream)
        if by is not None and by.id == self.arm.id:  # by a name that was configured meanwhile
            return
        self.other, self.by = other, by
        self._resources.telemetry.answered_by_other(self.spec.id, self.by is not None)
        if (more := _seldom(self.spec.id)) is not None:
            told = {"arm": self.spec.id, "model": self.other, "more": more or None}
            _log.warning("another model answered", extra=told)

    @property
    def priced(self) -> ev.ArmSpec:
        """By whose prices the answer is billed: the arm's own if none has the model."""
        return self.spec if self.by is None else self.by

    def _choices(self, answer: dict[str, Any]) -> list[Any]:
        choices = answer.get("choices")
        if not (isinstance(choices, list) and choices and isinstance(choices[0], dict)):
            raise Failed("the answer has no choices", usage=self.usage)
        # its reason, once it is in OpenAI's words; what came in them was looked at already
        if answer is not self.raw and (error := provider_errors.error_in(answer)):
            failed = reported_failure(error)
            failed.usage = self.usage
            raise failed
        if not isinstance(choices[0].get("message"), dict) and choices[0].get("text") is None:
            raise Failed("the answer has no message", usage=self.usage)
        return choices

    # --- how it ends

    async def answered(self, usage: object, received: int | None) -> None:
        """The arm answered: book its cost, or the likely cost if the provider reports none."""
        self._ended = True
        self._well()
        cost = cost_usd(usage, self.priced)
        usd = likely_usd(self.priced, self.size, received) if cost is None else cost
        booked = await self._settle(self._account.book(usd))
        self.cost_usd = cost if booked else None

    async def failed(self, failed: Failed) -> None:
        """The arm gave no answer: book what the provider charged nevertheless."""
        if failed.cut_short:
            await self.left()
            return
        self._ended = True
        self._unwell(failed)
        if usd := cost_usd(failed.usage, self.priced):
            await self._settle(self._account.book(usd))
        else:
            self._account.release()

    async def left(self) -> None:
        """The call was cancelled: book its likely cost, since the provider probably worked.

        Between two deployments no provider works on it, and nothing is booked.
        """
        if not self._asking:
            self._dropped()
            return
        self._ended = True
        self._let_go()
        await self._settle(self._account.book(likely_usd(self.spec, self.size)))

    def _rejected(self) -> None:
        """The provider refused the request: nothing is paid."""
        self._dropped()

    def _dropped(self) -> None:
        """The call ended in a way that says nothing about the arm, and costs nothing."""
        self._ended = True
        self._let_go()
        self._account.release()

    # --- the health of the arm, and of where it was called

    def _well(self) -> None:
        for key in self._keys():
            self._resources.health.succeeded(key)

    def _let_go(self) -> None:
        for key in self._keys():
            self._resources.health.left(key)

    def _refused(self) -> None:
        for key in self._keys():
            self._resources.health.refused(key)

    def _unwell(self, failed: Failed, begun: bool = False) -> bool:
        """Whether it is the arm's failure too. begun: the answer broke off, so no other deployment
        was tried. The failure is only the deployment's while another one answers.
        """
        health, now = self._resources.health, time.monotonic()
        if self.at is None:
            health.failed(self.arm.id, now, failed.retry_after_s)
            return True
        self._deployment_failed(self.at, failed)
        health.left(self.arm.id)
        others = (each for each in self._places() if each.key != self.at.key)
        return not (begun and any(health.available(each.key, now) for each in others))

    def _keys(self) -> tuple[str, ...]:
        return (self.arm.id,) if self.at is None else (self.arm.id, self.at.key)

    async def _settle(self, work: Coroutine[Any, Any, bool]) -> bool:
        """Write what ends the call, then release its money, even if the caller is cancelled."""

        async def settled() -> bool:
            try:
                return await work
            finally:
                self._account.release()

        return await self._resources.finish(settled())


class _Sent:
    """The head of an answer, within no span; what follows is ended with the block."""

    __slots__ = ("_begun", "_response")

    def __init__(self, begun: Coroutine[Any, Any, Response]) -> None:
        self._begun = begun

    async def __aenter__(self) -> tuple[Response, CallSpan]:
        self._response = await self._begun
        return self._response, _NO_SPAN

    async def __aexit__(self, *_: object) -> None:
        end(self._response)


_NO_SPAN = CallSpan(None)


def _first(refused: Sequence[tuple[Target, Rejected]]) -> Rejected:
    """The first refusal that is about the request, or else the first."""
    each_of = [rejected for _, rejected in refused]
    return next((each for each in each_of if not each.of_place), each_of[0])
