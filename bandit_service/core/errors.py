"""Errors, classed by what the caller should do next.

Each has a stable `code`, one HTTP status and OpenAI's error shape; docs/errors.md lists them.
"""

from __future__ import annotations

import math
import re
from typing import ClassVar

import msgspec

LONGEST = 2000
"""Characters of a message, and of the field that it names."""


class ServiceError(Exception):
    """An answer that is not the one asked for. `param` is the field that caused it, if one did.

    headers: what else the answer carries.
    """

    status: int = 500
    type: ClassVar[str] = "server_error"
    code: ClassVar[str] = "internal"

    def __init__(self, message: str, *, param: str | None = None) -> None:
        if len(message) > LONGEST:  # it may repeat a name, which may be as long as a body
            message = message[:LONGEST] + " [...]"
        super().__init__(message)
        self.message = message
        self.param = None if param is None else param[:LONGEST]
        self.headers: dict[str, str] = {}

    def ended(self, why: str) -> None:
        """Say also why nothing else is tried."""
        if why not in self.message:
            self.message += f"; {why}"

    def body(self) -> dict[str, str | None]:
        """The `error` object of OpenAI's wire format."""
        return {
            "message": self.message,
            "type": self.type,
            "param": self.param,
            "code": self.code,
        }


class Refused(ServiceError):
    """The input is wrong: fix the field named in `param` and send it again."""

    status, type, code = 400, "invalid_request_error", "invalid_value"


class Malformed(Refused):
    """The bytes are not the JSON or MessagePack that was announced."""

    code = "malformed"


class TooLarge(Refused):
    """A body, frame, list or query is over its limit: send less."""

    status, code = 413, "too_large"


class TooSlow(Refused):
    """The body did not arrive within its time limit."""

    status, code = 408, "too_slow"


class OutOfTime(ServiceError):
    """The answer was not there in the time the client gave it; nothing was decided for it."""

    status, type, code = 504, "server_error", "timeout"


class NoEligibleArm(Refused):
    """The hard constraints exclude every arm: relax one of those named."""

    status, code = 422, "no_eligible_arm"


class Unknown(ServiceError):
    """No such decision, arm, policy or path."""

    status, type, code = 404, "not_found_error", "unknown"


class Misdirected(ServiceError):
    """The pool is served in another cell, which `x-bandit-cell` names: send the request there."""

    status, type, code = 421, "invalid_request_error", "wrong_cell"

    def __init__(self, param: str, pool: str, cell: str, here: str) -> None:
        # who names a decision may be another's tenant, or have no key
        what = "this decision" if param == "decision_id" else f"the pool {pool!r}"
        super().__init__(
            f"{param}: {what} is served in the cell {cell!r}, and this is the cell {here!r}; send "
            "it there",
            param=param,
        )
        self.headers["x-bandit-cell"] = cell


class NotThere(ServiceError):
    """A call of OpenAI's or Anthropic's that this service has not, or that its log cannot do."""

    status, type, code = 501, "not_implemented_error", "not_implemented"


class Expired(ServiceError):
    """The decision was forgotten: its reward came later than `reward.ttl_s`."""

    status, type, code = 410, "not_found_error", "expired"


class Conflict(ServiceError):
    """Already settled differently; nothing was changed."""

    status, type, code = 409, "conflict_error", "conflict"


class Stale(ServiceError):
    """`If-Match` names another revision than the one in force: read it again, then change it."""

    status, type, code = 412, "conflict_error", "stale"


class Busy(ServiceError):
    """Over capacity for now: retry after `retry_after_s`."""

    status, type, code = 429, "rate_limit_error", "busy"
    retry_after_s: int = 1


