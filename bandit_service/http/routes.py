"""The table of every path: dispatch, authorization and the OpenAPI document are read from it.

A new endpoint is one row here, its handler, and its structs. A path without a row does not exist.
"""

from __future__ import annotations

from collections.abc import Mapping

from aiohttp import web

from bandit_service import wire
from bandit_service.core import errors
from bandit_service.core.events import ArmSpec
from bandit_service.core.experiments.answers import ExperimentResults
from bandit_service.core.experiments.public import PublicExperiment
from bandit_service.core.experiments.spec import Rules
from bandit_service.http import (
    catalogue,
    configuration,
    decisions,
    demo,
    drift,
    events,
    experiments,
    feedback,
    gateway,
    history,
    judges,
    live,
    operations,
    outcomes,
    page,
    pool_states,
    replicas,
    stream,
    tensorzero,
    texts,
    topics,
    unsupported,
)
from bandit_service.http import parameters as given
from bandit_service.http.provider_calls import ABSENT
from bandit_service.http.responses import catalogue as arms
from bandit_service.http.responses import configuration as configured
from bandit_service.http.responses import decisions as made
from bandit_service.http.responses import demo as demos
from bandit_service.http.responses import experiments as judged
from bandit_service.http.responses import judges as agreed
from bandit_service.http.responses import operations as run
from bandit_service.http.responses import outcomes as learned
from bandit_service.http.responses import provider_bodies
from bandit_service.http.responses import texts as said
from bandit_service.http.responses import topics as clustered
from bandit_service.http.route import Handler, Method, Route, Scope
from bandit_service.offline.history.fold import History
from bandit_service.parsing.suggestions import did_you_mean

_DOWN = (errors.Unavailable,)
_BODY = (errors.Refused, errors.TooSlow, errors.TooLarge, *_DOWN)
_FOUND = (errors.Unknown, *_DOWN)
_LEARNED = (*_BODY, errors.Unknown, errors.Conflict, errors.Expired, errors.Busy)
_VOTED = (errors.Refused, errors.Forbidden, errors.Unknown, errors.Expired)
_CHANGED = (*_BODY, errors.Unknown, errors.Conflict)
_PASSED = (*_BODY, errors.Unknown, errors.UpstreamError, errors.OutOfTime)
_ROUTED = (*_PASSED, errors.NoEligibleArm)
_OFFSET = {
    "x-bandit-offset": "The offset that the replica had applied; only if several share a log."
}

_ARM = {"usd_per_mtok_in": 0.25, "usd_per_mtok_out": 2.0, "capabilities": ["json"]}
_QUERY = "What is the capital of France?"
_DECISION = "0192f1b6-7c1e-7aaa-9c1e-5f0d6b1a2c3d"
_EXPERIMENT = {
    "variants": [
        {"key": "control", "weight": 0.5},
        {"key": "treatment", "weight": 0.5, "policy": "eagle"},
    ],
    "primary": "reward",
    "guardrails": [{"metric": "quality", "max_regression": 0.05}],
}
_COMPLETION = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "model": "gpt-5-mini",
    "choices": [
        {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "Paris."}}
    ],
}
_MESSAGE = {
    "id": _DECISION,
    "type": "message",
    "role": "assistant",
    "model": "claude-sonnet-4-5",
    "content": [{"type": "text", "text": "Paris."}],
    "stop_reason": "end_turn",
    "stop_sequence": None,
    "usage": {"input_tokens": 14, "output_tokens": 5},
}
_RESPONSE = {
    "id": _DECISION,
    "object": "response",
    "status": "completed",
    "model": "gpt-5-mini",
    "output": [
        {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "status": "completed",
            "content": [{"type": "output_text", "text": "Paris.", "annotations": []}],
        }
    ],
}
_TEXT = {
    "id": "cmpl-1",
    "object": "text_completion",
    "model": "gpt-5-mini",
    "choices": [{"index": 0, "finish_reason": "stop", "text": " Paris."}],
}
_VECTORS = {
    "object": "list",
    "model": "text-embedding-3-small",
    "data": [{"object": "embedding", "index": 0, "embedding": [0.6, 0.8]}],
}
_JSON, _HTML, _TEXT_TYPE = "application/json", "text/html", "text/plain"


