"""Vowpal Wabbit's DSJSON for `--cb_explore_adf`: one decision a line."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import msgspec

from bandit_service.core import events as ev
from bandit_service.export.lines import numbers
from bandit_service.export.scan import Outcome, Scan
from policies import ArmId

UNREWARDED = ("skip", "zero", "skip-learn")
Catalogue = dict[ArmId, ev.ArmSpec]


def lines(scan: Scan, embeddings: bool, unrewarded: str) -> Iterator[bytes]:
    """Every decision as a line, in order; `unrewarded` says what becomes of one without reward."""
    arms: Catalogue = {}
    for _, event in scan.events():
        if isinstance(event, ev.ArmAdded | ev.ArmUpdated):
            arms[event.arm.id] = event.arm
        if not isinstance(event, ev.Decided):
            continue
        outcome = scan.outcome(event.id)
        if outcome.reward is None and unrewarded == "skip":
            scan.counts.unrewarded += 1
            continue
        scan.counts.wrote("decisions")
        skip_learn = outcome.reward is None and unrewarded == "skip-learn"
        yield line(event, outcome, arms, embeddings=embeddings, skip_learn=skip_learn)


def line(
    decided: ev.Decided,
    outcome: Outcome,
    arms: Catalogue,
    *,
    embeddings: bool = True,
    skip_learn: bool = False,
) -> bytes:
    """One decision. VW knows the fields up to VWState and lets the others ride along.

    Actions stand in the order of the arms, numbered from 1; `a` and `p` begin with the drawn one.
    Only what a client reported is an observation in `o`: a default reward has none.
    """
    drawn = decided.drawn
    order = [drawn, *(i for i in range(len(decided.arms)) if i != drawn)]
    reward = outcome.reward or 0.0
    context: dict[str, Any] = {
        "query": {"tokens": decided.tokens, "willingness_to_pay": decided.willingness_to_pay}
    }
    if embeddings:
        context["embedding"] = numbers(decided.embedding)
    context["_multi"] = [_action(id, decided.tokens, arms) for id in decided.arms]
    fields: dict[str, Any] = {
        "_label_cost": 0.0 - reward,
        "_label_probability": decided.propensity,
        "_label_Action": drawn + 1,
        "_labelIndex": drawn,
    }
    if skip_learn:
        fields["_skipLearn"] = True
    observed = [{"EventId": decided.id, "v": outcome.reward}] if outcome.settled else []
    fields |= {
        "o": observed,
        "Timestamp": f"{datetime.fromtimestamp(decided.ts, UTC):%Y-%m-%dT%H:%M:%S.%f}Z",
        "Version": "1",
        "EventId": decided.id,
        "a": [i + 1 for i in order],
        "c": context,
        "p": [decided.propensities[i] for i in order],
        "VWState": {"m": f"{decided.policy}/{decided.key}"},
        "arm": decided.arm,
        "tenant": decided.tenant,
        "unit": decided.unit,
        "quality": outcome.quality,
        "cost_usd": outcome.cost_usd,
        "latency_s": outcome.latency_s,
        "fallback": decided.fallback,
    }
    said = {name: value for name, value in fields.items() if value is not None and value != ""}
    return msgspec.json.encode(said) + b"\n"


def _action(id: ArmId, tokens: int, arms: Catalogue) -> dict[str, Any]:
    features: dict[str, Any] = {"id": id}
    if (spec := arms.get(id)) is not None:
        features["list_cost_usd"] = list_cost_usd(spec, tokens)
    return {"_tag": id, "arm": features}


def list_cost_usd(spec: ev.ArmSpec, tokens: int) -> float:
    """What the list price comes to, as the decision reckoned it."""
    return (
        tokens * spec.usd_per_mtok_in + spec.expected_output_tokens * spec.usd_per_mtok_out
    ) / 1e6
