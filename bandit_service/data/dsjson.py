"""Vowpal Wabbit's DSJSON of `--cb_explore_adf`, read and written: one decision a line."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from bandit_service.core import events as ev
from bandit_service.data.jsonl import numbers
from bandit_service.data.log_source import Unreadable
from bandit_service.data.logged import (
    LARGEST,
    BadLine,
    Logged,
    distribution,
    features,
    hashed,
    moment,
    number,
    propensity,
    signal,
    text_in,
    unit,
)
from bandit_service.data.scan import Outcome, Scan
from bandit_service.parsing.inputs import json_of, plain, worded
from policies import ArmId, Vector

UNREWARDED = ("skip", "zero", "skip-learn")
Catalogue = dict[ArmId, ev.ArmSpec]

_NEAR = 1e-4


def read(path: Path) -> Iterator[tuple[int, Logged]]:
    """Line numbers and decisions; Unreadable names the file, the line and the field."""
    at = [0]
    with text_in(path, at) as file:
        for at[0], text in enumerate(file, 1):
            if not text.strip():
                continue
            try:
                yield at[0], read_line(text, f"line-{at[0]}")
            except BadLine as error:
                raise Unreadable(f"{path}, line {at[0]}: {error}") from None


def read_line(text: bytes, unnamed: str = "") -> Logged:
    """One decision; BadLine says what is wrong with it. unnamed: its id where it has no EventId.

    It accepts everything that VW's own reader accepts: `_a` and `_p` for `a` and `p`, the label as
    one object `_label` or as fields `_label_*` in any case, and lines without EventId or Timestamp.

    The reward is −`_label_cost`, as VW learns it, even if `o` is empty; with `_skipLearn` there is
    no reward.
    """
    try:
        row: Any = json_of(text)
    except ValueError as error:
        raise BadLine(str(error)) from None
    if not isinstance(row, dict):
        raise BadLine("must be an object")
    row = _as_documented(row)
    context = row.get("c")
    if not isinstance(context, dict) or not isinstance(context.get("_multi"), list):
        raise BadLine("c._multi: must be a list of actions; only single decisions are read")
    if number("pdrop", _or(row.get("pdrop"), 0.0), 0.0, 1.0) > 0.0:
        raise BadLine("pdrop: a log with dropped events cannot be read")
    arms = tuple(_name(i, action) for i, action in enumerate(context["_multi"]))
    if len(set(arms)) != len(arms):
        raise BadLine("c._multi: two actions have the same _tag or id")
    order = _order(row.get("a"), len(arms))
    given = row.get("p")
    if not isinstance(given, list) or len(given) != len(arms):
        raise BadLine(f"p: must be a list of {len(arms)} probabilities, as many as actions")
    shares = distribution("p", [number("p", each, 0.0, 1.0) for each in given])
    drawn = order[0]
    chosen = propensity("_label_probability", _or(row.get("_label_probability"), shares[0]))
    if abs(chosen - shares[0]) > _NEAR:
        raise BadLine(f"_label_probability: is {chosen:g}, but p begins with {shares[0]:g}")
    if _or(row.get("_labelIndex"), drawn) != drawn:
        raise BadLine(f"_labelIndex: is {row['_labelIndex']!r}, but a begins with {drawn + 1}")
    propensity("p", shares[0])
    by_arm = [0.0] * len(arms)
    for i, p in zip(order, shares, strict=True):
        by_arm[i] = p
    id = _or(worded(row.get("EventId")), unnamed)
    if not isinstance(id, str) or not id:
        raise BadLine("EventId: must be a text")
    given = context.get("query")
    query: dict[str, Any] = given if isinstance(given, dict) else {}
    told = {
        name: signal(name, row[name])
        for name in ("quality", "cost_usd", "latency_s")
        if row.get(name) is not None
    }
    if not row.get("_skipLearn"):
        told["reward"] = 0.0 - number("_label_cost", row.get("_label_cost"), -1.0, 1.0)
    return Logged(
        id=id,
        ts=moment("Timestamp", _or(row.get("Timestamp"), 0.0)),
        arms=arms,
        propensities=tuple(by_arm),
        drawn=drawn,
        vector=_vector(context),
        tokens=int(number("c.query.tokens", _or(query.get("tokens"), 0), 0, 1e9)),
        willingness_to_pay=number(
            "c.query.willingness_to_pay", _or(query.get("willingness_to_pay"), 0.1), 1e-9, 1e6
        ),
        tenant=str(_or(row.get("tenant"), "")),
        unit=str(_or(row.get("unit"), "")),
        policy=_policy(row.get("VWState")),
        signals=told,
    )


_LABELS = ("cost", "probability", "action")


def _as_documented(row: dict[str, Any]) -> dict[str, Any]:
    """The row with the documented names in place of others that VW reads as well."""
    named = dict(row)
    label = row.get("_label")
    parts = (
        {f"_label_{name}": value for name, value in label.items()}
        if isinstance(label, dict)
        else {}
    )
    for name, value in (parts | row).items():
        small = name.lower().removeprefix("_label_")
        if name.lower().startswith("_label_") and small in _LABELS:
            named.setdefault("_label_Action" if small == "action" else f"_label_{small}", value)
    for name in ("a", "p"):
        if named.get(name) is None and f"_{name}" in row:
            named[name] = row[f"_{name}"]
    return named


def _or(value: Any, default: Any) -> Any:
    """null is absent."""
    return default if value is None else value


def _name(i: int, action: Any) -> str:
    """The action's `_tag`, else an `id` in it or in one of its namespaces, else its number."""
    if isinstance(action, dict):
        spaces = [action, *(each for each in action.values() if isinstance(each, dict))]
        for key in ("_tag", "id"):
            for space in spaces:
                if isinstance(space.get(key), str) and space[key]:
                    return str(space[key])
    return f"action-{i + 1}"


def _order(given: Any, k: int) -> list[int]:
    """The actions from 0, the drawn one first."""
    if not isinstance(given, list) or not k:
        raise BadLine(f"a: must be a list of the {k} actions, numbered from 1")
    order = [int(each) - 1 for each in map(plain, given) if _is_whole(each)]
    if sorted(order) != list(range(k)):
        raise BadLine(f"a: must hold each number from 1 to {k} once, got {given!r:.80}")
    return order


def _is_whole(value: Any) -> bool:
    return isinstance(value, int | float) and value % 1 == 0


def _vector(context: dict[str, Any]) -> Vector:
    """`embedding` where it is one, else every shared feature hashed; actions' are not used."""
    given = context.get("embedding")
    if isinstance(given, list) and len(given) > 1:
        return unit(np.array([number("c.embedding", each, -LARGEST, LARGEST) for each in given]))
    shared = {name: value for name, value in context.items() if name != "_multi"}
    return hashed(features("c", shared))


def _policy(state: Any) -> str:
    model = state.get("m") if isinstance(state, dict) else None
    return model if isinstance(model, str) and model else "imported"


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
    """One decision. VW knows the fields up to VWState and ignores the others.

    Actions are in the order of the arms, numbered from 1; `a` and `p` begin with the drawn one.
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
    """The cost by list price, as the decision estimated it."""
    return (
        tokens * spec.usd_per_mtok_in + spec.expected_output_tokens * spec.usd_per_mtok_out
    ) / 1e6
