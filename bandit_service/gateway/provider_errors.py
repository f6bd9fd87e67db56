"""Classifies a provider's error: is it about the arm, or about the request? Pure.

An answer of status 200 may report an error, in any of the shapes below. A refusal (4xx) is about
the arm if its status or code says so: its key, its quota, its name there. Otherwise it is about the
request, or about this arm with this request. The other arms show which one: if they answer a
request that one arm refused, the refusal was about that arm.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

from bandit_service.parsing.inputs import said_json


class About(Enum):
    """What an error is about.

    ARM: the arm fails for every request. PAIR: the arm cannot do this request, but others may: a
    parameter, a length, an ability. UNCLEAR: this request, at this arm or at any.
    """

    ARM = "arm"
    PAIR = "pair"
    UNCLEAR = "unclear"


_ARM_STATUS = frozenset({401, 402, 404, 405, 407, 408, 409, 410, 423, 424, 425, 429})
"""Not the client's fault: our key, our credit, our name of the model, or a temporary failure.
403 is not among them, since it may be about the content."""
_PAIR_STATUS = frozenset({411, 413, 414, 415, 431})
_ARM_WORDS = re.compile(
    r"rate_?limit|quota|insufficient|billing|credit|balance|payment|arrear|overload|exhausted"
    r"|throttl|too_?many_?requests|api_?key|key_?limit|authenti|unauthori[sz]ed|permission"
    r"|access_?denied|expired|deactivat|suspend|capacity|unavailable|server_?error|timeout"
    r"|(resource|route|endpoint)_?not_?found"
)
_MODEL_WORDS = re.compile(
    r"(model|deployment|engine)s?_?(is_?)?(not_?(found|available|exist|loaded|ready|supported)"
    r"|deprecated|decommissioned|retired|disabled|unavailable|terms_?required)"
    r"|(unknown|invalid|unavailable|unsupported)_?(model|deployment|engine)\b"
    r"|unsupported_?(country|region|location)"
)
"""The model's name, which is not a parameter, although "not supported" is said of both."""
_PAIR_WORDS = re.compile(
    r"context_?(length|window|size)|too_?(long|large|many_?tokens)|max_?length|length_?exceed"
    r"|tokens?_?(limit|exceed)|exceeds?_?(max|limit|context)|not_?support|unsupported"
    r"|unrecogni[sz]ed|unknown_?(param|field|arg)|extra_?(input|field|forbidden)|modalit|capabilit"
    r"|tool_?use_?failed|json_?validate_?failed"
)
_ARM_MESSAGE = re.compile(
    r"credit balance|insufficient (balance|credit|fund|quota)|available credits|spending limit"
    r"|billing (hard )?limit|account\b.{0,40}(suspended|deactivated|disabled|good standing|overdue)"
    r"|api key\b.{0,30}(not valid|invalid|expired|incorrect|leaked|revoked)|key limit exceeded"
    r"|(invalid|incorrect|expired) api[ -]?(key|token)|(rate limit|quota) (was )?(reached|exceeded)"
    r"|exceeded your\b.{0,20}quota|(location|country|region|territory)\b.{0,10}not supported"
    r"|have access to the model|no models? (is |are )?loaded"
    r"|models?\b.{0,60}(do(es)? not exist|not found|deprecated|decommissioned|retired|not available"
    r"|no longer (available|supported)|not supported by\b.{0,10}provider|identifier is invalid)"
    r"|(unknown|invalid|unavailable|no such|unable to access|not a valid)( non-serverless)? model\b"
    r"|requested model\b.{0,10}not supported|on-demand throughput|default chat template"
)
_PAIR_MESSAGE = re.compile(
    r"context (length|window|size|limit)|maximum (context|prompt|input|sequence|allowed number"
    r"|number of tokens)|max_model_len|too (long|large|many (input |total |prompt )?tokens)"
    r"|not support|unsupported|unrecogni[sz]ed|unknown (parameter|field|name|argument)"
    r"|extra (inputs|fields)|extraneous key|not (allowed|permitted) (for|with) (this|the) model"
    r"|exceed(s|ed)? (the (maximum|limit|context|available)|(the )?model|max)|tokens\b.{0,60}"
    r"(cannot exceed|must be <=|longer than|not possible)|must have less than\b.{0,12}tokens"
    r"|not possible\b.{0,60}tokens|prompt length|range of (input|max|output|prompt)|the overflows"
    r"|only supported (by|with|in|for)|both be specified|greater than max|at most \d+ (image|audio"
    r"|video)|failed to (call a function|generate json)|must be verified|requires? --"
    r"|must be set to (true|false) for"
)
_ABILITY = re.compile(
    r"endpoints found that support|(image|audio|video|vision|tool|function)s?( \w+)? (is|are) not "
    r"support|request too large for|requires? --"
)
"""What the arm cannot do, although the status says that the arm failed."""
_QUOTED = re.compile(r"""(?<!\w)(?:'[^']{0,200}'|"[^"]{0,200}"|`[^`]{0,200}`)(?!\w)""")
"""Quotes in a message: the client's text, or a name. Neither says whose fault it is."""
_STATUS = (
    (re.compile(r"rate_?limit|too_?many|quota|exhausted|throttl"), 429),
    (re.compile(r"overload|capacity|unavailable"), 503),
    (re.compile(r"timeout|timed_?out"), 504),
)
_ERRORS = ("error", "errors")
_SPELLED = frozenset((*_ERRORS, "err", "exception", "fault"))
"""In any case, of an object without an answer in it."""
_CODES = ("code", "status_code", "error_code", "status", "http_code", "http_status")
_NAMES = ("type", "code", "status", "error_type", "reason", "__type")
_MESSAGES = (
    "message",
    "msg",
    "detail",
    "error_msg",
    "error_message",
    "errormessage",
    "status_msg",
    "faultstring",
    "title",
    "reason",
)
_LONGEST = 4096
"""Characters of a text that are read to classify it."""
_ENDED_BADLY = frozenset(
    {
        "error",
        "abort",
        "aborted",
        "cancelled",
        "canceled",
        "failed",
        "failure",
        "network_error",
        "model_error",
        "server_error",
        "internal_error",
        "timeout",
        "insufficient_system_resource",
        "malformed_function_call",
        "unexpected_tool_call",
        "too_many_tool_calls",
        "missing_thought_signature",
    }
)
_WELL = (0, 200, "0", "200", "ok", "success", "succeeded", "completed")


