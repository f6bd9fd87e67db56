"""Which names the service answers to, and of which origins a page may ask it. Pure.

A browser lets the page of any site send requests to addresses that only its machine reaches, and
says in `Origin` whose page it was. And whoever owns a name can let it lead to such an address (DNS
rebinding): then the page's own origin is the service, and only `Host` tells it from ours. Programs
send no `Origin`, and the `Host` of the address that they were given.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from bandit_service.core.errors import Forbidden

_Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

_AUTHORITY = re.compile(r"(?:\[([0-9a-fA-F:.]{2,45})\]|([A-Za-z0-9._-]{1,253}))(?::([0-9]{0,5}))?")
_ORIGIN = re.compile(r"([a-z][a-z0-9+.-]{0,30})://([^/?#@\s]+)")
_PORTS = {"http": 80, "https": 443}
_ELSEWHERE = ("cross-site", "same-site")
"""What `Sec-Fetch-Site` says of a page that did not come from this very address."""
_OURS = "localhost, loopback addresses and the names in the setting server.allowed_hosts"


@dataclass(frozen=True, slots=True)
class Headers:
    """What a request says of where it was sent and by whom: every value of each header."""

    host: Sequence[str] = ()
    origin: Sequence[str] = ()
    site: str = ""


@dataclass(frozen=True, slots=True)
class Borders:
    """Every request is looked at here before anything else of it is."""

    names: frozenset[str] = frozenset()
    networks: tuple[_Network, ...] = ()
    origins: frozenset[str] = frozenset()
    secure: bool = False
    keys: bool = False

    @staticmethod
    def of(
        hosts: Sequence[str], origins: Sequence[str], listening: str, secure: bool, keys: bool
    ) -> Borders:
        """Borders of the settings. The address that is listened on is a name of the service.

        secure: the service itself speaks TLS. keys: it asks for API keys.
        """
        names, networks = set(), []
        for one in hosts:
            if "/" in one:
                networks.append(ipaddress.ip_network(one))
            else:
                names.add(_named(one))
        if not _is_any(listening):
            names.add(_named(listening))
        mine = frozenset(_origin(one) or one for one in origins)
        return Borders(frozenset(names), tuple(networks), mine, secure, keys)

    def cross(self, headers: Headers, scope: str) -> None:
        """Forbidden unless this may come in, to a route that needs `scope` and no key for "open".

        Where a key is needed no name is asked for: a page that was led here by a name of its own
        has no key, for a browser keeps what is stored by origin, and no cookie is ever read.
        """
        host = self._host(headers)
        if not self.keys or scope == "open":
            self._known(host)
        if headers.origin and self._of_ours(headers.origin, host):
            return
        if headers.site in _ELSEWHERE and scope not in ("", "open"):
            raise Forbidden(
                "Sec-Fetch-Site: a page of another origin may not ask for this; allowed are the "
                "service's own page, and programs",
                param="Sec-Fetch-Site",
                reason="origin",
            )

    def _host(self, headers: Headers) -> tuple[str, int | None] | None:
        """The name and the port that the request was sent to; None where it does not say one."""
        return _authority(headers.host[0]) if len(headers.host) == 1 else None

    def _known(self, host: tuple[str, int | None] | None) -> None:
        if host is None:
            raise Forbidden(
                f"Host: must be there once, as name or name:port; allowed are {_OURS}",
                param="Host",
                reason="host",
            )
        if not self._is_ours(host[0]):
            raise Forbidden(
                f"Host: {host[0]!r} is no name of this service; allowed are {_OURS}",
                param="Host",
                reason="host",
            )

    def _is_ours(self, name: str) -> bool:
        if name in self.names or _is_loopback(name):
            return True
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            return False
        return any(address in network for network in self.networks)

    def _speaks(self, scheme: str, name: str) -> bool:
        """Whether this scheme can lead here: TLS may end before the service, not on loopback."""
        return scheme == "https" if self.secure else scheme == "http" or not _is_loopback(name)

    def _of_ours(self, given: Sequence[str], host: tuple[str, int | None] | None) -> bool:
        """Whether it is a configured origin; Forbidden if it is not that of the request either."""
        origin = _origin(given[0]) if len(given) == 1 else None
        if origin is not None and origin in self.origins:
            return True
        scheme, _, authority = (origin or "").partition("://")
        asked = _authority(authority) if scheme in _PORTS else None
        if asked is not None and host is not None and asked[0] == host[0]:
            port = _PORTS[scheme]
            if self._speaks(scheme, host[0]) and (asked[1] or port) == (host[1] or port):
                return False
        shown = "null" if list(given) == ["null"] else origin
        what = repr(shown) if shown else "what was sent"
        raise Forbidden(
            f"Origin: {what} is not where this request was sent to; allowed are pages of the same "
            "scheme, name and port, and the origins in the setting server.allowed_origins",
            param="Origin",
            reason="origin",
        )


def check_host(name: str) -> str:
    """What is wrong with an entry of server.allowed_hosts; empty if nothing is."""
    if "/" in name:
        try:
            ipaddress.ip_network(name)
        except ValueError as error:
            return str(error)
        return ""
    found = _authority(name if name.count(":") < 2 or "[" in name else f"[{name}]")
    if found is None:
        return f"{name!r} is no name, address or network"
    return "" if found[1] is None else f"{name!r} has a port; every port is allowed, leave it out"


def check_origin(origin: str) -> str:
    """What is wrong with an entry of server.allowed_origins; empty if nothing is."""
    return "" if _origin(origin) else f"{origin!r} is not scheme://name or scheme://name:port"


def _is_any(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return not host


def _is_loopback(name: str) -> bool:
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name == "localhost"


def _named(host: str) -> str:
    """A name or an address in the one form that is compared."""
    name = host.strip("[]").lower().removesuffix(".")
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return name
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)


def _authority(text: str) -> tuple[str, int | None] | None:
    """Name and port of a `Host`; None where it is none."""
    found = _AUTHORITY.fullmatch(text)
    if found is None:
        return None
    six, name, port = found.groups()
    if six is not None:
        try:
            ipaddress.IPv6Address(six)
        except ValueError:
            return None
    plain = _named(six or name)
    if not plain or (port and int(port) > 65535):
        return None
    return plain, int(port) if port else None


def _origin(text: str) -> str | None:
    """An origin in the one form that is compared, without the port that its scheme has anyway."""
    found = _ORIGIN.fullmatch(text.lower())
    authority = _authority(found[2]) if found else None
    if found is None or authority is None:
        return None
    name, port = authority
    name = f"[{name}]" if ":" in name else name
    ending = "" if port is None or port == _PORTS.get(found[1]) else f":{port}"
    return f"{found[1]}://{name}{ending}"
