"""How much a request is: what it may cost at most, and what it has probably cost. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from bandit_service.core.events import ArmSpec
from bandit_service.embedding import estimate_tokens

IMAGE_TOKENS = 1500
"""What an image counts as: its bytes say nothing of its tokens, and providers bill 85 to about
1,600 for one."""
_LONG = 4
_MOST = 10**9
_BESIDE = ("tools", "functions", "response_format")


@dataclass(frozen=True, slots=True)
class Size:
    """prompt: tokens. limit: tokens of an answer, None where the client sets none. answers: how
    many; 0 for what is embedded."""

    prompt: int
    limit: int | None
    answers: int


def size_of(body: Mapping[str, Any]) -> Size:
    """The size of a request.

    It has as many answers as it asks for: `n`, `best_of`, and one for each of several prompts.

    >>> size_of({"prompt": ["ten chars.", "and more"], "max_tokens": 10})
    Size(prompt=7, limit=10, answers=2)
    """
    if "input" in body:
        return Size(_tokens(body["input"]), None, 0)
    prompt = sum(_tokens(body[name]) for name in _BESIDE if body.get(name))
    answers = max(_count(body, "n"), _count(body, "best_of"), 1)
    if "messages" in body:
        prompt += _of_messages(body["messages"])
    else:
        text = body.get("prompt", "")
        prompt += _tokens(text)
        if isinstance(text, list):  # numbers are the tokens of one prompt
            answers *= max(1, sum(not isinstance(each, int) for each in text))
    named = "max_completion_tokens" if "max_completion_tokens" in body else "max_tokens"
    return Size(prompt, _count(body, named) or None, answers)


def most_usd(spec: ArmSpec, size: Size) -> float:
    """What the arm may cost at most: the prompt, and as many tokens as may be answered.

    Where the client sets no limit, four times what the arm usually answers.
    """
    write = spec.usd_per_mtok_cache_write
    dearest = max(spec.usd_per_mtok_in, spec.usd_per_mtok_in if write is None else write)
    limit = _LONG * spec.expected_output_tokens if size.limit is None else size.limit
    return (size.prompt * dearest + size.answers * limit * spec.usd_per_mtok_out) / 1e6


def likely_usd(spec: ArmSpec, size: Size, said: int | None = None) -> float:
    """What a call has probably cost of which no usage came: the prompt and what was answered.

    said: bytes of the answer as far as it came; None where none of it was seen, which counts as
    much as the arm usually answers.
    """
    if said is None:
        usual = spec.expected_output_tokens
        tokens = size.answers * (usual if size.limit is None else min(usual, size.limit))
    else:
        tokens = estimate_tokens(said)
    return (size.prompt * spec.usd_per_mtok_in + tokens * spec.usd_per_mtok_out) / 1e6


def said_in(choices: object) -> int:
    """How many bytes the choices of an answer, or of one event of a stream, say: text, reasoning,
    and calls of tools.

    >>> said_in([{"delta": {"role": "assistant", "content": "hello"}}, {"text": "hi"}])
    7
    """
    found = 0
    for choice in choices if isinstance(choices, list) else ():
        if not isinstance(choice, dict):
            continue
        found += _text(choice.get("text"))
        told = choice.get("delta") or choice.get("message")
        if isinstance(told, dict):
            found += sum(_text(value) for name, value in told.items() if name != "role")
            calls = told.get("tool_calls")
            found += sum(map(_called, calls)) if isinstance(calls, list) else 0
    return found


def _called(call: object) -> int:
    function = call.get("function") if isinstance(call, dict) else None
    return sum(map(_text, function.values())) if isinstance(function, dict) else 0


def _text(value: object) -> int:
    if not isinstance(value, str):
        return 0
    return len(value) if value.isascii() else len(value.encode(errors="replace"))


def _of_messages(messages: object) -> int:
    """The tokens of a conversation, of which images count by their number."""
    found = 0
    for each in messages if isinstance(messages, list) else ():
        parts = each.get("content") if isinstance(each, dict) else None
        images = [part for part in parts if _is_image(part)] if isinstance(parts, list) else []
        if images:
            assert isinstance(each, dict)
            assert isinstance(parts, list)
            each = each | {"content": [part for part in parts if not _is_image(part)]}
        found += _tokens(each) + IMAGE_TOKENS * len(images)
    return found


def _is_image(part: object) -> bool:
    return isinstance(part, dict) and part.get("type") == "image_url"


def _tokens(value: object) -> int:
    return estimate_tokens(len(msgspec.json.encode(value)))


def _count(value: Mapping[str, Any], name: str) -> int:
    found = value.get(name)
    return min(found, _MOST) if isinstance(found, int) and found >= 0 else 0
