"""LiteLLM's spend logs: the table `LiteLLM_SpendLogs`, or the answer of `/spend/logs`.

The proxy stores requests only with `store_prompts_in_spend_logs`. It knows no scores, so these
come in a table of their own, by `request_id` or by the id of the answer.
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
from bandit_service.data.rows import Malformed, Repeated
from bandit_service.parsing.inputs import is_truth, plain

WHOLES = ("data",)
_CHATS = ("completion", "responses", "anthropic_messages", "generate_content")


def read(row: Row, calls: Calls) -> None:
    """One call that the proxy paid for."""
    if "data" in row and "request_id" not in row:
        for each in listed(row["data"]):
            with calls.leaving():
                read(each, calls)
        return
    id = named(row, "request_id")
    kind = str(row.get("call_type") or "completion")
    if not any(name in kind for name in _CHATS):
        raise Repeated(f"call_type: not a chat: {kind}")
    if row.get("status") == "failure":
        raise Repeated("status: the call failed")
    if is_truth(row.get("cache_hit")) and plain(row["cache_hit"]):
        raise Repeated("cache_hit: no model answered")
    asked = opened(row.get("messages"))
    if not asked:
        asked = opened(row.get("proxy_server_request"))
    if not asked:
        raise Malformed("messages: missing; LiteLLM keeps them with store_prompts_in_spend_logs")
    answer = opened(row.get("response"))
    theirs = answer.get("id") if isinstance(answer, Mapping) else None
    calls.call(
        Call(
            ids=(id, *([theirs] if isinstance(theirs, str) else [])),
            text=asked_in(asked, "messages"),
            model=named(row, "model"),
            cost_usd=row.get("spend"),
            in_tok=row.get("prompt_tokens"),
            out_tok=row.get("completion_tokens"),
            latency_s=seconds(row.get("startTime"), first_of(row, "endTime")),
        )
    )


def end(calls: Calls) -> None:
    """Nothing to add: each row is complete."""
