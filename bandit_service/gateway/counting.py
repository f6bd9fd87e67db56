"""How many tokens a request of the Messages API has: the named arm's provider says it, or a guess.

Nothing is decided, and it costs nothing.
"""

from __future__ import annotations

import msgspec

from bandit_service.core.errors import Unknown
from bandit_service.gateway.client import Client, Reply
from bandit_service.gateway.failures import Failed, Rejected, rejection, upstream_error
from bandit_service.gateway.providers.anthropic import COUNT_PATH
from bandit_service.gateway.request import Asked, forwarded, is_auto, model_of
from bandit_service.gateway.request_size import size_of
from bandit_service.gateway.resources import Resources
from bandit_service.gateway.upstreams import read_answer


async def count_tokens(resources: Resources, client: Client, asked: Asked) -> Reply:
    """The count of the named arm, if its provider speaks this dialect; else the service's guess.

    Raises Unknown if there is no such arm, Refused if it is not for chat, and UpstreamError.
    """
    model = model_of(asked.own)
    spec = None if is_auto(model) else resources.chat_arm(model)
    if spec is None and not is_auto(model):
        raise Unknown(f"model: no arm {model!r} with an upstream", param="model")
    if spec is None or resources.upstreams.spec(spec.upstream).kind != asked.kind:
        tokens = size_of(asked.body, asked.own, asked.lost is not None).prompt
        return Reply(msgspec.json.encode({"input_tokens": tokens}), {"x-token-count": "estimated"})
    front, headers = asked.front, {"x-arm": spec.id, "x-token-count": "provider"}
    body = asked.own | {"model": spec.model or spec.id}
    own = forwarded(client.headers) | forwarded(client.headers, front.OWN_HEADERS)
    try:
        with client.waiting():
            async with resources.upstreams.send(spec.upstream, COUNT_PATH, body, own) as response:
                answer = await read_answer(response, resources.settings.max_answer_bytes)
    except Rejected as rejected:
        error = front.error(rejected.status, rejection(rejected, spec.id))
        return Reply(msgspec.json.encode(error), headers, rejected.status)
    except Failed as failed:
        raise upstream_error(spec.id, failed) from None
    return Reply(msgspec.json.encode(answer), headers)
