"""Reads the tokens of a usage, in every provider's form. Pure.

There is one reader, which goes by the names of fields and not by the provider; docs/gateway.md has
its rules. A count is a whole number from 0, also one that is written 1000.0 or "1000"; null is
absent.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import msgspec

_MAX_COUNT = 10**12
"""More tokens than any answer has; a larger number is ignored."""
_DEPTH = 4
_SHORT = 64
"""Names up to this length recur, so their results are cached."""
_PROMPT = frozenset(
    {
        "prompttokens",
        "inputtokens",
        "prompttokencount",
        "inputtokencount",
        "promptevalcount",
        "inputtexttokens",
    }
)
_ANSWER = frozenset(
    {
        "completiontokens",
        "outputtokens",
        "candidatestokencount",
        "completiontokencount",
        "outputtokencount",
        "generatedtokencount",
        "evalcount",
    }
)
_TOTAL = frozenset({"totaltokens", "totaltokencount"})
_TOOLS = "tooluseprompttokencount"
_PROMPTS, _ANSWERS, _TOTALS = "prompt", "answer", "total"
_REASONING, _CACHE, _OF_TOOLS, _OTHER = "reasoning", "cache", "tools", "other"
"""What a count counts."""
_MONEY = ("cost", "price", "usd", "saving", "discount", "percent", "ratio", "ttl", "storage")
_APART = frozenset({"cachereadinputtokens", "cachecreationinputtokens", "cachewriteinputtokens"})
"""If these appear next to `input_tokens`, it does not include them, as Anthropic and Bedrock count.
"""
_BESIDE = (
    ("cached", "written"),
    ("cached",),
    ("written",),
    ("cached", "written", "reasoning"),
    ("cached", "reasoning"),
    ("written", "reasoning"),
    ("reasoning",),
)


class Counts(msgspec.Struct, frozen=True, gc=False):
    """Tokens by what they cost: of the prompt the fresh ones, those read from a cache, those that
    are kept there for minutes and for an hour; and the answer's, its reasoning among them.
    """

    fresh: int = 0
    cached: int = 0
    kept: int = 0
    kept_hour: int = 0
    answer: int = 0

    @property
    def written(self) -> int:
        """What the cache keeps of the prompt, for whatever time."""
        return self.kept + self.kept_hour

    @property
    def prompt(self) -> int:
        """The whole prompt."""
        return self.fresh + self.cached + self.written


@dataclass(slots=True)
class _Reported:
    """The counts of a usage; of each count the largest under any of its names.

    prompted: the prompt has a count. missed: of the prompt what the cache did not have. minutes,
    hour: parts of what was written. within: a count of the cache stands among the details of
    another. apart: names that say of a cache's counts that the prompt is without them. gemini: its
    reasoning is never in the answer.
    """

    prompt: int = 0
    prompted: bool = False
    answer: int = 0
    total: int | None = None
    tools: int = 0
    cached: int = 0
    missed: int | None = None
    written: int = 0
    minutes: int = 0
    hour: int = 0
    reasoning: int = 0
    within: bool = False
    apart: bool = False
    inclusive: bool = False
    gemini: bool = False


def counts_or_zero(usage: object) -> Counts | None:
    """As `counts_of`, but zero tokens where a usage reports only `output_tokens`."""
    found = counts_of(usage)
    if (
        found is None
        and isinstance(usage, Mapping)
        and count(usage.get("output_tokens")) is not None
    ):
        return Counts()
    return found


def counts_of(usage: object) -> Counts | None:
    """The tokens that a usage reports; None if it reports none.

    >>> counts_of({"prompt_tokens": 5, "completion_tokens": 2.0, "cached_tokens": 3})
    Counts(fresh=2, cached=3, kept=0, kept_hour=0, answer=2)
    """
    if not isinstance(usage, dict):
        return None
    if (plainly := _plainly(usage)) is not None:
        return plainly
    reported = _read(usage)
    reported.written = max(reported.written, reported.minutes + reported.hour)
    if reported.missed is not None:
        reported.prompt = max(reported.prompt, reported.missed + reported.cached)
    elif not reported.prompted and reported.answer and reported.total is not None:
        reported.prompt = max(0, reported.total - reported.answer - reported.reasoning)
    reported.prompt += reported.tools
    if not (reported.prompt or reported.answer or reported.cached or reported.written):
        return None
    beside = _beside(reported)
    prompt = reported.prompt + sum(getattr(reported, each) for each in beside - {"reasoning"})
    answer = reported.answer
    if "reasoning" in beside:
        rest = None if reported.total is None else max(0, reported.total - prompt - answer)
        answer += reported.reasoning if rest is None else min(rest, reported.reasoning)
    cached = min(reported.cached, prompt)
    written = min(reported.written, prompt - cached)
    hour = min(reported.hour, written)
    return Counts(prompt - cached - written, cached, written - hour, hour, answer)


def _plainly(usage: Mapping[str, Any]) -> Counts | None:
    """The counts of a usage that has nothing but the usual three, which add up."""
    if len(usage) != 3:
        return None
    prompt, answer = usage.get("prompt_tokens"), usage.get("completion_tokens")
    if type(prompt) is not int or type(answer) is not int:
        return None
    total = prompt + answer
    if usage.get("total_tokens") != total or not 0 < total <= _MAX_COUNT or min(prompt, answer) < 0:
        return None
    return Counts(prompt, 0, 0, 0, answer)


def _beside(reported: _Reported) -> set[str]:
    """Which counts are not included in those of prompt and answer.

    The total decides if some of them add up to exactly its excess. Otherwise their names decide, or
    that they are larger than the count that would include them. An unexplained excess of the total
    is ignored.
    """
    more = (reported.total or 0) - reported.prompt - reported.answer
    caches = reported.cached + reported.written
    if more > 0:
        for some in _BESIDE:
            sizes = [getattr(reported, each) for each in some]
            if all(sizes) and sum(sizes) == more:
                return set(some)
    beside = set()
    separate = reported.apart and not reported.inclusive and (reported.total is None or more != 0)
    larger, room = caches > reported.prompt, 0 < caches <= more
    if (larger and room) if reported.within else (separate or larger or room):
        beside |= {"cached", "written"}
    if reported.gemini or reported.total is not None or reported.reasoning > reported.answer:
        beside.add("reasoning")  # as far as the total has room for it
    return beside


def merged(earlier: Any, later: Any, depth: int = _DEPTH) -> Any:
    """Merges a usage that is reported several times: counts are cumulative, so the larger one is
    kept; for anything else the later one, unless it is null.

    >>> merged({"input_tokens": 1000, "output_tokens": 1}, {"input_tokens": 0, "output_tokens": 15})
    {'input_tokens': 1000, 'output_tokens': 15}
    """
    if later is None:
        return earlier
    if isinstance(earlier, dict):
        if not isinstance(later, dict) or not depth:
            return earlier
        names = dict.fromkeys((*earlier, *later))
        return {name: merged(earlier.get(name), later.get(name), depth - 1) for name in names}
    if (before := _size(earlier)) is None:
        return later
    after = _size(later)
    return earlier if after is None or after < before else later


def _size(value: object) -> int | float | None:
    tokens = count(value)
    return number(value) if tokens is None else tokens


def usage_in(answer: Mapping[str, Any]) -> Any:
    """The usage of an answer, or of an event of a stream, wherever a provider puts it.

    >>> usage_in({"choices": [{"delta": {}, "usage": {"prompt_tokens": 3}}], "usage": None})
    {'prompt_tokens': 3}
    """
    usage = answer.get("usage")
    choices = answer.get("choices")
    for each in (answer.get("x_groq"), *(choices if isinstance(choices, list) else ())):
        if isinstance(each, dict) and isinstance(each.get("usage"), dict):
            usage = merged(usage, each["usage"])
    return answer.get("usageMetadata") if usage is None else usage


def bills_in(usage: Mapping[str, Any]) -> dict[str, Any]:
    """The money in a usage, next to its counts.

    >>> bills_in({"cost": 0.1, "input_tokens": 5, "is_byok": False})
    {'cost': 0.1, 'is_byok': False}
    """
    told = {name: each for name, each in usage.items() if each is not None}
    return {name: each for name, each in told.items() if "cost" in plain(name) or name == "is_byok"}


def answer_bytes(choices: object) -> int:
    """The bytes of the choices of an answer, or of one event of a stream: text, reasoning, and tool
    calls.

    >>> answer_bytes([{"delta": {"role": "assistant", "content": "hello"}}, {"text": "hi"}])
    7
    """
    size = 0
    for choice in choices if isinstance(choices, list) else ():
        if not isinstance(choice, dict):
            continue
        size += _text_bytes(choice.get("text"))
        message = choice.get("delta") or choice.get("message")
        if isinstance(message, dict):
            size += sum(_text_bytes(value) for name, value in message.items() if name != "role")
            calls = message.get("tool_calls")
            size += sum(map(_call_bytes, calls)) if isinstance(calls, list) else 0
    return size


def count(value: object) -> int | None:
    """A number of tokens; None for anything else. Protocol Buffers write long ones as texts.

    >>> count(1000.0), count(True), count(0.5), count("7"), count("7 tokens"), count(None)
    (1000, None, None, 7, None, None)
    """
    if isinstance(value, str):
        value = int(value) if value.isascii() and value.isdecimal() and len(value) < 20 else None
    exact = number(value)
    if exact is None or not 0 <= exact <= _MAX_COUNT or exact != int(exact):
        return None
    return int(exact)


def number(value: object) -> int | float | None:
    """A finite number; None for anything else, also for true and false."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value if isinstance(value, int) or math.isfinite(value) else None


