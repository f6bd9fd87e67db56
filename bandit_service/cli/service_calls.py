"""One request of a command to a running service."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Mapping
from typing import Any

from bandit_service.core.pools import POOL

TIMEOUT_S = 120.0


def asked(
    url: str,
    key: str,
    method: str,
    path: str,
    body: Mapping[str, Any] | None = None,
    headers: Mapping[str, str] | None = None,
    pool: str = "",
) -> Any:
    """The JSON of its answer. pool: which one is asked, "" for the default one. Raises one of
    `refusals.ANY`.
    """
    sent = {"Content-Type": "application/json", **(headers or {})}
    if key:
        sent["Authorization"] = f"Bearer {key}"
    if pool:
        sent[POOL] = pool
    data = None if body is None else json.dumps(body, default=str).encode()
    request = urllib.request.Request(  # noqa: S310 - the URL is the user's own
        url.rstrip("/") + path, data=data, headers=sent, method=method
    )
    with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:  # noqa: S310
        return json.load(answer)
