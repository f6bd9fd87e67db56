"""GET /v1/topics: clusters of the questions that are kept, with words."""

from __future__ import annotations

import asyncio

from aiohttp import web

from bandit_service.core.display import rounded
from bandit_service.core.errors import Forbidden, Unknown
from bandit_service.core.resolved import Pending
from bandit_service.http.middleware import CALLER, ROUTER, reply
from bandit_service.http.responses.topics import TopicArm, TopicOf, TopicRow, Topics
from bandit_service.observe.feed import RECENT
from bandit_service.observe.topics import by_arm
from bandit_service.runtime import topic_words as words
from bandit_service.runtime.topics import TopicsFound

COUNTED = 5_000
"""Newest decisions that the sums are of."""


async def topics(request: web.Request) -> web.Response:
    """GET /v1/topics; not to a tenant's key, since they are made of all tenants' questions."""
    router = request.app[ROUTER]
    if request[CALLER].tenant is not None:
        raise Forbidden(
            "tenant: topics are made of all tenants' questions; ask with a key that has no tenant",
            param="tenant",
            reason="tenant",
        )
    if router.topics is None:
        raise Unknown("topics: no texts are kept; texts.keep is off", param="topics")
    found = await router.topics.found()
    newest = router.world.pending.decisions.newest(COUNTED)
    body = await asyncio.to_thread(_shown, found, newest, router.topics.people)
    return reply(body, headers={"Cache-Control": "no-store"})


def _shown(found: TopicsFound, newest: list[Pending], people: int) -> Topics:
    of = found.of([one.decided.embedding for one in newest])
    sums = by_arm(newest, of)
    rows = [
        TopicRow(
            topic=i,
            words=list(topic.words),
            questions=topic.questions,
            units=topic.units,
            arms=[
                TopicArm(
                    arm=arm,
                    decisions=each.decisions,
                    rewarded=each.reward.n,
                    reward=rounded(each.reward.mean) if each.reward.n else None,
                    billed=each.cost_usd.n,
                    cost_usd=rounded(each.cost_usd.mean) if each.cost_usd.n else None,
                )
                for arm, each in sorted(
                    sums.get(i, {}).items(), key=lambda item: (-item[1].decisions, item[0])
                )
            ],
        )
        for i, topic in enumerate(found.topics)
    ]
    return Topics(
        ts=found.ts,
        questions=found.questions,
        needed=words.FEWEST,
        people=people,
        topics=rows,
        decisions=[
            TopicOf(decision_id=one.decided.id, topic=topic)
            for one, topic in zip(newest[:RECENT], of, strict=False)
            if topic is not None
        ],
    )
