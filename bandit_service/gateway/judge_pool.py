"""Judges at work: quality for a share of the answers, and comparisons of two, in the background.

Judging begins when the user has the whole answer, so it delays nobody. What a model's judgement
cost is an event of the log, so its daily bound survives a restart.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from bandit_service.core import chance
from bandit_service.core import events as ev
from bandit_service.core.errors import ServiceError
from bandit_service.core.outcomes import Signals
from bandit_service.gateway import judges
from bandit_service.gateway.money import cost_usd
from bandit_service.gateway.request_size import likely_usd, most_usd, said_in, size_of
from bandit_service.gateway.upstreams import Failed, Rejected
from bandit_service.gateway.usage import usage_in
from bandit_service.gateway.verdicts import NoVerdict, Verdicts
from bandit_service.runtime.router import Router
from bandit_service.settings.judges import JudgeSpec
from bandit_service.telemetry.telemetry import Telemetry
from policies import ArmId

_log = logging.getLogger("bandit.judging")
_MOST_TASKS = 256
_MINUTE_S = 60.0

Ask = Callable[[ev.ArmSpec, Mapping[str, Any]], Awaitable[dict[str, Any]]]
"""Sends a chat request to an arm and gives back the whole answer; Failed or Rejected."""


@dataclass(frozen=True, slots=True)
class Answered:
    """One answer that a user got, or that stands against it, and what it answers."""

    decided: ev.Decided
    body: Mapping[str, Any]
    text: str
    expected: str = ""


@dataclass
class _Bounds:
    """What keeps one model that judges within its rate and its money."""

    asked: deque[float] = field(default_factory=deque)
    held_usd: float = 0.0


class Judging:
    """Runs `[[judges]]`. The first that has something to say of an answer gives its quality."""

    def __init__(
        self,
        specs: tuple[JudgeSpec, ...],
        router: Router,
        ask: Ask,
        telemetry: Telemetry,
        verdict_s: float,
    ) -> None:
        self._specs = {spec.id: spec for spec in specs}
        self._router = router
        self._ask = ask
        self._telemetry = telemetry
        self._bounds = {spec.id: _Bounds() for spec in specs}
        self._tasks: set[asyncio.Task[None]] = set()
        self._verdicts = Verdicts(verdict_s)
        if any(spec.kind != "llm" for spec in specs):
            self.start(self._verdicts.begin)

    def __bool__(self) -> bool:
        return bool(self._specs)

    async def close(self) -> None:
        """End the judgements under way; no end of the service waits for a verdict."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._verdicts.close()

    def start(self, work: Callable[[], Awaitable[None]]) -> None:
        """Run something in the background; beyond a bound it is left undone."""
        if len(self._tasks) >= _MOST_TASKS:
            self._telemetry.judged("", "busy")
            return

        async def run() -> None:
            try:
                await work()
            except ServiceError as error:
                _log.warning("not judged", extra={"why": error.message})

        task = asyncio.get_running_loop().create_task(run())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def answered(self, answer: Answered) -> None:
        """An answer is there: judge it if its turn has come."""
        if not self._specs:
            return
        mine = [spec for spec in self._specs.values() if self._sampled(spec, answer.decided.id)]
        if mine:
            self.start(lambda: self._quality(mine, answer))

    async def compare(self, judge: str, one: Answered, other: Answered) -> float | None:
        """1 where `one` is better, 0 where `other` is, 0.5 for a tie; None if nobody can say.

        A model is asked in both orders, since models prefer a place; two different answers are a
        tie.
        """
        spec = self._specs[judge]
        if spec.kind != "llm":
            a, b = await self._score(spec, one), await self._score(spec, other)
            return None if a is None or b is None else 0.5 + (a - b) / 2.0
        question = judges.question_text(one.body)
        said: list[float] = []
        for first, second, worth in ((one, other, 1.0), (other, one, 0.0)):
            messages = judges.comparing(spec, question, first.text, second.text)
            better = judges.better_of(await self._told(spec, one.decided, messages) or "")
            if better is None:
                return None
            said.append({"A": worth, "B": 1.0 - worth, "tie": 0.5}[better])
        return said[0] if said[0] == said[1] else 0.5

    def _sampled(self, spec: JudgeSpec, decision_id: str) -> bool:
        """By chance that depends on nothing else, so that the judged answers are a fair sample."""
        seed = self._router.rules.explore.seed
        return chance.uniform(seed, f"{decision_id} judged by {spec.id}") < spec.share

    async def _quality(self, specs: list[JudgeSpec], answer: Answered) -> None:
        for spec in specs:
            quality = await self._score(spec, answer)
            if quality is None:
                continue
            try:
                status = await self._router.observe(
                    answer.decided.id, Signals(quality), provisional=True
                )
            except ServiceError as error:  # the user was quicker, or it is too late
                self._telemetry.judged(spec.id, "refused")
                _log.info("judgement refused", extra={"why": error.code})
                return
            self._router.count_reward(answer.decided.id, status)
            self._telemetry.judged(spec.id, "judged")
            return

    async def _score(self, spec: JudgeSpec, answer: Answered) -> float | None:
        if spec.kind != "llm":
            try:
                return await self._verdicts.of(spec, answer.body, answer.expected, answer.text)
            except NoVerdict as none:
                self._telemetry.judged(spec.id, str(none))
                return None
        messages = judges.grading(spec, judges.question_text(answer.body), answer.text)
        text = await self._told(spec, answer.decided, messages)
        score = judges.score_of(text) if text is not None else None
        if text is not None and score is None:
            self._telemetry.judged(spec.id, "unreadable")
        return score

    async def _told(
        self, spec: JudgeSpec, decided: ev.Decided, messages: list[dict[str, str]]
    ) -> str | None:
        """What the judging model says; None where it is not there or its bounds are reached."""
        record = self._router.world.arms.get(ArmId(spec.arm))
        if record is None or record.retired or not record.spec.upstream:
            self._telemetry.judged(spec.id, "no arm")
            return None
        body = {"messages": messages, "temperature": 0, "max_tokens": 200}
        size = size_of(body)
        most = most_usd(record.spec, size)
        bounds = self._bounds[spec.id]
        if not self._admitted(spec, bounds, most):
            return None
        bounds.held_usd += most
        usd: float | None = None
        try:
            async with asyncio.timeout(spec.timeout_s):
                answer = await self._ask(record.spec, body)
            usd = cost_usd(usage_in(answer), record.spec)
            if usd is None:
                usd = likely_usd(record.spec, size, said_in(answer["choices"]))
            await asyncio.shield(self._pay(spec, decided, usd))
        except asyncio.CancelledError:
            if usd is None:  # the provider has probably worked
                await self._pay(spec, decided, likely_usd(record.spec, size))
            raise
        except (Failed, Rejected, TimeoutError):
            self._telemetry.judged(spec.id, "failed")
            return None
        finally:
            bounds.held_usd = max(0.0, bounds.held_usd - most)
        return judges.answer_text(answer) or ""

    def _admitted(self, spec: JudgeSpec, bounds: _Bounds, most: float) -> bool:
        now = time.monotonic()
        while bounds.asked and bounds.asked[0] <= now - _MINUTE_S:
            bounds.asked.popleft()
        if len(bounds.asked) >= spec.max_per_minute:
            self._telemetry.judged(spec.id, "rate")
            return False
        spend = self._router.world.spend
        spent = spend.spent("day", self._router.writer.now(), f"judge:{spec.id}")
        if spent + bounds.held_usd + most > spec.usd_per_day:
            self._telemetry.judged(spec.id, "budget")
            return False
        bounds.asked.append(now)
        return True

    async def _pay(self, spec: JudgeSpec, decided: ev.Decided, usd: float) -> None:
        self._telemetry.judge_paid(spec.id, usd)
        writer = self._router.writer
        await writer.submit(
            lambda: ev.Spent(
                ts=writer.now(),
                decision_id=decided.id,
                judge=spec.id,
                usd=usd,
                tenant=decided.tenant,
                caller=decided.caller,
            ),
            key=decided.id,
        )
