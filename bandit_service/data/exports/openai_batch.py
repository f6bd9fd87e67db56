"""OpenAI's batch files: requests and answers, joined by `custom_id`.

The same requests may have been sent to several models: an answer is of the request whose model its
own begins with. Scores come in a table of their own, by the id of the answer (`chatcmpl-…`), or by
`custom_id` where one model was asked.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bandit_service.data.exports._calls import Call, Calls, Row, asked_in, first_of, named, opened
from bandit_service.data.rows import Malformed, Repeated

WHOLES = ("custom_id",)


def read(row: Row, calls: Calls) -> None:
    """A request, or an answer."""
    part = calls.part(named(row, "custom_id"))
    if isinstance(body := opened(row.get("body")), Mapping):
        if not any(name in body for name in ("messages", "input", "prompt")):
            raise Malformed("body: must have messages, input or prompt")
        part.setdefault("asked", {})[named(body, "model")] = dict(body)
        return
    response = opened(row.get("response"))
    body = opened(response.get("body")) if isinstance(response, Mapping) else None
    if row.get("error") or not isinstance(body, Mapping) or "usage" not in body:
        raise Repeated("response: the call failed")
    part.setdefault("answers", []).append((dict(body), response.get("request_id")))


def end(calls: Calls) -> None:
    """The answers with their requests."""
    for id, part in calls.parts():
        for answer, request in part.get("answers", ()):
            with calls.leaving():
                calls.call(_call(id, part.get("asked", {}), answer, request))


def _call(id: str, asked: Mapping[str, Any], answer: Row, request: object) -> Call:
    if "data" in answer and "choices" not in answer:
        raise Repeated("response: not a chat completion")
    theirs = named(answer, "model")
    model = max((one for one in asked if theirs.startswith(one)), key=len, default="")
    if not model and len(asked) == 1:
        model = next(iter(asked))
    if not model:
        raise Malformed(f"custom_id: no request with this id names the model {theirs!r:.60}")
    usage = answer["usage"] if isinstance(answer["usage"], Mapping) else {}
    ids = [answer.get("id"), request, id if len(asked) == 1 else None]
    return Call(
        ids=tuple(each for each in ids if isinstance(each, str) and each) or (id,),
        text=asked_in(asked[model], "body"),
        model=model,
        in_tok=first_of(usage, "prompt_tokens", "input_tokens"),
        out_tok=first_of(usage, "completion_tokens", "output_tokens"),
    )