@dataclass(frozen=True, slots=True)
class Error:
    """What a provider reports of an error.

    status: by its numbers or words, 0 if they say none. words: its codes and types, in small
    letters. message: for the client alone, since it may hold what the client wrote. said: all of
    its messages, without what they quote.
    """

    status: int = 0
    words: str = ""
    message: str = ""
    said: str = ""

    @property
    def about(self) -> About:
        """What it is about, by its own words."""
        pair = _PAIR_WORDS.search(self.words)
        if self.status in _ARM_STATUS or self.status >= 500:
            # servers that report an inability as a failure, and gateways that find no server for it
            unable = (self.status == 500 and pair) or _ABILITY.search(self.said)
            return About.PAIR if unable else About.ARM
        if _MODEL_WORDS.search(self.words) or (not pair and _ARM_WORDS.search(self.words)):
            return About.PAIR if _ABILITY.search(self.said) else About.ARM
        if not pair and _ARM_MESSAGE.search(self.said):
            return About.ARM
        if pair or self.status in _PAIR_STATUS or _PAIR_MESSAGE.search(self.said):
            return About.PAIR
        return About.UNCLEAR


def there(value: object) -> bool:
    """Whether a field has content: null, false, 0 and nested empty values count as absent.

    >>> there(None), there({"message": "", "code": None}), there("x"), there({"code": 1})
    (False, False, True, True)
    """
    if not value or not isinstance(value, dict | list):
        return bool(value)
    return any(map(there, value.values() if isinstance(value, dict) else value))


def refusal(status: int, body: bytes) -> Error:
    """The error of an answer whose status says that it is one."""
    try:
        answer = said_json(body)
    except ValueError:
        answer = body[:_LONGEST].decode(errors="replace").strip()
        answer = "" if answer.startswith("<") else answer  # a page says no more than the status
    return replace(error_in(answer) or _of(answer), status=status)


def error_in(answer: object) -> Error | None:
    """The error that an answer, or an event of a stream, reports; None if it reports none.

    >>> error_in({"choices": [], "error": {"code": 502}}).status
    502
    >>> error_in({"choices": [{"delta": {"content": "x"}}], "error": None}) is None
    True
    """
    if isinstance(answer, list):  # Google's
        return next((error for each in answer if (error := error_in(each))), None)
    if not isinstance(answer, dict):
        return None
    get = answer.get  # this runs for every event of every stream
    for name in _ERRORS:
        if (field := get(name)) and _is_error(field):
            return _of(field, _plain(answer))
    if get("type") == "error" or get("object") == "error":
        return _of(answer)
    for name in ("base_resp", "error_code"):  # MiniMax's; Baidu's and FastChat's
        if field := get(name):
            code = field.get("status_code") if isinstance(field, dict) else field
            if there(code) and not _is_well(code):
                return _of(field, _plain(answer))
    choices = get("choices")
    for choice in choices if isinstance(choices, list) else ():
        if isinstance(choice, dict) and (error := _of_choice(choice)):
            return error
    if choices or any(there(get(name)) for name in ("data", "content", "usage")):
        return None
    return _of(answer) if _is_bare_error(answer) else None


