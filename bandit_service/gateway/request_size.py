"""The size of a request: tokens of its prompt, and the limits of its answer. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import msgspec

from bandit_service.core.arm_request import NOTHING, ArmRequest
from bandit_service.embedding import estimate_tokens
from bandit_service.gateway.usage import number, plain

IMAGE_TOKENS = 1500
"""The tokens that an image counts as.

Its bytes do not show them, and providers bill 85 to about 1,600.
"""
_MAX_COUNT = 10**9
_DEPTH = 3
_SHORT = 64
_OWN_PROMPT = ("system", "instructions", "messages", "input", "tools")
_DECLARATIONS = ("tools", "functions", "response_format")
_ANSWERS = frozenset(
    {
        "n",
        "bestof",
        "numcompletions",
        "numreturnsequences",
        "numgenerations",
        "candidatecount",
        "numcandidates",
        "numsamples",
        "beamwidth",
        "numbeams",
    }
)
_LIMITS = frozenset({"maxtokens", "maxcompletiontokens"})
"""OpenAI's names of limits.

A provider may ignore any other name, so such a limit can raise the reserved amount but never lower
it.
"""
_WHOLE = re.compile(r"-?\d{1,19}", re.ASCII)
_NO_LIMITS = ("messages", "prompt", "metadata", "logit_bias", "prediction", "stream_options")
_OF_THE_PROMPT = ("input", "prompt", "query", "image", "truncate", "context", "tool", "log")


class Size(msgspec.Struct, frozen=True, gc=False):
    """prompt: tokens. limit: tokens of an answer, None if the client sets none. answers: how many;
    0 for an embedding. other_limit: tokens that limits of other names allow an answer. thinking:
    tokens of thinking within an answer; extra: tokens on top of it. hour: the provider is to keep
    the prompt for an hour. parts: of the body, as `wire.parts_of`.
    """

    prompt: int
    limit: int | None
    answers: int
    other_limit: int = 0
    thinking: int = 0
    extra: int = 0
    hour: bool = False
    parts: int = 0

    def configured(self, request: ArmRequest) -> Size:
        """The same request as an arm asks it.

        >>> size = Size(10, None, 1).configured(ArmRequest(output_limit=50, thinking_budget=2000))
        >>> size.prompt, size.limit, size.answers, size.thinking
        (10, 50, 1, 2000)
        """
        if request == NOTHING or not self.answers:
            return self
        limits = _Limits()
        limits.look(request.extra_body)
        limit, most, budget = self.limit, request.output_limit, request.thinking_budget
        if most is not None:
            limit = most if limit is None else min(limit, most)
        return msgspec.structs.replace(
            self,
            limit=limit,
            answers=self.answers * limits.answers,
            other_limit=max(self.other_limit, limits.other_limit),
            thinking=max(self.thinking if budget is None else budget, limits.thinking),
            extra=self.extra + limits.extra,
        )


def size_of(
    body: Mapping[str, Any],
    own: Mapping[str, Any] | None = None,
    lost: bool = False,
    parts: int = 0,
) -> Size:
    """The size of a request. own: the same as its client said it in another dialect. lost: whether
    it says more there, which a provider of that dialect is sent and bills. parts: as in `Size`.

    It has as many answers as it asks for: `n`, `best_of` and their like, and one for each of
    several prompts. Of several limits the largest counts, since it is unknown which of them a
    provider uses.

    >>> size = size_of({"prompt": ["ten chars.", "and more"], "max_tokens": 10})
    >>> size.prompt, size.limit, size.answers
    (7, 10, 2)
    """
    if "input" in body:
        return Size(_tokens(body["input"]), None, 0, parts=parts)
    prompt = sum(_tokens(body[name]) for name in _DECLARATIONS if body.get(name))
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
    if own and lost:
        prompt = max(prompt, sum(_of_own(own[name]) for name in _OWN_PROMPT if own.get(name)))
    extra = limits.extra
    if body.get("prediction"):  # the provider also bills tokens that the answer does not contain
        extra += _tokens(body["prediction"])
    bounded = limits.limit and not limits.boundless
    limit = max(limits.limit, limits.other_limit) if bounded else None
    hour = _kept_an_hour(own or body)
    return Size(prompt, limit, answers, limits.other_limit, limits.thinking, extra, hour, parts)


@dataclass(slots=True)
class _Limits:
    """The largest limit of each kind in a request, wherever it stands; as in `Size`.

    boundless: one of them is negative, which some servers take for no limit at all.
    """

    boundless: bool = False
    limit: int = 0
    answers: int = 1
    other_limit: int = 0
    thinking: int = 0
    extra: int = 0

    def look(self, fields: Mapping[str, Any], within: bool = False, depth: int = _DEPTH) -> None:
        """Look at the fields of an object of the request; within: it is about thinking."""
        for key, value in fields.items():
            if key in _DECLARATIONS or key in _NO_LIMITS:
                continue
            name = plain(key)
            if isinstance(value, dict):
                if depth:
                    self.look(value, within or _thinks(name), depth - 1)
            elif isinstance(value, bool) or not (_limits(name) or name in _ANSWERS):
                continue
            elif count := _count(value):
                self._note(name, count, within, _thinks(name), depth == _DEPTH)
            elif "min" not in name and _limits(name):
                self.boundless |= (_given(value) or 0) < 0

    def _note(self, name: str, count: int, within: bool, thinks: bool, top: bool) -> None:
        if name in _ANSWERS:
            self.answers = max(self.answers, count)
        elif within:
            self.thinking = max(self.thinking, count)
        elif thinks:
            self.extra = max(self.extra, count)
        elif top and name in _LIMITS:
            self.limit = max(self.limit, count)
        else:
            self.other_limit = max(self.other_limit, count)


def _thinks(name: str) -> bool:
    """Whether a field of this name is about thinking."""
    return "think" in name or "reason" in name


def _limits(name: str) -> bool:
    """Whether a field of this name bounds the length of an answer."""
    return _bounds(name) if len(name) <= _SHORT else _read_bounds(name)


def _read_bounds(name: str) -> bool:
    if any(each in name for each in _OF_THE_PROMPT):
        return False
    bounds = any(each in name for each in ("max", "min", "limit", "budget", "num"))
    length = any(each in name for each in ("token", "output", "budget", "len"))
    return (bounds and length) or "predict" in name


_bounds = lru_cache(maxsize=2048)(_read_bounds)


def _of_messages(messages: object) -> int:
    """The tokens of a conversation, of which images count by their number."""
    tokens = 0
    for each in messages if isinstance(messages, list) else ():
        parts = each.get("content") if isinstance(each, dict) else None
        images = [part for part in parts if _is_image(part)] if isinstance(parts, list) else []
        if images:
            assert isinstance(each, dict)
            assert isinstance(parts, list)
            each = each | {"content": [part for part in parts if not _is_image(part)]}
        tokens += _tokens(each) + IMAGE_TOKENS * len(images)
    return tokens


def _of_own(value: object) -> int:
    """The tokens of what another dialect says, of which data in base64 counts as an image."""
    images, waiting = 0, [value]
    length = 0
    while waiting:
        each = waiting.pop()
        if isinstance(each, dict):
            encoded = each.get("type") == "base64" or "file_data" in each
            url = each.get("image_url")
            if encoded or (isinstance(url, str) and url.startswith("data:")):
                images += 1
            else:
                length += sum(map(len, each))
                waiting += each.values()
        elif isinstance(each, list):
            waiting += each
        else:
            length += len(each) if isinstance(each, str) else 4
    return estimate_tokens(length) + IMAGE_TOKENS * images


def _kept_an_hour(body: Mapping[str, Any]) -> bool:
    """Whether some part of the prompt is to be kept for an hour."""
    if _for_an_hour(body):
        return True
    for name in ("messages", "system", "tools"):
        for each in body[name] if isinstance(body.get(name), list) else ():
            if not isinstance(each, dict):
                continue
            content = each.get("content")
            if _for_an_hour(each) or (
                isinstance(content, list) and any(map(_for_an_hour, content))
            ):
                return True
    return False


def _for_an_hour(part: object) -> bool:
    kept = part.get("cache_control") if isinstance(part, dict) else None
    return isinstance(kept, dict) and kept.get("ttl") == "1h"


def _is_image(part: object) -> bool:
    return isinstance(part, dict) and part.get("type") == "image_url"


def _tokens(value: object) -> int:
    """The tokens of its text, by its length; at least the number of tokens that it lists."""
    return max(_numbers(value), estimate_tokens(len(msgspec.json.encode(value))))


def _numbers(value: object) -> int:
    if not isinstance(value, list):
        return 0
    return sum(1 if isinstance(each, int) else _numbers(each) for each in value)


def _count(value: object) -> int:
    """A number above 0; 0 for none."""
    exact = _given(value)
    return min(math.ceil(exact), _MAX_COUNT) if exact is not None and exact > 0 else 0


def _given(value: object) -> int | float | None:
    """A number as it is, as 8000.0 or as "8000", which some servers take too; None for none."""
    if isinstance(value, str):
        value = int(value) if _WHOLE.fullmatch(value) else None
    return number(value)
