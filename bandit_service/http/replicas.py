"""GET /v1/replicas: the replicas of the log, and how far each is."""

from __future__ import annotations

from aiohttp import web

from bandit_service.http.middleware import ROUTER, reply
from bandit_service.http.responses.operations import ReplicaRow, Replicas


async def replicas(request: web.Request) -> web.Response:
    """GET /v1/replicas."""
    writer = request.app[ROUTER].writer
    rows = await writer.membership.replicas()
    newest = max((each.durable for each in rows), default=0)
    return reply(
        Replicas(
            this=writer.membership.slot,
            newest=newest,
            replicas=[
                ReplicaRow(
                    slot=each.slot,
                    epoch=each.epoch,
                    open=not each.closed,
                    unseen_s=round(each.unseen_s, 3),
                    applied=each.applied,
                    behind=max(0, newest - each.applied),
                    roles=list(each.roles),
                    digest_at=each.mark.offset,
                    digest=each.mark.digest,
                    differs=writer.membership.differs(each),
                    folds_by=each.key,
                    reads=each.reads,
                )
                for each in rows
            ],
        )
    )
