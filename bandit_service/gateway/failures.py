"""How a call of a provider can end without an answer, and which error the client gets."""

from __future__ import annotations

from typing import Any

import msgspec

from bandit_service.core.errors import UpstreamError, UpstreamTimeout
from bandit_service.gateway import provider_errors
from bandit_service.gateway.provider_errors import About
from bandit_service.parsing.inputs import said_json, whole


class Failed(Exception):
    """A provider gave no answer that can be passed on; another arm may be tried.

    status: the provider's status, 0 without one. retry_after_s: when the provider asks to be called
    again, 0 if it does not say. reported: the provider itself reported the error. usage: the cost
    that the provider reported nevertheless. cut_short: the request ended it, before its own time.
    """

    def __init__(
        self,
        why: str,
        *,
        status: int = 0,
        retry_after_s: float = 0.0,
        timeout: bool = False,
        reported: bool = False,
        usage: object = None,
        cut_short: bool = False,
    ) -> None:
        super().__init__(why)
        self.status = status
        self.retry_after_s = retry_after_s
        self.timeout = timeout
        self.reported = reported
        self.usage = usage
        self.cut_short = cut_short

    def ended(self, why: str) -> None:
        """Say also why nothing else is tried."""
        if why not in str(self):
            self.args = (f"{self}; {why}",)


class Rejected(Exception):
    """A provider refuses this request and is healthy itself; another arm may take it.

    unsuited: it says that this model cannot do it, so others may, however many refused it. why: why
    no other model is asked; "" if none is left.
    """

    why = ""

    def __init__(self, status: int, body: bytes, unsuited: bool = False) -> None:
        super().__init__(f"status {status}")
        self.status, self.body, self.unsuited = status, body, unsuited

    @property
    def of_place(self) -> bool:
        """Whether it may be about where the model was asked: a firewall, a region without it.

        A 403 may also be about the content. The other places show which one it is.
        """
        return self.status == 403 and not self.unsuited


def raise_for_error(answer: object) -> None:
    """Raise Rejected or Failed if an answer of status 200 reports an error.

    The exception does not repeat its words: they may hold what the client wrote, and are logged.
    """
    error = provider_errors.error_in(answer)
    if error is not None:
        raise of_error(error, answer)


def of_error(error: provider_errors.Error, answer: object) -> Failed | Rejected:
    """The exception for an error that an answer of status 200 reports before any content."""
    if error.about is About.PAIR:
        body = msgspec.json.encode(whole(answer))  # an event may hold half a character
        return Rejected(told_status(error.status), body, unsuited=True)
    return reported_failure(error)


def told_status(status: int) -> int:
    """The client's status for a refusal: if no arm can do the request, it is a 4xx, whatever a
    server calls it.
    """
    return status if 400 <= status < 500 else 400


def reported_failure(error: provider_errors.Error) -> Failed:
    """The failure that an answer of status 200 reports."""
    status = f" (status {error.status})" if error.status else ""
    return Failed(f"it reported an error{status}", status=error.status, reported=True)


def rejection(rejected: Rejected, arm: str) -> dict[str, Any]:
    """The provider's own error with the arm added, `error` of OpenAI's wire format."""
    try:
        body = said_json(rejected.body)
    except ValueError:
        body = None
    error = body.get("error") if isinstance(body, dict) else None
    if not isinstance(error, dict):
        message = provider_errors.refusal(rejected.status, rejected.body).message
        error = {
            "message": message or f"arm {arm!r} answered status {rejected.status}",
            "type": "upstream_error",
            "param": None,
            "code": "upstream_rejected",
        }
    if rejected.why:
        error = {**error, "message": f"{error.get('message') or ''}; {rejected.why}"}
    return {"param": None, "code": None, **error, "arm": arm}


def upstream_error(arm: str, failed: Failed) -> UpstreamError:
    """The error that the client gets if the arm gave no answer."""
    message = f"arm {arm!r} failed: {failed}"
    if failed.timeout:
        return UpstreamTimeout(message)
    return UpstreamError(message, failed.status or 502, failed.retry_after_s)