class Denied(ServiceError):
    """No key, or an unknown one: send a valid one."""

    status, type, code = 401, "authentication_error", "unauthorized"

    def __init__(self, message: str, *, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


class Forbidden(ServiceError):
    """The key may not do this: ask for one that may."""

    status, type, code = 403, "permission_error", "forbidden"

    def __init__(self, message: str, *, param: str | None = None, reason: str) -> None:
        super().__init__(message, param=param)
        self.reason = reason


class RateLimited(Busy):
    """More requests than the key may send: retry after `retry_after_s`."""

    code = "rate_limited"
    reason = "rate"

    def __init__(self, message: str, wait_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = max(1, math.ceil(wait_s))


class BudgetExhausted(Busy):
    """A budget is spent, and no eligible arm fits into the rest."""

    code = "budget_exhausted"

    def __init__(self, message: str, wait_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = max(1, math.ceil(wait_s))


class ShareExceeded(Busy):
    """The key has sent as much of the newest outcomes as it may."""

    code = "reward_share"
    reason = "share"


class UpstreamError(ServiceError):
    """The arm's provider failed, and no other arm answered: it keeps the provider's status."""

    status, type, code = 502, "upstream_error", "upstream_failed"

    def __init__(self, message: str, status: int = 502, retry_after_s: float = 0.0) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after_s = math.ceil(retry_after_s)


class UpstreamTimeout(UpstreamError):
    """The arm's provider was too slow, and no other arm answered."""

    code = "upstream_timeout"

    def __init__(self, message: str) -> None:
        super().__init__(message, 504)


class Unavailable(ServiceError):
    """Something that the answer needs is not there now: retry after `retry_after_s`."""

    status, type, code = 503, "server_error", "unavailable"
    retry_after_s: int = 5


class NotYet(Unavailable):
    """The decision is not known at this replica yet: it may still come from another."""

    retry_after_s = 1

    @classmethod
    def of(cls, decision_id: str) -> NotYet:
        """The refusal of what names a decision that may still come."""
        return cls(
            f"decision_id: {decision_id!r} is not known here yet; send it again in a second",
            param="decision_id",
        )


class Behind(Unavailable):
    """This replica has not learned as much as the request asks for: ask it again, or another."""

    code = "behind"
    retry_after_s = 1

    def __init__(self, wanted: int, applied: int) -> None:
        super().__init__(
            f"x-bandit-after: this replica has learned up to {applied}, not yet up to {wanted}; "
            "send it again in a second, or without the header",
            param="x-bandit-after",
        )


def field_of(error: msgspec.ValidationError) -> tuple[str | None, str]:
    """The field that a value was refused for, and what was wrong with it.

    >>> try: msgspec.json.decode(b'{"a": "x"}', type=dict[str, int])
    ... except msgspec.ValidationError as error: field_of(error)
    ('[...]', 'must be a whole number, got a text')
    """
    what, _, where = str(error).partition(" - at `$")
    param = where.strip("`.") or None
    if param is None and "field `" in what:
        param = what.split("field `")[1].split("`")[0]
    if found := _TYPES.fullmatch(what):
        allowed = " or ".join(_IN_WORDS.get(each, each) for each in found[1].split(" | "))
        return param, f"must be {allowed}, got {_IN_WORDS.get(found[2], found[2])}"
    if what.startswith("Object missing required field"):
        return param, "is required"
    if what == "Invalid base64 encoded string":
        return param, "must be base64 if it is a text"
    return param, what


_TYPES = re.compile(r"Expected `([^`<>]+)`, got `([^`]+)`")
_IN_WORDS = {
    "str": "a text",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "array": "a list",
    "object": "an object",
    "ext": "an extension of MessagePack",
    "datetime": "a timestamp",
}
"""Types by the decoder's names for them."""
_NAMES: dict[type, str] = {list: "array", tuple: "array", dict: "object"}
"""The decoder's names where they are not Python's."""


def type_in_words(value: object) -> str:
    """The type of a decoded value, for a message.

    >>> type_in_words([]), type_in_words(True), type_in_words(None), type_in_words(b"")
    ('a list', 'true or false', 'null', 'bytes')
    """
    if value is None:
        return "null"
    name = _NAMES.get(type(value), type(value).__name__)
    return _IN_WORDS.get(name, name)


def in_words(value: float) -> str:
    """A number for a message, however large it is.

    >>> in_words(0.5), in_words(10**400)
    ('0.5', 'a number of 401 digits')
    """
    try:
        return f"{value:g}"
    except OverflowError:  # of whole numbers, which JSON and TOML have of any length
        return f"a number of {int(int(value).bit_length() * 0.30103) + 1} digits"


def stopped() -> Unavailable:
    """The error when the end of the service cut an answer off."""
    return Unavailable("the service is stopping and this took longer than it waits; retry")
