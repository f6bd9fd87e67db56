"""How much a request is: what it may cost at most, and what it has probably cost. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from bandit_service.core.events import ArmSpec
from bandit_service.embedding import estimate_tokens
from bandit_service.gateway.money import hour_price
from bandit_service.gateway.usage import number, plain

IMAGE_TOKENS = 1500
"""What an image counts as: its bytes say nothing of its tokens, and providers bill 85 to about
1,600 for one."""
_LONG = 4
_MOST = 10**9
_DEPTH = 3
_BESIDE = ("tools", "functions", "response_format")
_ANSWERS = frozenset(
    {
        "n", "bestof", "numcompletions", "numreturnsequences", "numgenerations", "candidatecount",
        "numcandidates", "numsamples", "beamwidth", "numbeams",
    }
)  # fmt: skip
_LIMITS = frozenset({"maxtokens", "maxcompletiontokens"})
"""What OpenAI's language has. That a provider heeds any other name is not certain: one raises what
is reserved, and never lowers it."""
_NO_LIMITS = ("messages", "prompt", "metadata", "logit_bias", "prediction", "stream_options")
_OF_THE_PROMPT = ("input", "prompt", "query", "image", "truncate", "context", "tool", "log")


@dataclass(frozen=True, slots=True)
class Size:
    """prompt: tokens. limit: tokens of an answer, None where the client sets none. answers: how
    many; 0 for what is embedded. least: what an answer may have by limits of other names. thinking:
    tokens within an answer, beside: those on top of it. hour: the prompt is to be kept for an hour.
    """

    prompt: int
    limit: int | None
    answers: int
    least: int = 0
    thinking: int = 0
    beside: int = 0
    hour: bool = False


def size_of(body: Mapping[str, Any]) -> Size:
    """The size of a request.

    It has as many answers as it asks for: `n`, `best_of` and their like, and one for each of
    several prompts. Of several limits the largest is meant, since which of them a provider heeds is
    not known.

    >>> size = size_of({"prompt": ["ten chars.", "and more"], "max_tokens": 10})
    >>> size.prompt, size.limit, size.answers
    (7, 10, 2)
    """
    if "input" in body:
        return Size(_tokens(body["input"]), None, 0)
    prompt = sum(_tokens(body[name]) for name in _BESIDE if body.get(name))
    limits = _Limits()
    limits.look(body)
    answers = limits.answers
    if "messages" in body:
        prompt += _of_messages(body["messages"])
    else:
        text = body.get("prompt", "")
        prompt += _tokens(text)
        if isinstance(text, list):  # numbers are the tokens of one prompt
            answers *= max(1, sum(not isinstance(each, int) for each in text))
    beside = limits.beside
    if body.get("prediction"):  # what of it is not taken over is billed too
        beside += _tokens(body["prediction"])
    limit = max(limits.limit, limits.least) if limits.limit else None
    hour = _kept_an_hour(body)
    return Size(prompt, limit, answers, limits.least, limits.thinking, beside, hour)


@dataclass(slots=True)
class _Limits:
    """The largest limit of each kind in a request, wherever it stands; as in `Size`."""

    limit: int = 0
    answers: int = 1
    least: int = 0
    thinking: int = 0
    beside: int = 0

    def look(self, fields: Mapping[str, Any], within: bool = False, depth: int = _DEPTH) -> None:
        """Look at the fields of an object of the request; within: it is about thinking."""
        for key, value in fields.items():
            if key in _BESIDE or key in _NO_LIMITS:
                continue
            name = plain(key)
            thinks = "think" in name or "reason" in name
            if isinstance(value, Mapping):
                if depth:
                    self.look(value, within or thinks, depth - 1)
            elif found := _count(value):
                self._note(name, found, within, thinks, depth == _DEPTH)

    def _note(self, name: str, found: int, within: bool, thinks: bool, top: bool) -> None:
        if name in _ANSWERS:
            self.answers = max(self.answers, found)
        elif not _limits(name):
            return
        elif within:
            self.thinking = max(self.thinking, found)
        elif thinks:
            self.beside = max(self.beside, found)
        elif top and name in _LIMITS:
            self.limit = max(self.limit, found)
        else:
            self.least = max(self.least, found)


def _limits(name: str) -> bool:
    """Whether a field of this name bounds the length of an answer."""
    if any(each in name for each in _OF_THE_PROMPT):
        return False
    bounds = any(each in name for each in ("max", "min", "limit", "budget", "num"))
    length = any(each in name for each in ("token", "output", "budget", "len"))
    return (bounds and length) or "predict" in name


def most_usd(spec: ArmSpec, size: Size, limit: int | None = None) -> float:
    """What the arm may cost at most: the prompt, and as many tokens as may be answered.

    Where the client sets no limit, that is the arm's `max_output_tokens`, else `limit`, which is
    sent in its place, else all that its window has left.
    """
    prices = [spec.usd_per_mtok_in, spec.usd_per_mtok_cache_write or 0.0]
    dearest = max(*prices, hour_price(spec) if size.hour else 0.0)
    window = max(1, spec.context_window - size.prompt)
    tokens = max(size.limit or spec.max_output_tokens or limit or window, size.least)
    if size.thinking >= tokens:  # so it is no part of that
        tokens += size.thinking
    tokens += size.beside
    return (size.prompt * dearest + size.answers * tokens * spec.usd_per_mtok_out) / 1e6


def usual_usd(spec: ArmSpec, size: Size) -> float:
    """What a call costs at most that is answered at most four times as long as usual."""
    tokens = _LONG * spec.expected_output_tokens
    return most_usd(spec, replace(size, limit=max(tokens, 1)))


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


def _kept_an_hour(body: Mapping[str, Any]) -> bool:
    """Whether some part of the prompt is to be kept for an hour."""
    parts: list[Any] = [body]
    for name in ("messages", "tools"):
        for each in body[name] if isinstance(body.get(name), list) else ():
            content = each.get("content") if isinstance(each, dict) else None
            parts += [each, *(content if isinstance(content, list) else ())]
    kept = (part.get("cache_control") for part in parts if isinstance(part, dict))
    return any(isinstance(each, dict) and each.get("ttl") == "1h" for each in kept)


def _is_image(part: object) -> bool:
    return isinstance(part, dict) and part.get("type") == "image_url"


def _tokens(value: object) -> int:
    """As many as its text has by its length; of what is given as tokens, at least their number."""
    return max(_numbers(value), estimate_tokens(len(msgspec.json.encode(value))))


def _numbers(value: object) -> int:
    if not isinstance(value, list):
        return 0
    return sum(1 if isinstance(each, int) else _numbers(each) for each in value)


def _count(value: object) -> int:
    """A number as it is, as 8000.0 or as "8000", which some servers take too; 0 for none."""
    if isinstance(value, str):
        value = int(value) if value.isdecimal() and len(value) < 20 else None
    found = number(value)
    return min(math.ceil(found), _MOST) if found is not None and found > 0 else 0
