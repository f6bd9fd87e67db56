"""Spans of OpenTelemetry's GenAI conventions, as OTLP in JSON: a payload a line, or one in a file.

A score is an event `gen_ai.evaluation.result`, of a span or in a log, that names the span or the
answer's id. What was asked is in `gen_ai.input.messages`, of the span or of an event of it, and in
older instrumentations in `gen_ai.prompt`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from bandit_service.data.exports._calls import Call, Calls, Row, asked_in, first_of, listed, named
from bandit_service.data.rows import Malformed, Repeated
from bandit_service.parsing.inputs import plain

WHOLES = ("resourceSpans", "resourceLogs")
_CHATS = ("chat", "text_completion", "generate_content")
_EVALUATION = "gen_ai.evaluation.result"
_FAILED = (2, "STATUS_CODE_ERROR")


def read(row: Row, calls: Calls) -> None:
    """One payload of spans, or of log records."""
    if not any(name in row for name in WHOLES):
        raise Malformed(f"must be OTLP in JSON, with {' or '.join(WHOLES)}")
    for span in _inner(row, "resourceSpans", "scopeSpans", "spans"):
        with calls.leaving():
            _span(span, calls)
    for record in _inner(row, "resourceLogs", "scopeLogs", "logRecords"):
        with calls.leaving():
            said = _attributes(record)
            event = record.get("eventName") or said.get("event.name")
            _event(str(event), said, str(record.get("spanId") or ""), calls)


def end(calls: Calls) -> None:
    """The spans with their requests."""
    for id, part in calls.parts():
        with calls.leaving():
            if "span" in part:
                calls.call(_call(id, part))


def _span(span: Row, calls: Calls) -> None:
    id, said = named(span, "spanId"), _attributes(span)
    for event in listed(span.get("events")):
        with calls.leaving():
            _event(str(event.get("name")), _attributes(event), id, calls)
    if "gen_ai.operation.name" not in said and "gen_ai.request.model" not in said:
        raise Repeated("span: not a call of a model")
    kind = said.get("gen_ai.operation.name", "chat")
    if kind not in _CHATS:
        raise Repeated(f"gen_ai.operation.name: not a chat: {kind!r:.40}")
    status = span.get("status")
    if isinstance(status, Mapping) and status.get("code") in _FAILED:
        raise Repeated("status: the call failed")
    calls.part(id).update(span=dict(span), said=said)


def _event(name: str, said: Row, span: str, calls: Calls) -> None:
    if name == _EVALUATION:
        metric = named(said, "gen_ai.evaluation.name")
        if (value := said.get("gen_ai.evaluation.score.value")) is None:
            raise Repeated(f"{_EVALUATION}: {metric!r:.40} has a label but no number")
        about = {span, str(said.get("gen_ai.response.id") or "")} - {""}
        if not about:
            raise Malformed(f"{_EVALUATION}: must have a spanId or gen_ai.response.id")
        for id in about:
            calls.score(id, metric, value)
    elif span and (asked := first_of(said, "gen_ai.input.messages", "gen_ai.prompt")):
        calls.part(span)["asked"] = asked


def _call(id: str, part: Row) -> Call:
    span, said = part["span"], part["said"]
    asked = first_of(said, "gen_ai.input.messages", "gen_ai.prompt") or part.get("asked")
    if asked is None:
        raise Malformed(
            "gen_ai.input.messages: missing; most instrumentations leave it out unless configured"
        )
    answer = said.get("gen_ai.response.id")
    times = [plain(span.get(name)) for name in ("startTimeUnixNano", "endTimeUnixNano")]
    known = all(isinstance(each, int | float) for each in times)
    return Call(
        ids=(id, *([answer] if isinstance(answer, str) else [])),
        whole=str(span.get("traceId") or ""),
        text=asked_in(asked, "gen_ai.input.messages"),
        model=named(
            {"model": first_of(said, "gen_ai.request.model", "gen_ai.response.model")}, "model"
        ),
        cost_usd=first_of(said, "gen_ai.usage.cost"),
        in_tok=first_of(said, "gen_ai.usage.input_tokens", "gen_ai.usage.prompt_tokens"),
        out_tok=first_of(said, "gen_ai.usage.output_tokens", "gen_ai.usage.completion_tokens"),
        latency_s=(times[1] - times[0]) / 1e9 if known and times[1] >= times[0] else None,
    )


# --- OTLP's JSON ----------------------------------------------------------------------------


def _inner(row: Row, *names: str) -> Iterator[Row]:
    """The objects at the end of this path of keys."""
    name, *more = names
    for each in listed(row.get(name)):
        if more:
            yield from _inner(each, *more)
        else:
            yield each


def _attributes(row: Row) -> dict[str, Any]:
    return {
        str(each.get("key")): _value(each.get("value")) for each in listed(row.get("attributes"))
    }


def _value(said: Any) -> Any:
    """An AnyValue; 64-bit numbers come as text."""
    if not isinstance(said, Mapping):
        return said
    match next(iter(said.items()), ("", None)):
        case "arrayValue", Mapping() as found:
            return [_value(each) for each in listed(found.get("values"))]
        case "kvlistValue", Mapping() as found:
            return {
                str(one.get("key")): _value(one.get("value")) for one in listed(found.get("values"))
            }
        case "intValue", value:
            return plain(value)
        case _, value:
            return value
