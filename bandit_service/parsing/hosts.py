"""Names, addresses and origins in the one form in which they are compared."""

from __future__ import annotations

import ipaddress
import re
from functools import lru_cache

_AUTHORITY = re.compile(r"(?:\[([0-9a-fA-F:.]{2,45})\]|([A-Za-z0-9._-]{1,253}))(?::([0-9]{0,5}))?")


_ORIGIN = re.compile(r"([a-z][a-z0-9+.-]{0,30})://([^/?#@\s]+)")


DEFAULT_PORTS = {"http": 80, "https": 443}


def check_host(name: str) -> str:
    """What is wrong with an entry of server.allowed_hosts; empty if nothing is."""
    if "/" in name:
        try:
            ipaddress.ip_network(name)
        except ValueError as error:
            return str(error)
        return ""
    found = authority_of(name if name.count(":") < 2 or "[" in name else f"[{name}]")
    if found is None:
        return f"{name!r} is no name, address or network"
    return "" if found[1] is None else f"{name!r} has a port; every port is allowed, leave it out"


def check_origin(origin: str) -> str:
    """What is wrong with an entry of server.allowed_origins; empty if nothing is."""
    return "" if origin_of(origin) else f"{origin!r} is not scheme://name or scheme://name:port"


def is_any(host: str) -> bool:
    """Whether this address means every interface."""
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return not host


def is_loopback(name: str) -> bool:
    """Whether this is localhost or an address of the loopback interface."""
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name == "localhost"


def canonical(host: str) -> str:
    """A name or an address in the one form that is compared."""
    name = host.strip("[]").lower().removesuffix(".")
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return name
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)


@lru_cache(256)
def authority_of(text: str) -> tuple[str, int | None] | None:
    """Name and port of a `Host`; None if it is not one."""
    found = _AUTHORITY.fullmatch(text)
    if found is None:
        return None
    six, name, port = found.groups()
    if six is not None:
        try:
            ipaddress.IPv6Address(six)
        except ValueError:
            return None
    plain = canonical(six or name)
    if not plain or (port and int(port) > 65535):
        return None
    return plain, int(port) if port else None


def origin_of(text: str) -> str | None:
    """An origin in the one form that is compared, without the port that its scheme has anyway."""
    found = _ORIGIN.fullmatch(text.lower())
    authority = authority_of(found[2]) if found else None
    if found is None or authority is None:
        return None
    name, port = authority
    name = f"[{name}]" if ":" in name else name
    ending = "" if port is None or port == DEFAULT_PORTS.get(found[1]) else f":{port}"
    return f"{found[1]}://{name}{ending}"
