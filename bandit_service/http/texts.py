"""GET /v1/decisions/{id}/text: what was asked and answered, where it is kept."""

from __future__ import annotations

from aiohttp import web

from bandit_service import logs
from bandit_service.core.errors import Unknown
from bandit_service.core.events import pack
from bandit_service.http.middleware import CALLER, ROUTER, reply
from bandit_service.http.responses.texts import DecisionText, NeighbourText
from bandit_service.runtime.text_store import OtherKey


async def text(request: web.Request) -> web.Response:
    """GET /v1/decisions/{id}/text; to a tenant's key of its own decisions, without neighbours."""
    caller, router, id = request[CALLER], request.app[ROUTER], request.match_info["id"]
    texts = router.texts
    if texts is None:
        raise Unknown("id: no texts are kept; texts.keep is off", param="id")
    decided = router.pending.find(id, caller.tenant).decided
    logs.decision_id.set(id)
    try:
        kept = await texts.of(id)
    except OtherKey:
        told = "id: its text was encrypted under a key that is not there"
        raise Unknown(told, param="id") from None
    if kept is None:
        raise Unknown(
            "id: no text of it is kept: it came as an embedding, has no answer yet, or is too old",
            param="id",
        )
    near = {} if caller.tenant is not None else await texts.of_neighbours(decided.neighbours)
    until, said = kept
    items = router.world.history.items
    vectors = [pack(router.world.history.vector(each)) if each in items else b"" for each in near]
    of, *of_near = (
        [None] * (1 + len(near))
        if router.topics is None
        else router.topics.of([decided.embedding, *vectors])
    )
    topics = dict(zip(near, of_near, strict=True))
    return reply(
        DecisionText(
            decision_id=id,
            topic=of if caller.tenant is None else None,
            question=said.question,
            answer=said.answer,
            redacted=said.redacted,
            cut=said.cut,
            until=until,
            neighbours=[
                NeighbourText(id=each, question=near[each].question, topic=topics[each])
                for each in decided.neighbours
                if each in near
            ],
        ),
        headers={"Cache-Control": "no-store"},
    )
