"""What can go wrong, classed by what the caller should do next.

BanditError
├── ServiceError        the service refused: code, field, what is allowed, request id
│   ├── Invalid         fix the field and send it again
│   ├── Denied          send another key
│   ├── Unknown         there is no such decision, arm, policy or experiment
│   ├── Conflict        something else was recorded or configured before, and stays
│   ├── Expired         the decision was forgotten
│   ├── Busy            retry later; the client did, as long as its timeout allowed
│   ├── Unavailable     the same
│   └── TimedOut        no decision in the time there was, and none was made
├── NotReached          no connection: nothing was sent
├── NoAnswer            sent, and no answer came: it may have happened or not
├── BadAnswer           an answer that no bandit-service gives
├── QueueFull           there is no room for another reward in the background
├── Undelivered         rewards that were taken into the background were not delivered
└── NotInstalled        the embedded mode needs the package bandit-service
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


class BanditError(Exception):
    """Anything that this client raises of itself, except a ValueError for a wrong argument."""


class ServiceError(BanditError):
    """The service refused the request, and nothing was changed by it.

    message: what was wrong and what is allowed. code: a stable word; docs/errors.md of the service
    lists all. field: the field that caused it, or None. status: of HTTP, 0 for one item of a list
    and on a stream. request_id: under which the service logged it. retry_after_s: what the service
    said of it, or None.
    """

    def __init__(
        self,
        message: str,
        *,
        code: str,
        field: str | None = None,
        status: int = 0,
        request_id: str = "",
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.field = field
        self.status = status
        self.request_id = request_id
        self.retry_after_s = retry_after_s

    @property
    def allowed(self) -> str:
        """What is allowed in the field, in the service's words.

        >>> ServiceError("quality: must be a number from 0 to 1, got 7", code="invalid_value",
        ...              field="quality").allowed
        'must be a number from 0 to 1'
        """
        return self.message.removeprefix(f"{self.field}: ").partition(", got ")[0]

    def __str__(self) -> str:
        where = f", request {self.request_id}" if self.request_id else ""
        return f"{self.message} ({self.code}{where})"


class Invalid(ServiceError):
    """The request is wrong: fix the field and send it again."""


class Denied(ServiceError):
    """No key, not one of the service's, or one that may not do this."""


class Unknown(ServiceError):
    """There is no such decision, arm, policy, experiment or path."""


class Conflict(ServiceError):
    """Something else was recorded or configured before, and stays."""


class Expired(ServiceError):
    """The decision was forgotten before its reward came."""


class Busy(ServiceError):
    """Too much at the moment: the service, the key's rate, or a budget."""


class Unavailable(ServiceError):
    """Something that the answer needs is not there at the moment."""


class TimedOut(ServiceError):
    """The service had no decision in the time that the client waits, and made none."""


class NotReached(BanditError):
    """There was no connection to the service, so that nothing was sent."""


class NoAnswer(BanditError):
    """The request was sent and no answer came: it may have happened or not.

    request_id: under which the service logged it, if it came there.
    """

    def __init__(self, message: str, *, request_id: str = "") -> None:
        super().__init__(message)
        self.request_id = request_id


class BadAnswer(BanditError):
    """The answer is none that a bandit-service gives: another program is at this address."""


class QueueFull(BanditError):
    """There is no room for another reward in the background: the service takes them too slowly."""


class NotInstalled(BanditError):
    """The embedded mode runs the service in this process, and its package is not there."""


@dataclass(frozen=True, slots=True)
class Lost:
    """One reward that was not delivered: what was to be sent, and why it was not."""

    reward: Mapping[str, Any]
    error: BanditError


class Undelivered(BanditError):
    """Rewards that were taken into the background were not delivered.

    lost: the rewards with the reasons, the newest where there are too many. count: how many.
    waiting: how many are still in the queue, and may yet be delivered.
    """

    def __init__(self, lost: Sequence[Lost], count: int, waiting: int = 0) -> None:
        parts = []
        if count:
            first = f": {lost[0].error}" if lost else ""
            parts.append(f"{count} reward{'s' if count > 1 else ''} not delivered{first}")
        if waiting:
            parts.append(f"{waiting} reward{'s' if waiting > 1 else ''} still waiting")
        super().__init__("; ".join(parts))
        self.lost = tuple(lost)
        self.count = count
        self.waiting = waiting


_BY_STATUS: dict[int, type[ServiceError]] = {
    401: Denied,
    403: Denied,
    404: Unknown,
    409: Conflict,
    410: Expired,
    412: Conflict,
    429: Busy,
    503: Unavailable,
}
_BY_CODE: dict[str, type[ServiceError]] = {
    "unauthorized": Denied,
    "forbidden": Denied,
    "unknown": Unknown,
    "conflict": Conflict,
    "stale": Conflict,
    "expired": Expired,
    "busy": Busy,
    "no_credit": Busy,
    "rate_limited": Busy,
    "reward_share": Busy,
    "budget_exhausted": Busy,
    "unavailable": Unavailable,
    "behind": Unavailable,
    "timeout": TimedOut,
}
_INVALID = frozenset(("invalid_value", "malformed", "too_large", "too_slow", "no_eligible_arm"))


def told(
    error: Mapping[str, Any],
    status: int = 0,
    request_id: str = "",
    retry_after_s: float | None = None,
) -> ServiceError:
    """The exception for an `error` object of the service.

    >>> told({"message": "no arm 'x'", "param": "arm", "code": "unknown"})
    Unknown("no arm 'x'")
    """
    code = str(error.get("code") or "")
    kind = Invalid if code in _INVALID else _BY_CODE.get(code) or _BY_STATUS.get(status)
    if kind is None:
        kind = Invalid if 400 <= status < 500 else ServiceError
    param = error.get("param")
    return kind(
        str(error.get("message") or f"the service answered {status}"),
        code=code,
        field=None if param is None else str(param),
        status=status,
        request_id=request_id,
        retry_after_s=retry_after_s,
    )
