"""Where the service is, and as whom it is asked: from arguments or the environment."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from urllib.parse import urlsplit

DEFAULT_URL = "http://127.0.0.1:8080"
URL, KEY = "BANDIT_URL", "BANDIT_KEY"


@dataclass(frozen=True, slots=True)
class Address:
    """A service, and the key to send."""

    url: str
    key: str = field(repr=False)

    @property
    def headers(self) -> dict[str, str]:
        """The header that carries the key."""
        return {"Authorization": f"Bearer {self.key}"} if self.key else {}


def address(url: str | None, key: str | None) -> Address:
    """The arguments, or BANDIT_URL and BANDIT_KEY if they are None; ValueError names the wrong one.

    >>> address("http://127.0.0.1:8080/", "").url
    'http://127.0.0.1:8080'
    >>> address("localhost:8080", "")
    Traceback (most recent call last):
        ...
    ValueError: url: must be like http://HOST:PORT, got 'localhost:8080'
    """
    name_of_url, name_of_key = "url", "key"
    if url is None:
        url, name_of_url = os.environ.get(URL) or DEFAULT_URL, URL  # noqa: TID251 - the client's
    if key is None:
        key, name_of_key = os.environ.get(KEY, ""), KEY  # noqa: TID251
    try:
        parts = urlsplit(url)
        right = parts.scheme in ("http", "https") and bool(parts.hostname)
        right = right and not (parts.query or parts.fragment or parts.username)
        _ = parts.port  # ValueError where it is no number
    except (ValueError, AttributeError):
        right = False
    if not right:
        raise ValueError(f"{name_of_url}: must be like http://HOST:PORT, got {url!r}")
    if not (key.isascii() and key.isprintable()):
        raise ValueError(f"{name_of_key}: must be printable ASCII")
    return Address(url.rstrip("/"), key)
