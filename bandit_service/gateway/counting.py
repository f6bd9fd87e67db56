"""How many tokens a request of the Messages or the Responses API has: a count by the named arm's
provider, or a guess.

Nothing is decided, and it costs nothing.
"""

from __future__ import annotations

import time

import msgspec

from bandit_service.core.errors import Unknown
from bandit_service.core.events import ArmSpec
from bandit_service.gateway.allowance import Allowance
from bandit_service.gateway.client import Client, Reply
from bandit_service.gateway.deployments import Target, next_of, served
from bandit_service.gateway.failures import Failed, Rejected, rejection, upstream_error
from bandit_service.gateway.large_requests import apart
from bandit_service.gateway.request import Asked, forwarded, is_auto, model_of
from bandit_service.gateway.request_size import size_of
from bandit_service.gateway.resources import Resources
from bandit_service.gateway.upstreams import read_answer


async def count_tokens(resources: Resources, client: Client, asked: Asked) -> Reply:
    """The count of the named arm, if its provider speaks this dialect; else the service's guess.

    Raises Unknown if there is no such arm, Refused if it is not for chat, and UpstreamError.
    """
    model = model_of(asked.own)
    chosen = is_auto(model, resources.router.world.routes.specs)
    spec = None if chosen else resources.chat_arm(model)
    if spec is None and not chosen:
        raise Unknown(f"model: no arm {model!r} with an upstream", param="model")
    lost, parts = asked.lost is not None, asked.parts
    guess = (await apart(parts, lambda: size_of(asked.body, asked.own, lost))).prompt
    told = msgspec.json.encode(asked.front.counted(guess))
    estimated = Reply(told, {"x-token-count": "estimated"})
    if spec is None:
        return estimated
    own = forwarded(client.headers) | forwarded(client.headers, asked.front.OWN_HEADERS)
    last: Failed | None = None
    allowance = Allowance(resources.settings)
    id, tried = f"count {time.monotonic()}", list[str]()  # nothing hangs on it
    while (target := _next(resources, spec, id, tried)) is not None:
        if last is not None and (why := allowance.spent()):
            last.ended(why)
            break
        tried.append(target.key)
        allowance.call()
        if resources.upstreams.spec(target.spec.upstream).kind != asked.kind:
            return estimated
        try:
            with client.waiting():
                return await _counted(resources, asked, target, own, allowance)
        except Failed as failed:
            last = last or failed
    assert last is not None
    raise upstream_error(spec.id, last) from None


def _next(resources: Resources, spec: ArmSpec, id: str, tried: list[str]) -> Target | None:
    """Where the arm is asked now."""
    seed, now = resources.router.rules.explore.seed, time.monotonic()
    targets = served(spec, resources.health)
    return next_of(targets, resources.health, now, seed, id, tried=tried)


async def _counted(
    resources: Resources,
    asked: Asked,
    target: Target,
    own: dict[str, str],
    allowance: Allowance,
) -> Reply:
    """A provider's count, or its refusal. Raises Failed."""
    front, spec = asked.front, target.spec
    headers = {"x-arm": str(spec.id), "x-token-count": "provider"}
    if target.deployment:
        headers["x-deployment"] = target.deployment
    body = asked.own | {"model": spec.model or spec.id}
    try:
        async with resources.upstreams.send(
            spec.upstream, front.COUNT_PATH, body, own, allowance, parts=asked.parts
        ) as response:
            most = resources.settings.max_answer_bytes
            answer = await read_answer(response, most, allowance)
    except Rejected as rejected:
        error = front.error(rejected.status, rejection(rejected, spec.id))
        return Reply(msgspec.json.encode(error), headers, rejected.status)
    return Reply(msgspec.json.encode(answer), headers)
