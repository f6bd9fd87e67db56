"""GET /v1/judges: how far each judge agrees with the people who graded the same answers."""

from __future__ import annotations

from aiohttp import web

from bandit_service.core.judge_grades import Agreement, altogether
from bandit_service.core.routes import AUTO
from bandit_service.http.middleware import CONFIGURATION, ROUTER, reply
from bandit_service.http.responses.judges import Agreed, CurvePoint, JudgeRow, Judges


async def judges(request: web.Request) -> web.Response:
    """GET /v1/judges."""
    known = request.app[ROUTER].world.judging
    rows = []
    for spec in request.app[CONFIGURATION].settings.judges:
        routes = known.routes(spec.id, spec.basis)
        overall = altogether(routes.values())
        rows.append(
            JudgeRow(
                id=spec.id,
                kind=spec.kind,
                calibration=spec.calibration,
                min_pairs=spec.min_pairs,
                applied=spec.calibration == "apply" and overall.pairs >= spec.min_pairs,
                overall=_agreed(overall),
                routes={route or AUTO: _agreed(one) for route, one in sorted(routes.items())},
            )
        )
    return reply(Judges(judges=rows))


def _agreed(pairs: Agreement) -> Agreed:
    return Agreed(
        pairs=pairs.pairs,
        mean_difference=pairs.mean_difference,
        mean_absolute_difference=pairs.mean_absolute_difference,
        correlation=pairs.correlation,
        curve=[
            CurvePoint(score=at.score, pairs=at.pairs, grade=at.grade, calibrated=at.calibrated)
            for at in pairs.curve()
        ],
    )
