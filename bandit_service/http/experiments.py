"""HTTP of the experiments: parse, call, render."""

from __future__ import annotations

from typing import Any

import msgspec
from aiohttp import web

from bandit_service import wire
from bandit_service.core.errors import Refused, type_in_words
from bandit_service.core.experiments.conclusions import conclusion
from bandit_service.core.experiments.public import (
    PublicExperiment,
    published,
    respelled,
    stored,
)
from bandit_service.core.experiments.results import results
from bandit_service.core.experiments.spec import Experiment, Rules, holdout_id, is_holdout
from bandit_service.core.experiments.trial import Trial
from bandit_service.http.middleware import CALLER, ROUTER, body_of, reply
from bandit_service.http.responses.experiments import Experiments as ExperimentList
from bandit_service.http.responses.experiments import ExperimentStanding
from bandit_service.http.responses.experiments import WhatIf as WhatIfReport
from bandit_service.offline.offpolicy.whatif import WhatIf
from bandit_service.parsing.validation import without_nulls
from bandit_service.runtime.experiment_monitor import unknown
from bandit_service.runtime.experiments import Experiments

WHATIF = web.AppKey("whatif", WhatIf)
EXPERIMENTS = web.AppKey("experiments", Experiments)
_MAX_WHY = 1_000


def described(spec: Experiment, trial: Trial) -> ExperimentStanding:
    """One experiment in a list: its record and its state."""
    return ExperimentStanding(
        id=spec.id,
        status=trial.status,
        experiment=published(spec),
        begun=trial.begun,
        ended=trial.ended,
        winner=trial.winner or None,
        decisions=sum(side.decisions for side in trial.sides.values()),
        units=sum(side.units for side in trial.sides.values()),
        held=dict(trial.held),
        conclusion=conclusion(spec, trial),
    )


async def list_experiments(request: web.Request) -> web.Response:
    """GET /v1/experiments."""
    records, tenant = request.app[ROUTER].world.experiments, request[CALLER].tenant
    shown = [
        described(spec, records.trials[id])
        for id, spec in records.specs.items()
        if not is_holdout(id) and _may_see(spec, tenant)
    ]
    return reply(ExperimentList(experiments=shown, rules=records.rules))


async def get_experiment(request: web.Request) -> web.Response:
    """GET /v1/experiments/{id}."""
    return reply(described(*_of(request)))


async def get_results(request: web.Request) -> web.Response:
    """GET /v1/experiments/{id}/results."""
    spec, trial = _of(request)
    of_all = request[CALLER].tenant is None  # one tenant does not see others' costs
    world = request.app[ROUTER].world
    holdout = world.experiments.trials.get(holdout_id(spec.route)) if of_all else None
    return reply(results(spec, trial, holdout, world.ts))


async def put_experiment(request: web.Request) -> web.Response:
    """PUT /v1/experiments/{id}: create a draft, or change an experiment.

    A share that is left out stays as a ramp or a PATCH set it.
    """
    body = await _body(request, "the experiment")
    why = _why(body.pop("why", None))
    body = without_nulls(respelled(body), PublicExperiment)
    id, experiments = request.match_info["id"], request.app[EXPERIMENTS]
    if body.setdefault("id", id) != id:
        raise Refused(f"id: the path says {id!r}, the body {body['id']!r}", param="id")
    before = experiments.world.experiments.specs.get(id)
    if before is not None:
        body.setdefault("share", before.share)
    spec = wire.convert(body, PublicExperiment)
    created = await experiments.put(stored(spec), _who(request), why)
    return reply(described(*_of(request)), 201 if created else 200)


async def patch_experiment(request: web.Request) -> web.Response:
    """PATCH /v1/experiments/{id}: share, weights, or a held variant's release."""
    asked = wire.convert(await _body(request), wire.ExperimentPatch)
    if asked.share is None and asked.weights is None and asked.release is None:
        raise Refused("share: send share, weights or release")
    await request.app[EXPERIMENTS].change(
        request.match_info["id"],
        _who(request),
        _why(asked.why),
        share=asked.share,
        weights=asked.weights,
        release=asked.release,
    )
    return reply(described(*_of(request)))