def plain(name: object) -> str:
    """A name without its case and the marks between its words.

    >>> plain("cache_read_input_tokens") == plain("cacheReadInputTokens")
    True
    """
    text = str(name)
    return _plain(text) if len(text) <= _SHORT else _made_plain(text)


def _made_plain(name: str) -> str:
    return name.replace("_", "").replace("-", "").lower()


_plain = lru_cache(maxsize=2048)(_made_plain)


def _read(usage: Mapping[str, Any]) -> _Reported:
    reported = _Reported()
    for path, name, tokens in _counts(usage, ()):
        of = _meaning(path, name)
        if of is _PROMPTS:
            reported.prompt, reported.prompted = max(reported.prompt, tokens), True
            reported.inclusive |= name.startswith("prompt") and tokens > 0
        elif of is _ANSWERS:
            reported.answer = max(reported.answer, tokens)
        elif of is _TOTALS:
            reported.total = max(reported.total or 0, tokens)
        elif of is _REASONING:
            reported.reasoning = max(reported.reasoning, tokens)
            reported.gemini |= name == "thoughtstokencount"
        elif of is _CACHE:
            _note_cache(reported, name, tokens, _of_details(path))
        elif of is _OF_TOOLS:
            reported.tools = tokens
    return reported


def _meaning(path: tuple[str, ...], name: str) -> str:
    """What a count counts, by its name and the names of the objects around it."""
    short = len(name) <= _SHORT and (not path or max(map(len, path)) <= _SHORT)
    return _meant(path, name) if short else _read_meaning(path, name)


