"""POST /feedback: TensorZero's feedback, as named metrics of a decision or a session.

An inference of TensorZero is a decision here, and an episode is a session. The last value counts.
"""

from __future__ import annotations

from aiohttp import web

from bandit_service import wire
from bandit_service.core.errors import NotThere, Refused, Unknown
from bandit_service.core.metric_spec import NamedMetric
from bandit_service.core.sessions import group_of
from bandit_service.core.world import World
from bandit_service.http.auth import Caller
from bandit_service.http.middleware import CALLER, body_of, new_id, reply
from bandit_service.http.outcomes import learning_of
from bandit_service.http.responses.outcomes import FeedbackTaken
from bandit_service.parsing.suggestions import did_you_mean
from bandit_service.runtime.router import Router

_TEXTS = {
    "comment": "a comment is a text, of which this service keeps none",
    "demonstration": "a demonstration is an answer's text, of which this service keeps none",
}


async def feedback(request: web.Request) -> web.Response:
    """POST /feedback."""
    asked = wire.convert(wire.decode_request(await body_of(request)), wire.Feedback)
    caller = request[CALLER]
    router = await learning_of(request).router_of(asked.inference_id, "")
    value = _checked(router.world, asked)
    reward = wire.RewardRequest(
        decision_id=asked.inference_id,
        session=asked.episode_id or "",
        metrics={asked.metric_name: value},
        correction=True,
    )
    if asked.dryrun:
        _find(router, reward, caller)
    else:
        await learning_of(request).take(reward)
    return reply(FeedbackTaken(feedback_id=new_id()))


def _checked(world: World, asked: wire.Feedback) -> float:
    """The value in the metric's form.

    Raises Refused, or NotThere, if it is not a value of the metric.
    """
    name, named = asked.metric_name, world.named.specs
    if name in _TEXTS and name not in named:
        metrics = f"; send a metric: {', '.join(named)}" if named else ""
        raise NotThere(f"metric_name: {_TEXTS[name]}{metrics}", param="metric_name")
    if (asked.inference_id is None) == (asked.episode_id is None):
        raise Refused(
            "inference_id: send it or episode_id, and not both: one is of a decision, the other of "
            "a session",
            param="inference_id",
        )
    spec = named.get(name)
    if spec is None:
        there_are = (
            f"expected one of {', '.join(named)}" if named else "none is; name it in [[metrics]]"
        )
        raise Refused(
            f"metric_name: no metric {name!r} is named{did_you_mean(name, named)}; {there_are}",
            param="metric_name",
        )
    if (spec.scope == "session") != (asked.episode_id is not None):
        field = "episode_id" if spec.scope == "session" else "inference_id"
        raise Refused(
            f"metric_name: {name!r} is of a {spec.scope}; send {field}", param="metric_name"
        )
    return _value(spec, asked.value)


def _value(spec: NamedMetric, value: object) -> float:
    fits = isinstance(value, bool if spec.kind == "boolean" else int | float)
    if not fits or (spec.kind == "number" and isinstance(value, bool)):
        allowed = (
            "true or false"
            if spec.kind == "boolean"
            else f"a number from {spec.low:g} to {spec.high:g}"
        )
        raise Refused(f"value: must be {allowed}", param="value")
    assert isinstance(value, int | float)
    if not spec.low <= value <= spec.high:
        raise Refused(f"value: must be a number from {spec.low:g} to {spec.high:g}", param="value")
    return float(value)


def _find(router: Router, reward: wire.RewardRequest, caller: Caller) -> None:
    """Raise Unknown or Expired if nothing can be rewarded."""
    if reward.decision_id is not None:
        router.pending.find(reward.decision_id, caller.tenant)
        return
    group = group_of(caller.tenant or "", "session", reward.session)
    if group not in router.world.sessions.members:
        raise Unknown(f"episode_id: no session {reward.session!r}", param="episode_id")
