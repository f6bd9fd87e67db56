"""A user's vote on one answer, by a token that grants nothing else and needs no API key.

No cookie is read and a GET changes nothing. So a foreign page can do nothing that the token itself
does not allow, and a link that a mail program opens in advance does not vote.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from datetime import UTC, datetime
from urllib.parse import parse_qs

from aiohttp import web

from bandit_service import clock, logs, wire
from bandit_service.core.errors import Malformed, RateLimited, Refused, ServiceError, Unknown
from bandit_service.core.feedback import VOTES, Claim
from bandit_service.core.outcomes import VOTE
from bandit_service.core.resolved import Pending
from bandit_service.http import feedback_page
from bandit_service.http.auth import Bucket
from bandit_service.http.middleware import GATE, ROUTER, TELEMETRY, body_of, failed, reply
from bandit_service.http.outcomes import outcome_of
from bandit_service.http.page import wanted
from bandit_service.http.responses.outcomes import Vote
from bandit_service.runtime.router import Router

_FORM = "application/x-www-form-urlencoded"
_EACH_PER_S, _EACH_AT_ONCE = 0.5, 10.0
"""Votes by one token: enough to change a vote, too few to fill the log."""
_MAX_TOKENS = 10_000


class VoteLimits:
    """Limits the votes: for each decision, and for all together."""

    def __init__(self, rate_per_s: float, now: float) -> None:
        most = max(1.0, rate_per_s)
        self._all = Bucket(rate_per_s, most, most, now)
        self._of: OrderedDict[str, Bucket] = OrderedDict()

    def take(self, decision_id: str, now: float) -> None:
        """Count one vote. Raises RateLimited beyond the limits."""
        own = self._of.pop(decision_id, None) or Bucket(
            _EACH_PER_S, _EACH_AT_ONCE, _EACH_AT_ONCE, now
        )
        self._of[decision_id] = own
        if len(self._of) > _MAX_TOKENS:
            self._of.popitem(last=False)
        if wait := own.take(now):
            raise RateLimited("token: too many votes by this token", wait)
        if wait := self._all.take(now):
            raise RateLimited("too many votes; retry later (feedback.rate_per_s)", wait)


LIMITS = web.AppKey("vote limits", VoteLimits)


async def show(request: web.Request) -> web.Response:
    """GET /v1/feedback/{token}: the page, or the present vote."""
    try:
        claim, pending = _claimed(request)
    except ServiceError as error:
        return _failed(request, error)
    return _shown(request, claim, _vote_of(pending))


async def vote(request: web.Request) -> web.Response:
    """POST /v1/feedback/{token}: the vote of a form, or of JSON."""
    form = request.content_type == _FORM
    try:
        claim, pending = _claimed(request)
        body = await body_of(request)
        form = form and not body.lstrip().startswith(b"{")  # which curl sends as a form
        asked = _voted(body, form=form)
        decision_id, router = claim.decision_id, request.app[ROUTER]
        request.app[LIMITS].take(decision_id, time.monotonic())
        gate = request.app[GATE]
        caller = gate.delegated(pending.decided.caller, clock.now())
        try:
            with gate.teaching(caller):
                status = await _taught(router, decision_id, asked, pending.decided.tenant)
        except ServiceError as error:
            router.count_reward(decision_id, outcome_of(error))
            raise
        router.count_reward(decision_id, status)
        if status == "accepted":
            gate.taught(caller)
    except ServiceError as error:
        return _failed(request, error)
    if form and wanted(request):  # so that a reload does not submit the form again
        return web.Response(status=303, headers={"Location": request.match_info["token"]})
    return _shown(request, claim, _vote_of(pending) if asked.vote is None else asked.vote)


def _voted(body: bytes, *, form: bool) -> wire.VoteRequest:
    """The content of the body: a vote, or metrics."""
    said = _of_form(body) if form else wire.decode_request(body)
    asked = wire.convert(said, wire.VoteRequest)
    if (asked.vote is None) == (not asked.metrics):
        got = "neither" if asked.vote is None else "both"
        raise Refused(f"vote: send it or metrics, and not both; got {got}", param="vote")
    if asked.vote is not None and asked.vote not in VOTES:
        raise Refused(f"vote: must be one of {', '.join(VOTES)}, got {asked.vote!r}", param="vote")
    return asked


async def _taught(router: Router, decision_id: str, asked: wire.VoteRequest, tenant: str) -> str:
    if asked.vote is not None:
        return await router.vote(decision_id, VOTES[asked.vote], tenant)
    return await router.measured_by_user(decision_id, wire.numbers(asked.metrics), tenant)


def _of_form(body: bytes) -> dict[str, str]:
    """The fields of a form; each may occur only once."""
    try:
        found = parse_qs(body.decode("ascii"), keep_blank_values=True, max_num_fields=10)
    except ValueError:
        raise Malformed("the body is not a form: it must be vote=up, down or neutral") from None
    twice = [name for name, values in found.items() if len(values) > 1]
    if twice:
        raise Refused(f"{twice[0]}: must be sent exactly once", param=twice[0])
    return {name: values[0] for name, values in found.items()}


def _claimed(request: web.Request) -> tuple[Claim, Pending]:
    """The token of the path, and its decision. Raises an error if either is wrong."""
    router = request.app[ROUTER]
    tokens = router.feedback.tokens
    if not tokens.keys:
        raise Unknown(
            "this service makes no feedback tokens: feedback.ttl_s is 0, or it shares its log and "
            "has no feedback.secret_env"
        )
    claim = tokens.read(request.match_info["token"], clock.now())
    pending = router.pending.find(claim.decision_id)
    if not claim.is_of(pending.decided.tenant):
        raise Unknown("token: no such decision", param="token")
    logs.decision_id.set(claim.decision_id)
    return claim, pending


def _vote_of(pending: Pending) -> str:
    value = pending.signals.get(VOTE)
    return next(name for name, says in VOTES.items() if says == value or name == "neutral")


def _shown(request: web.Request, claim: Claim, said: str) -> web.Response:
    if wanted(request):
        text = feedback_page.page(said, claim.expires)
        return web.Response(text=text, content_type="text/html", headers=feedback_page.HEADERS)
    until = datetime.fromtimestamp(claim.expires, UTC).isoformat()
    return reply(Vote(vote=said, expires=until), headers={"Cache-Control": "no-store"})


def _failed(request: web.Request, error: ServiceError) -> web.Response:
    """The error, as a page for a browser."""
    if not wanted(request):
        raise error
    request.app[TELEMETRY].rejected(error)
    plain = failed(error)
    headers = {name: one for name, one in plain.headers.items() if name != "Content-Type"}
    text = feedback_page.error_page(error.message)
    return web.Response(
        text=text,
        status=plain.status,
        content_type="text/html",
        headers=headers | feedback_page.HEADERS,
    )
