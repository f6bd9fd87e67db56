"""Messages of a command whose request the service refused, or that could not reach it."""

from __future__ import annotations

import http.client
import json
import urllib.error

ANY = (OSError, http.client.HTTPException, ValueError, LookupError, TypeError)
"""What asking a service and reading its answer may raise."""


def said(error: BaseException, url: str) -> str:
    """One sentence: the service's own if it sent one."""
    match error:
        case urllib.error.HTTPError():
            try:
                return str(json.loads(error.read())["error"]["message"])
            except (ValueError, KeyError, TypeError):
                return f"status {error.code}"
        case UnicodeEncodeError():
            half = error.object[error.start]
            return f"what is to be sent is not UTF-8: {half!r} is half a character, or a stray byte"
        case urllib.error.URLError():
            return f"{url} cannot be reached: {error.reason}"
        case OSError() | http.client.HTTPException():
            return f"{url} broke off: {error}"
        case _:
            return f"{url} is no bandit-service: {error}"