def _read_meaning(path: tuple[str, ...], name: str) -> str:
    if any(each in name for each in _MONEY):
        return _OTHER
    details = _of_details(path)
    if "reason" in name or "think" in name or "thought" in name:
        return _REASONING
    if details and any(each.startswith(("completion", "output", "cand")) for each in path):
        return _OTHER  # other parts of the answer
    if "cach" in name or "ephemeral" in name:
        return _CACHE
    if details or any("cach" in each for each in path):
        return _OTHER  # other parts of the prompt
    if name in _PROMPT:
        return _PROMPTS
    if name in _ANSWER:
        return _ANSWERS
    if name in _TOTAL:
        return _TOTALS
    return _OF_TOOLS if name == _TOOLS else _OTHER


_meant = lru_cache(maxsize=2048)(_read_meaning)


def _of_details(path: tuple[str, ...]) -> bool:
    return any("detail" in each for each in path)


def _note_cache(reported: _Reported, name: str, tokens: int, details: bool) -> None:
    """A count of a cache: what was read from it, what it missed, or what was written to it."""
    if "ephemeral" in name:
        length = "hour" if "1h" in name else "minutes"
    elif "miss" in name:
        reported.missed = max(reported.missed or 0, tokens)
        return
    else:
        length = "written" if "creat" in name or "writ" in name else "cached"
    setattr(reported, length, max(getattr(reported, length), tokens))
    reported.within |= details and tokens > 0
    reported.apart |= name in _APART


def _counts(
    usage: Mapping[str, Any], path: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], str, int]]:
    """Every number that may be a count, with its name and the names of the objects around it."""
    for key, value in usage.items():
        name = plain(key)
        if isinstance(value, dict):
            if len(path) < _DEPTH:
                yield from _counts(value, (*path, name))
        elif (tokens := count(value)) is not None:
            yield path, name, tokens


def _call_bytes(call: object) -> int:
    function = call.get("function") if isinstance(call, dict) else None
    return sum(map(_text_bytes, function.values())) if isinstance(function, dict) else 0


def _text_bytes(value: object) -> int:
    if not isinstance(value, str):
        return 0
    return len(value) if value.isascii() else len(value.encode(errors="replace"))
