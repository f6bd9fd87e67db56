"""Which proxy a provider is called through: the named one, or the environment's. Pure."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from urllib.parse import unquote, urlsplit


@dataclass(frozen=True, slots=True)
class Proxy:
    """Its address without its credentials, which are in no repr."""

    url: str
    user: str = field(default="", repr=False)
    password: str = field(default="", repr=False)

    def headers(self) -> dict[str, str]:
        """What the proxy learns about the client."""
        if not self.user:
            return {}
        words = b64encode(f"{self.user}:{self.password}".encode()).decode()
        return {"Proxy-Authorization": f"Basic {words}"}


def check_proxy(url: str) -> None:
    """Raise ValueError if it is not a usable proxy, or contains credentials."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(
            f"proxy: must be http://HOST:PORT or https://HOST:PORT, got {_bare(url)!r}"
        )
    if parts.username is not None or parts.password is not None:
        raise ValueError(
            "proxy: must not hold a user or a password, which this file would show; put the whole "
            "address into HTTPS_PROXY or HTTP_PROXY and set trust_env = true"
        )


def proxy_of(base_url: str, named: str, trusted: bool, environ: Mapping[str, str]) -> Proxy | None:
    """The proxy on the way to this address; None without one. Raises ValueError as `check_proxy`
    does.

    The variables are those of curl and most others: HTTPS_PROXY or HTTP_PROXY by the address's
    scheme, else ALL_PROXY, in small letters first, and NO_PROXY for hosts that are called directly.

    >>> environ = {"HTTPS_PROXY": "http://u:p@proxy:3128", "no_proxy": "localhost,.corp.example"}
    >>> proxy_of("https://api.example/v1", "", True, environ)
    Proxy(url='http://proxy:3128')
    >>> proxy_of("https://llm.corp.example/v1", "", True, environ) is None
    True
    """
    if named:
        return Proxy(named)
    if not trusted:
        return None
    capitals = {name.lower(): text for name, text in environ.items() if name.isupper()}
    given = capitals | {name: text for name, text in environ.items() if name.islower()}
    parts = urlsplit(base_url)
    url = given.get(f"{parts.scheme}_proxy", "").strip() or given.get("all_proxy", "").strip()
    if not url or _is_direct(parts.hostname or "", parts.port, given.get("no_proxy", "")):
        return None
    url = url if "://" in url else f"http://{url}"
    found = urlsplit(url)
    if found.scheme not in ("http", "https") or not found.hostname:
        raise ValueError(
            f"trust_env: the environment's proxy must be http://HOST:PORT or https://HOST:PORT, "
            f"got {_bare(url)!r}"
        )
    return Proxy(_bare(url), unquote(found.username or ""), unquote(found.password or ""))


def _is_direct(host: str, port: int | None, no_proxy: str) -> bool:
    """Whether NO_PROXY names the host: by its name, its domain, its address or its network."""
    for each in (entry.strip().lower() for entry in no_proxy.split(",")):
        name, _, only = each.rpartition(":") if each.count(":") == 1 else (each, "", "")
        if only and only != str(port):
            continue
        name = name.removeprefix("*").removeprefix(".")
        if each == "*" or (name and (host == name or host.endswith(f".{name}"))):
            return True
        with suppress(ValueError):
            if ip_address(host) in ip_network(each.strip("[]"), strict=False):
                return True
    return False


def _bare(url: str) -> str:
    """The address without what stands before the host's @."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