def _of_experiment(
    method: Method, rest: str, scope: Scope, handler: Handler, summary: str, **more: object
) -> Route:
    """A path of one experiment; most answer with how it stands."""
    more = {"answer": judged.ExperimentStanding, "parameters": (given.EXPERIMENT,)} | more
    return Route(method, f"/v1/experiments/{{id}}{rest}", scope, handler, summary, **more)  # type: ignore[arg-type]


ROUTES: tuple[Route, ...] = (
    # --- the service -------------------------------------------------------------------
    Route("GET", "/", "", operations.index, "Where to look",
          "The web page to a browser, JSON to everybody else.",
          answer=run.Index, content=(_HTML,)),
    Route("GET", "/docs", "", page.reference, "This reference, for people",
          "A page that the browser renders from /openapi.json.",
          says="the page", content=(_HTML,)),
    Route("GET", "/healthz", "", operations.healthz, "Alive",
          "Answers as long as the process runs.",
          answer=learned.Status, answered={"status": "ok"}),
    Route("GET", "/readyz", "", operations.readyz, "Recovered and taking traffic",
          "503 while the service starts or stops.",
          answer=learned.Status, answered={
              "status": "ready", "events": 12043, "arms": 5, "first": 1, "last": 12043},
          errors=_DOWN),
    Route("GET", "/metrics", "metrics", operations.metrics, "Prometheus metrics",
          "docs/metrics.md explains each.", says="text format", content=(_TEXT_TYPE,)),
    Route("GET", "/openapi.json", "", operations.openapi, "This document",
          "OpenAPI 3.1, made from the structs that requests and answers are.",
          says="OpenAPI 3.1", content=(_JSON,)),
    Route("GET", "/web/{name}", "", page.asset, unlisted=True),
    # --- deciding and learning ---------------------------------------------------------
    Route("POST", "/v1/decide", "decide", decisions.decide,
          "Which arm should answer this query",
          "Draws one of the eligible arms and records the probability of each.",
          answer=made.Decision, body=wire.DecideRequest,
          sent={"query": _QUERY, "max_cost_usd": 0.01, "unit": "user-17"},
          parameters=(given.TIMEOUT, given.LEARNED, given.KEY), headers=_OFFSET,
          errors=(*_BODY, errors.Unknown, errors.Conflict, errors.NoEligibleArm, errors.Busy,
                  errors.OutOfTime)),
    Route("POST", "/v1/explain", "read", decisions.explain,
          "What would be decided and why, of a query or of a decision's again; nothing is drawn or "
          "written",
          "Send a query as for /v1/decide, or `decision_id` alone.",
          answer=made.Explanation, body=wire.ExplainRequest, sent={"query": _QUERY},
          parameters=(given.LEARNED,), headers=_OFFSET,
          errors=(*_BODY, errors.Unknown, errors.Expired, errors.NoEligibleArm, errors.Busy)),
    Route("POST", "/v1/rewards", "reward", outcomes.rewards,
          "What an answer was worth: one, or a list",
          "An accepted reward is on disk before the answer is sent. Send `decision_id`, or a query "
          "and the arm that answered it.",
          answer=learned.Results, body=wire.RewardRequest,
          sent={"decision_id": _DECISION, "quality": 0.9, "cost_usd": 0.0007},
          answered={"results": [{"decision_id": _DECISION, "status": "accepted"}]},
          parameters=(given.LEARNED,), headers=_OFFSET, many=True, errors=_LEARNED),
    Route("POST", "/v1/comparisons", "reward", outcomes.comparisons,
          "Which of two arms did better: one, or a list",
          "Send `decision_id`, or a query.",
          answer=learned.Results, body=wire.CompareRequest,
          sent={"query": _QUERY, "winner": "gpt-5-mini", "loser": "o3"},
          answered={"results": [{"decision_id": None, "status": "accepted"}]},
          parameters=(given.LEARNED,), headers=_OFFSET, many=True, errors=_LEARNED),
    Route("GET", "/v1/decisions", "read", decisions.list_decisions,
          "The newest decisions, by tag, arm or route",
          "Those that may still be rewarded. One answer looks at some 2,000 decisions; ask for "
          "older ones with `before`.",
          answer=made.DecisionList,
          parameters=(given.TAG, given.OF_ARM, given.OF_ROUTE, given.BEFORE, given.MAX_DECISIONS),
          errors=(errors.Refused, *_DOWN)),
    Route("GET", "/v1/history", "read", history.history,
          "Decisions, rewards and spend by period and group; one at a time",
          "Computed from the log by a separate process: docs/web-page.md.",
          answer=History,
          parameters=(given.PER, given.BY, given.SINCE, given.UNTIL, given.GROUPS),
          errors=(errors.Refused, errors.Busy, errors.OutOfTime, *_DOWN)),
    Route("GET", "/v1/decisions/{id}", "read", decisions.decision,
          "Why this arm, and what came back",
          "The record of one decision, as long as it is kept.",
          answer=made.Decision, parameters=(given.DECISION, given.LEARNED), headers=_OFFSET,
          errors=(*_FOUND, errors.Refused, errors.Expired)),
    Route("GET", "/v1/decisions/{id}/text", "texts", texts.text,
          "Question and answer of a decision, if they are kept",
          "Kept only if `texts.keep` says so: docs/texts.md.",
          answer=said.DecisionText, parameters=(given.DECISION,),
          errors=(*_FOUND, errors.Refused, errors.Expired)),
    Route("GET", "/v1/topics", "texts", topics.topics,
          "Topics of the kept questions, with each arm's reward and cost in them",
          "Kept only if `texts.keep` says so; not for a key of one tenant: docs/texts.md.",
          answer=clustered.Topics, errors=_FOUND),
    Route("GET", "/v1/feedback/{token}", "", feedback.show,
          "The page on which a user votes on one answer",
          "A page for browsers; for programs the present vote. The token grants a vote on this "
          "answer, so no key is needed. A GET never votes.",
          answer=learned.Vote, content=(_HTML,), parameters=(given.TOKEN,), errors=_VOTED),
    Route("POST", "/v1/feedback/{token}", "", feedback.vote,
          "Vote on one answer: up, down, or neutral, which withdraws a vote",
          "JSON, or a form. The last vote counts.",
          answer=learned.Vote, body=wire.VoteRequest, sent={"vote": "up"},
          parameters=(given.TOKEN,),
          errors=(*_VOTED, *_BODY, errors.Conflict, errors.Denied, errors.RateLimited)),
    Route("POST", "/feedback", "reward", tensorzero.feedback,
          "Feedback as TensorZero's clients send it",
          "A metric of `[[metrics]]` for a decision (`inference_id`) or a session (`episode_id`); "
          "the last value counts. Comments and demonstrations are texts and get 501.",
          answer=learned.FeedbackTaken, body=wire.Feedback,
          sent={"metric_name": "resolved", "value": True, "inference_id": _DECISION},
          errors=(*_LEARNED, errors.NotThere)),
    Route("GET", "/v1/stream", "stream", stream.stream,
          "WebSocket, subprotocol bandit.v1, MessagePack maps; see docs/api.md",
          "Decide, reward and compare on one connection; each message needs its own scope.",
          statuses=(101,), says="switching protocols", errors=(errors.Refused,), head=True),
    Route("GET", "/v1/events", "admin", events.events, "The stored events in order",
          "For exports and replicas.",
          says="frames: the length in 4 bytes, big-endian, and MessagePack of [offset, event], nil "
          "for an erased event; see docs/api.md",
          content=("application/octet-stream",),
          headers={"x-log-first": "Offset of the first event in the log.",
                   "x-log-last": "Offset of the last event in the log.",
                   "x-last-offset": "Offset of the last event in this answer."},
          parameters=(given.AFTER, given.LIMIT),
          errors=(errors.Refused, errors.Expired, *_DOWN)),
    # --- providers' dialects -----------------------------------------------------------
    Route("POST", "/v1/chat/completions", "decide", gateway.chat,
          "OpenAI's chat completions, routed: model auto, or an arm",
          "The answer is the provider's, passed on; `x-decision-id` names the decision.",
          answer=provider_bodies.Anything, answered=_COMPLETION, body=provider_bodies.Chat,
          sent={"model": "auto", "messages": [{"role": "user", "content": _QUERY}]},
          parameters=(given.LEARNED,), headers=_OFFSET, errors=_ROUTED),
    Route("POST", "/v1/completions", "decide", gateway.completions, "OpenAI's completions, routed",
          "The answer is the provider's, passed on.",
          answer=provider_bodies.Anything, answered=_TEXT, body=provider_bodies.Completion,
          sent={"model": "auto", "prompt": "The capital of France is"},
          parameters=(given.LEARNED,), headers=_OFFSET, errors=_ROUTED),
    Route("POST", "/v1/embeddings", "decide", gateway.embeddings,
          "OpenAI's embeddings, by the arm that is named, or auto",
          "`auto` is the cheapest arm of kind `embedding` that answers; nothing is decided or "
          "learned.",
          answer=provider_bodies.Anything, answered=_VECTORS, body=provider_bodies.Embeddings,
          sent={"model": "text-embedding-3-small", "input": [_QUERY]}, errors=_PASSED),
    Route("POST", "/v1/messages", "decide", gateway.messages,
          "Anthropic's messages, routed: model auto, or an arm",
          "Any arm answers in Anthropic's shape; `x-decision-id` names the decision.",
          answer=provider_bodies.Anything, answered=_MESSAGE, body=provider_bodies.Message,
          sent={"model": "auto", "max_tokens": 256,
                "messages": [{"role": "user", "content": _QUERY}]},
          parameters=(given.LEARNED,), headers=_OFFSET,
          refusal=learned.MessageError, errors=_ROUTED),
    Route("POST", "/v1/messages/count_tokens", "decide", gateway.count_tokens,
          "How many tokens a request of Anthropic's has",
          "The named arm's provider counts, if it speaks this dialect; else it is a guess, which "
          "`x-token-count` says.",
          answer=provider_bodies.TokenCount, body=provider_bodies.Counted,
          sent={"model": "auto", "messages": [{"role": "user", "content": _QUERY}]},
          refusal=learned.MessageError, errors=_PASSED),
    Route("POST", "/v1/responses", "decide", gateway.responses,
          "OpenAI's responses, routed: model auto, or an arm",
          "Any arm answers in this shape. No response is kept: `previous_response_id` is refused.",
          answer=provider_bodies.Anything, answered=_RESPONSE, body=provider_bodies.Responses,
          sent={"model": "auto", "input": _QUERY},
          parameters=(given.LEARNED,), headers=_OFFSET, errors=_ROUTED),
    Route("POST", "/v1/responses/input_tokens", "decide", gateway.input_tokens,
          "How many tokens a request of the Responses API has",
          "The named arm's provider counts, if it speaks this dialect; else it is a guess, which "
          "`x-token-count` says.",
          answer=provider_bodies.InputTokens, body=provider_bodies.Responses,
          sent={"model": "auto", "input": _QUERY}, errors=_PASSED),
    Route("GET", "/v1/models", "decide", gateway.models, "auto, and every callable arm",
          "As OpenAI lists models; as Anthropic does where `anthropic-version` is sent.",
          answer=arms.Models, errors=_DOWN),
    Route("GET", "/v1/models/{id}", "decide", gateway.model, "One of them",
          "As OpenAI describes a model, or Anthropic.",
          answer=arms.Model, parameters=(given.MODEL,), errors=_FOUND),
    Route("GET", "/v1/budgets", "read", gateway.budgets, "Every budget with its spend",
          "A key of one tenant sees only that tenant's.", answer=run.Budgets, errors=_DOWN),
    Route("GET", "/v1/duels/{id}", "reward", gateway.duel,
          "Both answers of a duel, for a user who is to compare them",
          "A duel is two answers to one query; docs/gateway.md.",
          answer=made.Duel, parameters=(given.DECISION,), errors=_FOUND),
    # --- arms and policies -------------------------------------------------------------
    Route("GET", "/v1/arms", "read", catalogue.list_arms, "The catalogue",
          "Every arm with its measured values.", answer=arms.Arms, errors=_DOWN),
    Route("PUT", "/v1/arms/{id}", "admin", catalogue.put_arm, "Add or replace an arm",
          "201 for a new arm. What was learned of an arm stays.",
          answer=arms.Arm, statuses=(200, 201), body=ArmSpec, sent=_ARM, parameters=(given.ARM,),
          errors=_BODY),
    Route("DELETE", "/v1/arms/{id}", "admin", catalogue.delete_arm, "Retire an arm",
          "What was learned of it stays.", answer=arms.Arm, parameters=(given.ARM,),
          errors=_FOUND),
    Route("GET", "/v1/policies", "read", catalogue.list_policies,
          "All policies, and the one that decides",
          "Also the policies that learn beside it, and how well propensities are calibrated.",
          answer=arms.Policies, errors=_DOWN),
    Route("PUT", "/v1/policy", "admin", catalogue.put_policy,
          "Train another policy on the log; it serves when that is done",
          "The old policy serves meanwhile; GET /v1/policies shows the progress.",
          answer=arms.Policies, statuses=(202,), body=wire.PolicyRequest,
          sent={"name": "eagle", "parameters": {}},
          errors=(*_BODY, errors.Conflict, errors.NotThere)),
    Route("GET", "/v1/policies/{name}/state", "totals", catalogue.policy_state,
          "Size and hash of the state", "To compare replicas.",
          answer=arms.PolicyState, parameters=(given.POLICY,), errors=_FOUND),
    # --- what is watched ---------------------------------------------------------------
    Route("GET", "/v1/live", "read", live.live, "What the page shows, second by second",
          "docs/web-page.md describes the fields.",
          says="server-sent events of JSON, `begin` and then a `tick` every second, for ten "
          "minutes; see docs/web-page.md",
          content=("text/event-stream",), errors=_DOWN, head=False),
    Route("GET", "/v1/live/map", "read", live.picture,
          "The newest queries by their two principal directions",
          "Made at most every five seconds.", answer=run.Map, errors=_DOWN),
    Route("GET", "/v1/demo", "read", demo.get_demo,
          "Whether recorded traffic can be sent through this service, or is",
          "docs/web-page.md.", answer=demos.Demo, errors=_DOWN),
    Route("POST", "/v1/demo", "admin", demo.start_demo,
          "Send recorded traffic through this service",
          "Only where nothing is configured and nothing was decided yet.",
          answer=demos.Demo, statuses=(202,), errors=(errors.Conflict, *_DOWN)),
    Route("GET", "/v1/drift", "totals", drift.drift,
          "What is watched for drift, and the newest alarms", "docs/drift.md.",
          answer=run.Drift, errors=_DOWN),
    Route("GET", "/v1/judges", "totals", judges.judges,
          "How far each judge agrees with the people who graded the same answers",
          "docs/gateway.md.", answer=agreed.Judges, errors=_DOWN),
    Route("GET", "/v1/pools", "totals", pool_states.pools,
          "Every pool of tenants, with its log and its state",
          "One, the default pool, where none is configured: docs/pools.md.",
          answer=run.Pools, errors=_DOWN),
    Route("POST", "/v1/pools/{name}/move", "admin", pool_states.move,
          "Move a pool's log to the database that the file names now",
          "The file is read again; GET /v1/pools says how far it is: docs/pools.md.",
          answer=run.Pools, statuses=(202,), parameters=(given.POOL_NAME,),
          errors=(errors.Refused, errors.Conflict, *_DOWN)),
    Route("GET", "/v1/replicas", "totals", replicas.replicas,
          "The replicas that share the log, and how far each is",
          "Empty if one process has the log alone: docs/scale.md.",
          answer=run.Replicas, errors=_DOWN),
    # --- experiments -------------------------------------------------------------------
    Route("GET", "/v1/experiments", "read", experiments.list_experiments,
          "Every experiment, and the rules over all",
          "A key of one tenant sees only those whose audience is that tenant.",
          answer=judged.Experiments, errors=_DOWN),
    _of_experiment("GET", "", "read", experiments.get_experiment, "One experiment",
                   description="Its description and state.", errors=_FOUND),
    _of_experiment("PUT", "", "admin", experiments.put_experiment,
                   "Make a draft, or change an experiment",
                   description="Without `share`, the share that a ramp set stays.",
                   statuses=(200, 201), body=PublicExperiment, sent=_EXPERIMENT,
                   errors=(*_CHANGED, errors.NotThere)),
    _of_experiment("PATCH", "", "admin", experiments.patch_experiment,
                   "Ramp, change the weights, or release a held variant",
                   description="Send at least one of `share`, `weights` and `release`.",
                   body=wire.ExperimentPatch, sent={"share": 0.5, "why": "the first week is fine"},
                   errors=_CHANGED),
    _of_experiment("DELETE", "", "admin", experiments.delete_experiment,
                   "Delete a draft or a finished experiment",
                   description="Answers with the experiment as it was.",
                   parameters=(given.EXPERIMENT, given.WHY),
                   errors=(errors.Refused, errors.Conflict, *_FOUND)),
    _of_experiment("GET", "/results", "read", experiments.get_results,
                   "The conclusions so far",
                   description="Every interval is valid at every look; "
                   "docs/experiments-statistics.md explains each number.",
                   answer=ExperimentResults, errors=_FOUND),
    _of_experiment("POST", "/whatif", "admin", experiments.ask_whatif,
                   "What other policies would have earned, or why that cannot be estimated; one at "
                   "a time",
                   description="Off-policy estimates on logged decisions: docs/off-policy.md.",
                   answer=judged.WhatIf, body=wire.WhatIfRequest,
                   sent={"policies": [{"name": "eagle"}], "on": "service"},
                   errors=(*_BODY, errors.Unknown, errors.Busy, errors.OutOfTime)),
    _of_experiment("POST", "/start", "admin", experiments.start_experiment,
                   "Start or resume; 202 while policies are trained",
                   description="A paused experiment continues where it was.",
                   statuses=(200, 202), body=wire.ExperimentMove,
                   sent={"why": "reviewed by the team"}, errors=_CHANGED),
    _of_experiment("POST", "/pause", "admin", experiments.pause_experiment,
                   "Assign no unit for now", description="It keeps what it knows.",
                   body=wire.ExperimentMove, sent={"why": "an outage"}, errors=_CHANGED),
    _of_experiment("POST", "/stop", "admin", experiments.stop_experiment,
                   "End it, with a winner", description="`ship` lets the winner's policy serve.",
                   body=wire.ExperimentStop,
                   sent={"winner": "treatment", "why": "it is better"}, errors=_CHANGED),
    Route("GET", "/v1/experiment-rules", "read", experiments.get_rules,
          "The kill switch and the hold-out", "Defaults are left out.", answer=Rules,
          errors=_DOWN),
    Route("PUT", "/v1/experiment-rules", "admin", experiments.put_rules,
          "Set the kill switch and the hold-out", "What is left out stays.", answer=Rules,
          body=Rules, sent={"stopped": True, "why": "an outage"},
          errors=(*_BODY, errors.Unknown, errors.NotThere)),
    # --- configuration -----------------------------------------------------------------
    Route("GET", "/v1/configuration", "admin", configuration.get_configuration,
          "What is in force, and the newest changes",
          "The ETag is the revision; docs/live-configuration.md.",
          answer=configured.Configuration, errors=_DOWN),
    Route("PUT", "/v1/configuration", "admin", configuration.put_configuration,
          "Replace sections of the configuration",
          "All of them or none; sections that are left out stay. `If-Match` names the revision "
          "that you change.",
          answer=configured.Configuration, body=wire.ConfigurationRequest,
          sent={"budgets": [{"scope": "service", "per": "day", "usd": 20.0}],
                "why": "a larger budget for the launch"},
          parameters=(given.IF_MATCH,), errors=(*_BODY, errors.Stale)),
    Route("POST", "/v1/configuration/rollback", "admin", configuration.rollback,
          "Restore the sections of an earlier revision",
          "This makes a new revision. Keys do not change: a revoked key stays revoked.",
          answer=configured.Configuration, body=wire.RollbackRequest,
          sent={"to": 6, "why": "the new provider fails"},
          parameters=(given.IF_MATCH,), errors=(*_BODY, errors.Unknown, errors.Stale)),
    Route("GET", "/v1/keys", "admin", configuration.list_keys, "Every API key",
          "Without their hashes.", answer=configured.Keys, errors=_DOWN),
    Route("POST", "/v1/keys", "admin", configuration.make_key, "Make an API key",
          "Only this answer contains the key; the service keeps its hash.",
          answer=configured.NewKey, statuses=(201,), body=wire.KeyRequest,
          sent={"id": "app", "scopes": ["decide", "reward"]},
          errors=(*_BODY, errors.Conflict)),
    Route("POST", "/v1/keys/{id}/rotate", "admin", configuration.rotate_key,
          "Replace a key by a new one with the same id",
          "`grace_s` keeps the old key valid for a while.",
          answer=configured.NewKey, body=wire.KeyRotation, sent={"grace_s": 3600},
          parameters=(given.API_KEY,), errors=(*_BODY, errors.Unknown)),
    Route("DELETE", "/v1/keys/{id}", "admin", configuration.revoke_key, "Revoke an API key",
          "Takes effect at once, on open streams too. Answers with the remaining keys.",
          answer=configured.Keys, parameters=(given.API_KEY, given.WHY),
          errors=(errors.Refused, *_FOUND)),
    # --- upkeep ------------------------------------------------------------------------
    Route("DELETE", "/v1/units/{unit}", "admin", operations.forget_unit,
          "Erase all that is kept of a unit", "Also from the log's files and from snapshots.",
          answer=run.Erased, parameters=(given.UNIT, given.TENANT),
          errors=(errors.Refused, errors.NotThere, *_DOWN)),
    Route("POST", "/v1/snapshots", "admin", operations.snapshot, "Make a snapshot now",
          "Of everything up to now.", answer=run.Snapshot, errors=_DOWN),
    # --- calls of other dialects that are not supported ---------------------------------
    *(Route("POST", path, "decide", unsupported.unsupported, unlisted=True) for path in ABSENT),
)  # fmt: skip
"""Every method of every path."""

