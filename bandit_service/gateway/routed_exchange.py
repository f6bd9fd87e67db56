"""The exchange of a decision: its result is an outcome, from which the policies learn.

The outcome is handed to the kernel before an ending returns, and only then is the answer sent. So a
cost that a client has seen survives a kill. The write continues if the client leaves.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

from bandit_service.core import events as ev
from bandit_service.core.errors import ServiceError, UpstreamError
from bandit_service.core.outcomes import Served, Signals
from bandit_service.core.spend import payer_of
from bandit_service.embedding import estimate_tokens
from bandit_service.gateway.accounts import CallerAccount
from bandit_service.gateway.affinity import MAX_CALLS, hashed
from bandit_service.gateway.allowance import Allowance
from bandit_service.gateway.deployments import Target
from bandit_service.gateway.exchange import Exchange
from bandit_service.gateway.exchange_end import Written, not_learned
from bandit_service.gateway.failures import Failed, upstream_error
from bandit_service.gateway.money import cost_by, cost_usd, likely_usd, prompt_of, saved_usd
from bandit_service.gateway.request_size import Size
from bandit_service.gateway.resources import Resources
from bandit_service.gateway.upstreams import Upstreams
from bandit_service.gateway.usage import counts_of, merged
from policies import ArmId

FEEDBACK_HEADER = "x-feedback-token"
_log = logging.getLogger("bandit.gateway")


class RoutedExchange(Exchange):
    """One decision being carried out.

    max_usd: what is held for it. duel: a second arm will answer too. before: the exchanges of this
    request that were refused before this one. first_token_at: when a stream began to say something,
    by perf_counter. vendor: the only provider that may be called, since it signed the thinking;
    None for any.
    """

    def __init__(
        self,
        resources: Resources,
        decided: ev.Decided,
        size: Size,
        max_usd: float,
        *,
        purpose: str = "",
        duel: bool = False,
        before: Sequence[RoutedExchange] = (),
        vendor: tuple[str, str] | None = None,
        upstreams: Upstreams | None = None,
        allowance: Allowance | None = None,
    ) -> None:
        account = CallerAccount(resources, decided.id, max_usd, payer_of(decided), decided.id)
        spec = resources.router.world.arms[decided.arm].spec
        more = purpose, decided.id, upstreams, allowance
        super().__init__(resources, spec, size, account, *more)
        self.decided = decided
        self.decision_id = decided.id
        self.conversation = decided.conversation
        self.duel = duel
        self.first_token_at: float | None = None
        self._before = before
        self._vendor = vendor
        self._served = Served()
        self._rejected_at = 0.0

    @property
    def first_token_s(self) -> float | None:
        """Seconds until a stream began to say something."""
        return None if self.first_token_at is None else self.first_token_at - self._started

    def headers(self) -> dict[str, str]:
        """The headers about the decision that every answer has."""
        headers = {
            "x-decision-id": self.decided.id,
            "x-arm": self.decided.arm,
            "x-policy": self.decided.policy,
            "x-bandit-reason": self.decided.why,
        }
        if self.deployment:
            headers["x-deployment"] = self.deployment
        if self.decided.route:
            headers["x-route"] = self.decided.route
        if self.decided.experiment:
            headers |= {"x-experiment": self.decided.experiment, "x-variant": self.decided.variant}
        if self.other.isascii() and self.other.isprintable() and self.other:
            headers["x-answered-model"] = self.other
        return headers | {"x-duel": self.decided.id} if self.duel and not self.other else headers

    def answer_headers(self) -> dict[str, str]:
        """The same for an answer that its user may vote on."""
        token = self._resources.router.feedback.token(self.decided)
        return self.headers() | ({FEEDBACK_HEADER: token} if token else {})

    def error(self, failed: Failed) -> UpstreamError:
        """The error that the client gets, with the decision in its headers."""
        error = upstream_error(self.spec.id, failed)
        error.headers = self.headers()
        return error

    # --- where it is called

    def _last(self) -> str:
        router, decided = self._resources.router, self.decided
        if not decided.before:  # it begins, maybe with a text that was sent before
            return ""
        return router.world.conversations.deployment_of(
            decided.conversation,
            decided.arm,
            router.writer.now(),
            self._resources.settings.sticky_s,
        )

    def _places(self) -> list[Target]:
        return self._among(self.upstreams.of_vendor(self._vendor))

    # --- how it ends

    async def answered(self, usage: object, received: int | None) -> None:
        """The arm answered; `cost_usd` is the cost if it is known and in the log."""
        self._ended = True
        self._well()
        cost, signals = self._measured(usage)
        if cost is not None and not (self._before or self.other):  # as nearly always
            self.cost_usd = cost if await self._observed_soon(signals, cost) else None
            return
        guess = likely_usd(self.priced, self.size, received)

        async def written() -> bool:
            for exchange in self._before:
                await exchange.outdone()
            return await self._learned(signals, guess)

        self.cost_usd = cost if await self._settle(written()) else None

    async def left(
        self, usage: object = None, received: int | None = None, by_client: bool = True
    ) -> None:
        """The client left, or was cut off: nothing is learned about the arm's health."""
        self._ended = True
        self._let_go()
        if by_client and not self.purpose:
            self._resources.telemetry.client_left()
        if not self._asking:
            self._account.release()
            return
        if received is None:
            waited_s = self._latency_s(time.perf_counter(), None, cut=True)
            signals = Signals(latency_s=waited_s)
        else:
            _, signals = self._measured(_so_far(usage, received), cut=True)
        await self._settle(self._learned(signals, likely_usd(self.priced, self.size, received)))

    async def failed(
        self, failed: Failed, usage: object = None, received: int = 0, *, begun: bool = False
    ) -> None:
        """The arm gave no answer, or its answer broke off: the policy learns its reliability.

        begun: it broke off. Of a deployment that is not the arm's failure while another one
        answers, and the policy learns nothing but the cost. If the request cut it short, it is
        learned as if the client had left.
        """
        if failed.cut_short:
            await self.left(usage, received or None, by_client=False)
            return
        self._ended = True
        resources, id = self._resources, self.spec.id
        of_arm = self._unwell(failed, begun)
        if of_arm:
            resources.telemetry.upstream_failed(id, "timeout" if failed.timeout else "failed")
        _log.warning("upstream failed", extra={"decision_id": self.decided.id, "why": str(failed)})
        usage = _so_far(failed.usage if usage is None else usage, received)
        cost = cost_usd(usage, self.priced)
        signals = Signals(cost_usd=cost)
        if of_arm:
            latency_s = self._latency_s(time.perf_counter(), None)
            signals = Signals(resources.settings.failure_quality, cost, latency_s)
        guess = likely_usd(self.priced, self.size, received) if received else 0.0
        await self._settle(self._learned(signals, guess))

    def _rejected(self) -> None:
        """The provider refused: nothing is paid, nor learned unless another arm answers."""
        self._ended, self._rejected_at = True, time.perf_counter()
        self._refused()
        self._account.release()

    async def outdone(self) -> None:
        """Another arm answered what this one refused: it was about the arm, and is learned."""
        self._resources.telemetry.upstream_failed(self.spec.id, "refused")
        signals = Signals(
            quality=self._resources.settings.failure_quality,
            latency_s=self._latency_s(self._rejected_at, None),
        )
        await self._settle(self._learned(signals, 0.0))

    # --- what is learned

    def _measured(self, usage: object, cut: bool = False) -> tuple[float | None, Signals]:
        """The cost and the signals of an answer; metrics and the conversation's arm are updated."""
        resources, now = self._resources, time.perf_counter()
        counts = counts_of(usage)
        cost = cost_by(usage, counts, self.priced)
        cached, tokens = (0, None) if counts is None else (counts.cached, counts.answer or None)
        if self.decided.conversation:
            calls = hashed(self.decided.conversation, self.calls[:MAX_CALLS]) if self.calls else ()
            prompt = prompt_of(counts, self.size.prompt)
            self._served = Served(*prompt, calls, self.deployment)
        else:
            self._served = Served(deployment=self.deployment)
        resources.telemetry.cached_prompt(cached, saved_usd(counts, self.priced))
        seconds = now - self._started
        first_s = seconds if self.first_token_s is None else self.first_token_s
        resources.telemetry.answered(self.spec.id, seconds, first_s, tokens)
        return cost, Signals(cost_usd=cost, latency_s=self._latency_s(now, tokens, cut))

    def _latency_s(self, now: float, tokens: int | None, cut: bool = False) -> float | None:
        """The latency that is reported.

        cut: the client did not wait for the end, so the time that it did wait is a lower bound. It
        says something about the arm only if the arm usually takes less.
        """
        signal = self._resources.settings.latency_signal
        latency_s = now - self._started
        if signal == "first_token" and self.first_token_s is not None:
            latency_s = self.first_token_s
        elif signal == "per_token":
            latency_s /= max(1, tokens or self.spec.expected_output_tokens)
        if cut and (self.first_token_at is None or signal != "first_token"):
            usual_s = self._resources.router.world.arms[self.decided.arm].expected_latency_s()
            return latency_s if usual_s is None or latency_s > usual_s else None
        return latency_s

    async def _learned(self, signals: Signals, guess_usd: float) -> bool:
        """Whether the cost is in the log. guess_usd: what is booked if no cost was seen."""
        usd = signals.cost_usd
        if self.other and (not await self._redirected() or self.by is None):
            # the outcome is of no arm or would be learned for the wrong one, but the cost must be
            # booked
            return await self._account.book(guess_usd if usd is None else usd)
        written = signals == Signals() or await self._observed(signals)
        if usd is None and guess_usd > 0.0:
            usd = guess_usd
            self._resources.telemetry.estimated(self.decided.arm, usd)
        elif written or usd is None:
            return written
        return await self._account.book(usd)

    async def _redirected(self) -> bool:
        """Write the event that another model answered, before anything is learned.

        Returns whether it is written.
        """
        writer, by = self._resources.router.writer, self.by
        try:
            await writer.submit(
                lambda: ev.Redirected(
                    ts=writer.now(),
                    decision_id=self.decided.id,
                    model=self.other,
                    arm=ArmId("") if by is None else by.id,
                    prompt_tokens=self._served.prompt_tokens,
                    calls=self._served.calls,
                    deployment=self.deployment,
                ),
                key=self.decided.id,
                durable=False,
            )
        except ServiceError as error:
            _log.error("not written", extra={"decision_id": self.decided.id, "why": error.message})
            return False
        return True

    async def _observed_soon(self, signals: Signals, usd: float) -> bool:
        """`_learned` for an answer by the arm's own model whose cost is known, and then release its
        money. It needs no task of its own to continue if the client leaves.
        """
        written = Written(self._resources, self._account, self.decided.id, usd)
        self._resources.router.observe_soon(self.decided.id, signals, self._served, written)
        return await written.waited()

    async def _observed(self, signals: Signals) -> bool:
        router = self._resources.router
        try:
            status = await router.observe(self.decided.id, signals, served=self._served)
        except ServiceError as error:
            not_learned(self.decided.id, error)
            return False
        router.count_reward(self.decided.id, status)
        return True


def _so_far(usage: object, received: int) -> object:
    """A usage that was reported before the end, with at least the tokens that had arrived."""
    if counts_of(usage) is None:
        return usage
    return merged(usage, {"completion_tokens": estimate_tokens(received)})
