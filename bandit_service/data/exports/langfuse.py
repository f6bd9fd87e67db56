"""Langfuse: traces, observations and scores, as its API returns them, or from its exports.

A generation is an answer. A score of an observation belongs to that answer; a score of a
trace belongs to its generation if it has only one.
"""

from __future__ import annotations

from collections.abc import Mapping

from bandit_service.data.exports._calls import (
    Call,
    Calls,
    Row,
    asked_in,
    first_of,
    listed,
    named,
    opened,
    seconds,
)
from bandit_service.data.rows import Repeated
from bandit_service.parsing.inputs import plain

WHOLES = ("data", "observations")


def read(row: Row, calls: Calls) -> None:
    """A page of the API, a trace with what belongs to it, an observation, or a score."""
    if "data" in row and "id" not in row:
        _each(row["data"], calls)
    elif "dataType" in row or "data_type" in row or ("value" in row and "name" in row):
        _score(row, calls)
    elif "traceId" in row or "trace_id" in row:
        _observation(row, calls)
    elif "observations" in row or "scores" in row:
        _each(row.get("observations"), calls)
        _each(row.get("scores"), calls)
    else:
        raise Repeated("a trace without its observations")


def end(calls: Calls) -> None:
    """Nothing to add: each row is complete."""


def _each(rows: object, calls: Calls) -> None:
    for each in listed(rows):
        with calls.leaving():
            read(each, calls)


def _score(row: Row, calls: Calls) -> None:
    about = first_of(row, "observationId", "observation_id") or first_of(row, "traceId", "trace_id")
    if not isinstance(about, str):
        raise Repeated("score: names no observation and no trace")
    if str(first_of(row, "dataType", "data_type") or "").upper() in ("CATEGORICAL", "TEXT"):
        raise Repeated(f"score: {row.get('name')!r:.40} is not a number")
    calls.score(about, named(row, "name"), row.get("value"))


def _observation(row: Row, calls: Calls) -> None:
    id = named(row, "id")
    if (kind := str(row.get("type") or "")).upper() != "GENERATION":
        raise Repeated(f"type: not a generation: {kind.lower()}")
    if str(row.get("level") or "").upper() == "ERROR":
        raise Repeated("level: the call failed")
    model = first_of(row, "model", "providedModelName", "provided_model_name")
    trace = first_of(row, "traceId", "trace_id")
    cost = first_of(row, "calculatedTotalCost", "totalCost", "total_cost")
    costs, usage, older = (
        found if isinstance(found := opened(first_of(row, *both)), Mapping) else {}
        for both in (("costDetails", "cost_details"), ("usageDetails", "usage_details"), ("usage",))
    )
    took = seconds(first_of(row, "startTime", "start_time"), first_of(row, "endTime", "end_time"))
    calls.call(
        Call(
            ids=(id,),
            whole=str(trace or ""),
            text=asked_in(row.get("input"), "input"),
            model=named({"model": model}, "model"),
            # of one that it has no prices of it says 0, or nothing
            cost_usd=cost if plain(cost) else first_of(costs, "total"),
            in_tok=_tokens(first_of(usage, "input") or first_of(older, "input", "promptTokens")),
            out_tok=_tokens(
                first_of(usage, "output") or first_of(older, "output", "completionTokens")
            ),
            latency_s=took,
            task=first_of(row, "name"),
        )
    )


def _tokens(value: object) -> object:
    return plain(value)