def _of_choice(choice: dict[str, Any]) -> Error | None:
    for holder in (choice, choice.get("delta"), choice.get("message")):
        if isinstance(holder, dict) and (error := holder.get("error")) and _is_error(error):
            return _of(error)
    reason = choice.get("finish_reason")
    return _of(reason) if reason and ended_badly(reason) else None


def ended_badly(reason: object) -> bool:
    """Whether a reason why an answer stopped says that it failed.

    >>> ended_badly("ERROR_LIMIT"), ended_badly({"type": "abort"}), ended_badly("length")
    (True, True, False)
    """
    name = reason.get("type") if isinstance(reason, dict) else reason
    kind = name.rpartition(":")[2].strip().lower() if isinstance(name, str) else ""
    return kind in _ENDED_BADLY or kind.startswith("error")


def _is_bare_error(answer: dict[str, Any]) -> bool:
    """Whether an object without an answer in it is an error that is not in an object of its own."""
    if any(answer.get(name) is False for name in ("success", "ok")):
        return True
    kind = answer.get("type") or answer.get("__type")
    if isinstance(kind, str) and kind.lower().endswith(("error", "exception")):
        return True
    if any(name.endswith("Exception") for name in answer):  # a stream of Bedrock's
        return True
    if any(there(each) for name, each in answer.items() if name.lower() in _SPELLED):
        return True
    if str(answer.get("status")).lower() in ("error", "failed", "failure"):
        return True
    explained = any(there(answer.get(name)) for name in _MESSAGES)
    codes = (answer.get(name) for name in _CODES)
    return explained and (
        there(answer.get("detail")) or any(there(code) and not _is_well(code) for code in codes)
    )


def _is_error(error: object) -> bool:
    """Whether the field `error` reports one: {"code": 0, "message": "success"} does not."""
    code = error.get("code") if isinstance(error, dict) else None
    return there(error) and (code is None or not _is_well(code))


def _plain(answer: dict[str, Any]) -> dict[str, Any]:
    """The fields next to the error, without the answer."""
    return {name: each for name, each in answer.items() if isinstance(each, str | int)}


def _is_well(code: object) -> bool:
    return (
        isinstance(code, str | int) and (code.lower() if isinstance(code, str) else code) in _WELL
    )


def _of(*described: object) -> Error:
    """The error that one or several values describe, the nearest first."""
    status, words = 0, list[str]()
    messages: list[str] = [each for each in described if isinstance(each, str)]
    for each in described:
        for holder in _objects(each):
            status = status or next(filter(None, map(_status, map(holder.get, _CODES))), 0)
            words += [str(holder[name]) for name in _NAMES if isinstance(holder.get(name), str)]
            messages += [holder[name] for name in _MESSAGES if isinstance(holder.get(name), str)]
            messages += [each for each in map(holder.get, _ERRORS) if isinstance(each, str)]
        status = status or _status(each)
    plain_words = re.sub(
        r"[^a-z0-9]+", "_", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", " ".join(words)).lower()
    )
    status = status or next((code for word, code in _STATUS if word.search(plain_words)), 0)
    said = _QUOTED.sub(" ", "\n".join(messages)[:_LONGEST].lower())
    return Error(status, plain_words, messages[0] if messages else "", said)


def _objects(value: object, depth: int = 4) -> Iterator[dict[str, Any]]:
    """The objects of an error, from the outside in, by names in small letters; a text may hold
    another server's.
    """
    if isinstance(value, str) and value[:1] in ("{", "[") and len(value) <= _LONGEST:
        try:
            value = said_json(value)
        except ValueError:
            return
    if isinstance(value, dict):
        yield {name.lower(): each for name, each in value.items() if isinstance(name, str)}
    inner = value.values() if isinstance(value, dict) else value
    for each in inner if isinstance(value, list | dict) and depth else ():  # type: ignore[attr-defined]
        if isinstance(each, list | dict | str):
            yield from _objects(each, depth - 1)


def _status(code: object) -> int:
    if isinstance(code, bool) or not isinstance(code, int | str):
        return 0
    if isinstance(code, str) and not (code.isascii() and code.isdigit() and len(code) == 3):
        return 0
    return int(code) if 400 <= int(code) <= 599 else 0
