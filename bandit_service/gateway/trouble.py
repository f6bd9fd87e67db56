"""What a provider's error is about: the one place that decides it. Pure.

An answer of status 200 may report an error, in any of the shapes below. A refusal (4xx) is about
the arm if its status or code says so: its key, its quota, its name there. Otherwise it is about the
request, or about this arm with this request. The other arms show which: if they answer what one arm
refused, the refusal was about that arm.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Any

from bandit_service.parsing.inputs import json_of


class About(Enum):
    """What an error is about.

    ARM: it fails, whoever asks. PAIR: it cannot do this request, and others may: a parameter, a
    length, an ability. UNCLEAR: this request, to this arm or to any.
    """

    ARM = "arm"
    PAIR = "pair"
    UNCLEAR = "unclear"


_ARM_STATUS = frozenset({401, 402, 404, 405, 407, 408, 409, 410, 423, 424, 425, 429})
"""Not the client's fault: our key, credit, or name of the model there, or what may be better later.
403 is not among them, since it may be about the content."""
_PAIR_STATUS = frozenset({411, 413, 414, 415, 431})
_ARM_WORDS = re.compile(
    r"rate_?limit|quota|insufficient|billing|credit|balance|payment|overload|exhausted|throttl"
    r"|too_?many_?requests|api_?key|key_?limit|authenti|unauthori[sz]ed|permission|access_?denied"
    r"|expired|deactivat|suspend|capacity|unavailable|server_?error|timeout"
    r"|(model|deployment|engine|resource|route|endpoint)_?not_?found"
)
_PAIR_WORDS = re.compile(
    r"context_?(length|window|size)|too_?(long|large|many_?tokens)|max_?length|length_?exceed"
    r"|tokens?_?(limit|exceed)|exceeds?_?(max|limit|context)|not_?support|unsupported"
    r"|unrecogni[sz]ed|unknown_?(param|field|arg)|extra_?(input|field|forbidden)|modalit|capabilit"
)
_PAIR_MESSAGE = re.compile(
    r"context (length|window|size)|maximum (context|prompt|input|sequence|number of tokens)"
    r"|too (long|large|many (input |total |prompt )?tokens)|not support|unsupported|unrecogni[sz]ed"
    r"|unknown (parameter|field|name|argument)|extra (inputs|fields)|not (allowed|permitted) "
    r"(for|with) (this|the) model|exceeds? the (maximum|limit|context|available|model)"
)
_STATUS = (
    (re.compile(r"rate_?limit|too_?many|quota|exhausted|throttl"), 429),
    (re.compile(r"overload|capacity|unavailable"), 503),
    (re.compile(r"timeout|timed_?out"), 504),
)
_CODES = ("code", "status_code", "error_code", "status", "http_code", "http_status")
_NAMES = ("type", "code", "status", "error_type", "reason", "__type")
_MESSAGES = ("message", "msg", "detail", "error_msg", "error_message", "status_msg", "reason")
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
    }
)
_WELL = (0, 200, "0", "200", "ok", "success", "succeeded", "completed")


@dataclass(frozen=True, slots=True)
class Error:
    """What a provider reports of an error.

    status: by its numbers or words, 0 if they say none. words: its codes and types, in small
    letters. message: for the client alone, since it may hold what the client wrote.
    """

    status: int = 0
    words: str = ""
    message: str = ""

    @property
    def about(self) -> About:
        """What it is about, by what it says itself."""
        pair = _PAIR_WORDS.search(self.words)
        if self.status in _ARM_STATUS or self.status >= 500:
            return About.ARM
        if not pair and _ARM_WORDS.search(self.words):
            return About.ARM
        if pair or self.status in _PAIR_STATUS or _PAIR_MESSAGE.search(self.message.lower()):
            return About.PAIR
        return About.UNCLEAR


def there(value: object) -> bool:
    """Whether a field says anything: null, false, 0 and what is empty all through are as absent.

    >>> there(None), there({"message": "", "code": None}), there("x"), there({"code": 1})
    (False, False, True, True)
    """
    if not value or not isinstance(value, dict | list):
        return bool(value)
    return any(map(there, value.values() if isinstance(value, dict) else value))


def refusal(status: int, body: bytes) -> Error:
    """The error of an answer whose status says that it is one."""
    try:
        error = error_in(json_of(body)) or Error()
    except ValueError:
        error = Error()
    return Error(status, error.words, error.message)


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
    get = answer.get  # this is done for every event of every stream
    for name in ("error", "errors"):
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
    if not reason:
        return None
    name = reason.get("type") if isinstance(reason, dict) else reason
    kind = name.strip().lower() if isinstance(name, str) else ""
    return _of(reason) if kind in _ENDED_BADLY or kind.startswith("error") else None


def _is_bare_error(answer: dict[str, Any]) -> bool:
    """Whether an object without an answer in it is an error that is not in an object of its own."""
    if any(answer.get(name) is False for name in ("success", "ok")):
        return True
    kind = answer.get("type") or answer.get("__type")
    if isinstance(kind, str) and kind.lower().endswith(("error", "exception")):
        return True
    if any(name.endswith("Exception") for name in answer):  # a stream of Bedrock's
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
    """What stands beside the error, without what was answered."""
    return {name: each for name, each in answer.items() if isinstance(each, str | int)}


def _is_well(code: object) -> bool:
    return (
        isinstance(code, str | int) and (code.lower() if isinstance(code, str) else code) in _WELL
    )


def _of(*described: object) -> Error:
    """The error that one or several values describe, the nearest first."""
    status, words, message = 0, [], ""
    for each in described:
        for holder in _objects(each):
            status = status or next(filter(None, map(_status, map(holder.get, _CODES))), 0)
            words += [str(holder[name]) for name in _NAMES if isinstance(holder.get(name), str)]
            message = message or next(
                (holder[name] for name in _MESSAGES if isinstance(holder.get(name), str)), ""
            )
        status = status or _status(each)
        message = message or (each if isinstance(each, str) else "")
    plain_words = re.sub(
        r"[^a-z0-9]+", "_", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", " ".join(words)).lower()
    )
    status = status or next((code for word, code in _STATUS if word.search(plain_words)), 0)
    return Error(status, plain_words, message)


def _objects(value: object, depth: int = 3) -> Iterator[dict[str, Any]]:
    """The objects of an error, from the outside in."""
    if isinstance(value, dict):
        yield value
    inner = value.values() if isinstance(value, dict) else value
    for each in inner if isinstance(value, list | dict) and depth else ():  # type: ignore[attr-defined]
        if isinstance(each, list | dict):
            yield from _objects(each, depth - 1)


def _status(code: object) -> int:
    if isinstance(code, bool) or not isinstance(code, int | str):
        return 0
    if isinstance(code, str) and not (code.isascii() and code.isdigit() and len(code) == 3):
        return 0
    return int(code) if 400 <= int(code) <= 599 else 0
