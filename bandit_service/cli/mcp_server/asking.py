"""Reading from a running service; nothing here can change one."""

from __future__ import annotations

import json
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass, field
from typing import Any

from bandit_service.cli import refusals
from bandit_service.core.pools import POOL

_TIMEOUT_S = 30.0
_MAX_BYTES = 16_000_000
_EXPLAIN = "/v1/explain"


class NotAnswered(Exception):
    """The service refused, or is not there; the message says which, and never has the key."""


class _Stay(urllib.request.HTTPRedirectHandler):
    """Follows no redirect: the key is for this address only."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        """An answer of 3xx is an error."""


@dataclass(frozen=True, slots=True)
class Service:
    """A running service, the key to read with, and the pool that is asked."""

    url: str
    key: str = field(default="", repr=False)
    pool: str = ""

    def get(self, path: str, **query: str | int) -> Any:
        """GET of a path. Raises NotAnswered if it is refused."""
        return self._asked(path + (f"?{urllib.parse.urlencode(query)}" if query else ""), None)

    def explain(self, decision_id: str) -> Any:
        """How the query of a decision is scored now. The one POST; it draws and writes nothing."""
        return self._asked(_EXPLAIN, json.dumps({"decision_id": decision_id}).encode())

    def _asked(self, path: str, body: bytes | None) -> Any:
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if self.key:
            headers["Authorization"] = f"Bearer {self.key}"
        if self.pool:
            headers[POOL] = self.pool
        request = urllib.request.Request(self.url + path, body, headers)  # noqa: S310 - checked
        try:
            with urllib.request.build_opener(_Stay).open(request, timeout=_TIMEOUT_S) as answer:
                read = answer.read(_MAX_BYTES + 1)
            if len(read) > _MAX_BYTES:
                raise NotAnswered(f"{self.url} answered with more than {_MAX_BYTES} bytes")
            return json.loads(read)
        except refusals.ANY as error:
            raise NotAnswered(refusals.said(error, self.url)) from None


def service(url: str, key: str, pool: str = "") -> Service:
    """The service at this address. Raises ValueError without showing the key.

    >>> service("http://127.0.0.1:8080/", "").url
    'http://127.0.0.1:8080'
    >>> service("localhost:8080", "")
    Traceback (most recent call last):
        ...
    ValueError: --url: must be like http://HOST:PORT
    """
    try:
        parts = urllib.parse.urlsplit(url)
        right = parts.scheme in ("http", "https") and bool(parts.hostname)
        right = right and not (parts.query or parts.fragment or parts.username or parts.password)
        _ = parts.port  # ValueError where it is no number
    except ValueError:
        right = False
    if not right:  # it may have a password in it, so it is not repeated
        raise ValueError("--url: must be like http://HOST:PORT")
    if not (key.isascii() and key.isprintable()):
        raise ValueError("--key: must be printable ASCII")
    if not (pool.isascii() and pool.isprintable()):
        raise ValueError("--pool: must be printable ASCII")
    return Service(url.rstrip("/"), key, pool)


def at(id: str) -> str:
    """An id as one part of a path."""
    return urllib.parse.quote(id, safe="")