async def ask_whatif(request: web.Request) -> web.Response:
    """POST /v1/experiments/{id}/whatif: what other policies would have earned."""
    spec, _ = _of(request)
    asked = wire.convert(await _body(request), wire.WhatIfRequest)
    report = await request.app[WHATIF].ask(asked, spec)
    return reply(WhatIfReport(**report))  # its content was decoded from the child's JSON


async def start_experiment(request: web.Request) -> web.Response:
    """POST /v1/experiments/{id}/start: 202 while its policies are being trained."""
    asked = wire.convert(await _body(request), wire.ExperimentMove)
    experiments = request.app[EXPERIMENTS]
    status = await experiments.begin(request.match_info["id"], _who(request), _why(asked.why))
    return reply(described(*_of(request)), 202 if status == "starting" else 200)


async def pause_experiment(request: web.Request) -> web.Response:
    """POST /v1/experiments/{id}/pause."""
    asked = wire.convert(await _body(request), wire.ExperimentMove)
    await request.app[EXPERIMENTS].pause(request.match_info["id"], _who(request), _why(asked.why))
    return reply(described(*_of(request)))


async def stop_experiment(request: web.Request) -> web.Response:
    """POST /v1/experiments/{id}/stop: end it, with a winner, which may be shipped."""
    asked = wire.convert(await _body(request), wire.ExperimentStop)
    await request.app[EXPERIMENTS].stop(
        request.match_info["id"], _who(request), _why(asked.why), asked.winner, asked.ship
    )
    return reply(described(*_of(request)))


async def delete_experiment(request: web.Request) -> web.Response:
    """DELETE /v1/experiments/{id}."""
    why = _why(request.query.get("why", ""))
    shown = described(*_of(request))
    await request.app[EXPERIMENTS].delete(request.match_info["id"], _who(request), why)
    return reply(shown)


async def get_rules(request: web.Request) -> web.Response:
    """GET /v1/experiment-rules."""
    return reply(request.app[ROUTER].world.experiments.rules)


async def put_rules(request: web.Request) -> web.Response:
    """PUT /v1/experiment-rules: the kill switch and the hold-out; omitted fields stay."""
    body = await _body(request, "stopped, holdout_share, holdout_arm, unit or salt")
    why = _why(body.pop("why", None))
    said = without_nulls(body, Rules)
    records = request.app[ROUTER].world.experiments
    rules = wire.convert(msgspec.to_builtins(records.rules) | said, Rules)
    await request.app[EXPERIMENTS].set_rules(rules, _who(request), why)
    return reply(request.app[ROUTER].world.experiments.rules)


def _of(request: web.Request) -> tuple[Experiment, Trial]:
    """The experiment of the path; another tenant's experiment is unknown to a tenant's key."""
    experiments, id = request.app[EXPERIMENTS], request.match_info["id"]
    spec, trial = experiments.find(id)
    if not _may_see(spec, request[CALLER].tenant):
        raise unknown(id)
    return spec, trial


def _may_see(spec: Experiment, tenant: str | None) -> bool:
    """Whether it measures only the tenant's own units; None sees everything."""
    return tenant is None or spec.audience.tenants == (tenant,)


def _who(request: web.Request) -> str:
    return request[CALLER].author


def _why(why: Any) -> str:
    if why is None:
        return ""
    if not isinstance(why, str) or len(why) > _MAX_WHY:
        raise Refused(f"why: must be a text of at most {_MAX_WHY} characters", param="why")
    return why


async def _body(request: web.Request, wanted: str = "") -> dict[str, Any]:
    """The object in the body; an empty body is an object without fields, unless one is required."""
    raw = await body_of(request)
    if wanted and not raw.strip():
        raise Refused(f"the body is empty; send {wanted}")
    body = wire.decode_request(raw) if raw.strip() else {}
    if not isinstance(body, dict):
        raise Refused(f"the body must be an object, got {type_in_words(body)}")
    return body