_SLASHED = frozenset(
    (
        *(
            f"/v1/{name}"
            for name in (
                "chat/completions",
                "completions",
                "embeddings",
                "messages",
                "messages/count_tokens",
                "responses",
                "responses/input_tokens",
            )
        ),
        *ABSENT,
    )
)

_OF_PROVIDERS = _SLASHED | {"/v1/models", "/v1/models/{id}", "/feedback"}


def checks_query(row: Route) -> bool:
    """Whether a parameter that the row has not is refused. Clients of providers add their own, and
    pages are asked for with any."""
    return row.scope not in ("", "stream", "metrics") and row.path not in _OF_PROVIDERS


def handler_of(row: Route) -> Handler:
    """What answers a row. One that is mistyped would say less than was meant, so it is refused."""
    if not checks_query(row):
        return row.handler
    parameters = {each.name: each for each in row.parameters if each.place == "query"}
    known = sorted(parameters)
    there_are = f"expected one of {', '.join(known)}" if known else "it has none"

    async def handler(request: web.Request) -> web.StreamResponse:
        if request.query_string:
            given = request.rel_url.query
            for name in given:
                if name not in parameters:
                    what = f"no such parameter{did_you_mean(name, known)}; {there_are}"
                    raise errors.Refused(f"{name}: {what}", param=name)
                if len(given.getall(name)) > 1 and parameters[name].schema["type"] != "array":
                    raise errors.Refused(f"{name}: given twice; give it once", param=name)
        return await row.handler(request)

    return handler


SCOPES: Mapping[tuple[str, str], Scope] = {(row.method, row.path): row.scope for row in ROUTES}
"""What each row needs; a path that is not here needs `admin`."""


def paths_of(row: Route) -> tuple[str, ...]:
    """The paths that a row answers; where clients of providers ask, also with a slash behind."""
    return (row.path, f"{row.path}/") if row.path in _SLASHED else (row.path,)
